"""What does it mean to retry a task that has ended? It goes on from where it failed."""

from steelyard.domain.events import TaskRetried, TaskSubmitted
from steelyard.errors import ConfigError, TaskNotFoundError
from steelyard.runtime.journal import Journal
from steelyard.runtime.open_tasks import TaskLimits


def retried(task_id: str, journal: Journal, limits: TaskLimits, now_s: float) -> TaskRetried:
    """The event that lets a task go on.

    Steps that have a result keep it, and are not paid for again; the failures that ended the task
    are tried again. What it spent counts against its budget.

    Args:
        task_id: The task.
        journal: What is recorded of it.
        limits: New ones; where one is None, the task gets as long, or as much, as at first.
        now_s: Time on the caller's clock.

    Returns:
        The event.

    Raises:
        ConfigError: The task has not ended, or has nothing left to do.
        TaskNotFoundError: It was never submitted.
    """
    before, ended = journal.submitted, journal.finished
    if before is None:
        raise TaskNotFoundError(f"task {task_id} has no submission in its log")
    if ended is None:
        raise ConfigError(f"task {task_id} has not ended; cancel it, or wait for its end")
    if ended.status == "succeeded" and not ended.wrapped_up:
        raise ConfigError(
            f"task {task_id} has succeeded; nothing is left to be retried: submit it anew "
            "(`--from-start`)"
        )
    deadline_s = None
    after_s = limits.deadline_after_s or _lasting_s(before)
    if after_s is not None:
        deadline_s = now_s + after_s
    budget_usd = before.budget_usd if limits.budget_usd is None else limits.budget_usd
    return TaskRetried(t_s=now_s, task_id=task_id, deadline_s=deadline_s, budget_usd=budget_usd)


def submitted_anew(
    task_id: str, journal: Journal, limits: TaskLimits, now_s: float
) -> TaskSubmitted:
    """The submission of a task like an ended one, from the start.

    Args:
        task_id: Id of the new task.
        journal: What is recorded of the old one.
        limits: New ones; where one is None, as at first.
        now_s: Time on the caller's clock.

    Returns:
        The event.

    Raises:
        TaskNotFoundError: The old one was never submitted.
    """
    before = journal.submitted
    if before is None:
        raise TaskNotFoundError(f"no submission is recorded that task {task_id} could repeat")
    after_s = limits.deadline_after_s or _lasting_s(before)
    return TaskSubmitted(
        t_s=now_s,
        task_id=task_id,
        agent=before.agent,
        deadline_s=None if after_s is None else now_s + after_s,
        budget_usd=before.budget_usd if limits.budget_usd is None else limits.budget_usd,
        arguments=before.arguments,
    )


def _lasting_s(before: TaskSubmitted) -> float | None:
    """How long had it at first?"""
    return None if before.deadline_s is None else before.deadline_s - before.t_s
