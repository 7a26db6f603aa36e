"""The books of tasks that have not ended: money, progress, and what they teach at their end."""

from steelyard.domain.events import (
    AttemptFinished,
    StepRecorded,
    StepWaiting,
    TaskFinished,
    TaskSubmitted,
)
from steelyard.domain.task import LlmCall
from steelyard.fleet.accounts import OpenAttempt, TaskAccount
from steelyard.fleet.lessons import Lessons

# Tasks that only a request header names are closed after a silence; until then the oldest
# accounts are dropped where there are too many.
_MAX_OPEN_TASKS = 100_000
# A name under which requests come all day is a task without end: its later steps teach nothing.
_MAX_FINISHED = 10_000


class TaskBooks:
    """One account per task.

    Attributes:
        accounts: By task, the oldest first.
    """

    def __init__(self) -> None:
        self.accounts: dict[str, TaskAccount] = {}

    def open_task(self, event: TaskSubmitted) -> TaskAccount | None:
        """A task has arrived. Returns the oldest account where that had to be dropped for it."""
        self.accounts[event.task_id] = TaskAccount(event.agent, submitted_s=event.t_s)
        if len(self.accounts) > _MAX_OPEN_TASKS:
            return self.accounts.pop(next(iter(self.accounts)))
        return None

    def spent_usd(self, task_id: str) -> float:
        """What have the finished attempts of an open task cost, in USD?"""
        account = self.accounts.get(task_id)
        return 0.0 if account is None else account.spent_usd

    def committed_usd(self, task_id: str) -> float:
        """What has an open task spent or reserved, its children's budgets included, in USD?"""
        account = self.accounts.get(task_id)
        return 0.0 if account is None else account.spent_usd + account.reserved_usd

    def has_task(self, task_id: str) -> bool:
        """Is the task open?"""
        return task_id in self.accounts

    def forget_task(self, task_id: str) -> None:
        """Close a task's account without learning from it: it goes on in another process."""
        self.accounts.pop(task_id, None)

    def reserve_child(self, event: StepWaiting) -> None:
        """A child begins: its budget is taken out of its parent's."""
        account = self.accounts.get(event.task_id)
        if account is None or event.kind != "child":
            return
        # A child of a retried task is reserved for anew.
        account.reserved_usd -= account.children_usd.get(event.step_id, 0.0)
        account.children_usd[event.step_id] = event.reserved_usd or 0.0
        account.reserved_usd += account.children_usd[event.step_id]

    def charge_child(self, event: StepRecorded) -> None:
        """A child has ended: its parent is charged what it cost."""
        account = self.accounts.get(event.task_id)
        if account is None or event.kind != "child":
            return
        account.reserved_usd -= account.children_usd.pop(event.step_id, 0.0)
        account.spent_usd += event.cost_usd

    def charge(self, event: AttemptFinished) -> TaskAccount | None:
        """An attempt has cost what it did. Returns its task's account, if that is open."""
        account = self.accounts.get(event.task_id)
        if account is not None:
            account.spent_usd += event.cost_usd
        return account

    @staticmethod
    def advance(account: TaskAccount, attempt: OpenAttempt, event: AttemptFinished) -> None:
        """Note how far the task has come; waits and slow machines count as avoidable."""
        step = attempt.step
        account.attained_s += event.usage.wall_s
        if isinstance(step.call, LlmCall):
            account.last_place = (attempt.pool, attempt.replica)
            account.last_end_s = event.t_s
        if attempt.least_s is not None:
            took_s = event.t_s - attempt.placed_s
            account.avoidable_s += max(0.0, took_s - attempt.least_s)
        if len(account.finished) < _MAX_FINISHED:
            at_s = event.t_s - account.avoidable_s
            account.finished.append((step.name, step.step_id, at_s))

    def close_task(self, event: TaskFinished, lessons: Lessons) -> None:
        """A task has ended; what was left after each of its steps is learned where it succeeded."""
        account = self.accounts.pop(event.task_id, None)
        if account is None or event.status != "succeeded":
            return
        for name, step_id, t_s in account.finished:
            estimate = lessons.estimate_of(account.agent, name)
            estimate.add_remaining(step_id, max(0.0, event.finished_s - account.avoidable_s - t_s))


def note_failure(account: TaskAccount, attempt: OpenAttempt, event: AttemptFinished) -> None:
    """Remember where a step failed, until it has a result."""
    if event.outcome == "failed":
        places = account.failed.setdefault(event.step_id, [])
        places.append((attempt.pool, attempt.replica))
    elif account.failed:
        account.failed.pop(event.step_id, None)
