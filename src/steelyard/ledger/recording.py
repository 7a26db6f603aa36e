"""The ledger as a workload: what was served can be planned for and simulated."""

from collections.abc import Mapping, Sequence

import msgspec

from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import LlmCall, Step
from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask
from steelyard.ledger.ledger import AttemptRecord, Ledger, OpenTask, TaskRecord

# Agent, model and hash of a prompt's beginning.
_Prefix = tuple[str, str, int]


def workload_of(ledger: Ledger, name: str, source: str) -> Workload:
    """Which tasks did the ledger see?

    Tasks that ended and ran at least one step well are part of it. So are those that only requests
    name (`Steelyard-Task`, `traceparent`), up to where they are: these end by a long silence alone,
    and a log may be read before. Only attempts that went well count. CPU seconds are converted to
    the reference core.

    Args:
        ledger: The books.
        name: Name of the workload.
        source: Where the log lies.

    Returns:
        The tasks in order of arrival, the first one at 0 s.
    """
    steps: dict[str, list[AttemptRecord]] = {}
    first_task: dict[_Prefix, str] = {}
    common: set[_Prefix] = set()
    for attempt in ledger.attempts:
        if attempt.outcome == "ok":
            steps.setdefault(attempt.step.task_id, []).append(attempt)
            for prefix in _prefixes(attempt.step):
                if first_task.setdefault(prefix, attempt.step.task_id) != attempt.step.task_id:
                    common.add(prefix)
    seen: list[TaskRecord | OpenTask] = [*ledger.tasks, *_named(ledger, steps)]
    tasks = sorted(
        (task for task in seen if task.task_id in steps),
        key=lambda task: (task.submitted_s, task.task_id),
    )
    start_s = tasks[0].submitted_s if tasks else 0.0
    return Workload(
        name=name,
        tasks=tuple(_task(ledger, task, steps[task.task_id], start_s, common) for task in tasks),
        source=source,
    )


def _named(ledger: Ledger, steps: dict[str, list[AttemptRecord]]) -> list[OpenTask]:
    """Open tasks that no worker runs, and of which no attempt is under way.

    The steps of a task that a worker runs have the number of its lease: such a task will tell when
    it has ended.
    """
    return [
        task
        for task in ledger.open_tasks()
        if not task.under_way
        and all(attempt.step.fence is None for attempt in steps.get(task.task_id, ()))
    ]


def _task(
    ledger: Ledger,
    task: TaskRecord | OpenTask,
    attempts: list[AttemptRecord],
    start_s: float,
    common: set[_Prefix],
) -> WorkloadTask:
    # A step that its caller asked for twice counts once, as it was answered last.
    by_step = {one.step.step_id: one for one in attempts}
    ordered = [by_step[step_id] for step_id in sorted(by_step)]
    known = {one.step.step_id for one in ordered}
    steps: list[WorkloadStep] = []
    for index, attempt in enumerate(ordered):
        earlier = ordered[:index]
        parents = tuple(parent for parent in attempt.step.parents if parent in known)
        step = workload_step(ledger.pools, attempt, earlier, parents)
        if isinstance(attempt.step.call, LlmCall):
            tokens = _common_tokens(attempt, common)
            step = msgspec.structs.replace(
                step, common_prefix_tokens=min(step.prompt_tokens, tokens)
            )
        steps.append(step)
    return WorkloadTask(
        task_id=task.task_id,
        agent=task.agent,
        arrival_s=task.submitted_s - start_s,
        steps=tuple(steps),
        deadline_after_s=None if task.deadline_s is None else task.deadline_s - task.submitted_s,
        budget_usd=task.budget_usd,
    )


def workload_step(
    pools: Mapping[str, PoolSpec],
    attempt: AttemptRecord,
    earlier: Sequence[AttemptRecord],
    parents: tuple[int, ...],
) -> WorkloadStep:
    """Which step of a workload is an attempt that went well?

    Args:
        pools: By name, for the speed of tools.
        attempt: The attempt.
        earlier: Attempts of the task that went well, of steps with lower numbers.
        parents: Steps that it waited for.

    Returns:
        The step; what other tasks share with it is not known here, and 0.
    """
    step, usage = attempt.step, attempt.usage
    if isinstance(step.call, LlmCall):
        return WorkloadStep(
            step_id=step.step_id,
            parents=parents,
            kind="llm",
            name=step.name,
            model=step.call.model,
            prompt_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            max_output_tokens=step.call.max_output_tokens,
            shared_prefix_tokens=min(usage.input_tokens, _shared_tokens(attempt, earlier)),
            recorded_s=usage.wall_s,
            cached_tokens=usage.cached_tokens,
        )
    spec = pools.get(attempt.decision.pool)
    curve = None if spec is None else spec.tool_curve
    speed = 1.0 if curve is None else curve.relative_speed
    return WorkloadStep(
        step_id=step.step_id,
        parents=parents,
        kind="tool",
        name=step.name,
        tool=step.call.tool,
        cpu_s=usage.cpu_s * speed,
        think_or_tool_s=max(0.0, usage.wall_s - usage.cpu_s),
        memory_bytes=usage.memory_bytes,
        recorded_s=usage.wall_s,
    )


def _prefixes(step: Step) -> list[_Prefix]:
    call = step.call
    if not isinstance(call, LlmCall):
        return []
    return [(step.agent, call.model, prefix_hash) for prefix_hash in call.prefix_hashes]


def _scale(attempt: AttemptRecord) -> float:
    """Tokens that the engine counted per token that the gateway estimated; 1 where unknown."""
    call = attempt.step.call
    if not isinstance(call, LlmCall) or not call.input_tokens or not attempt.usage.input_tokens:
        return 1.0
    return attempt.usage.input_tokens / call.input_tokens


def _common_tokens(attempt: AttemptRecord, common: set[_Prefix]) -> int:
    """Tokens of the longest beginning that another task of the agent had, too."""
    call = attempt.step.call
    tokens = call.prefix_tokens if isinstance(call, LlmCall) else ()
    longest = max(
        (
            end
            for prefix, end in zip(_prefixes(attempt.step), tokens, strict=True)
            if prefix in common
        ),
        default=0,
    )
    return round(longest * _scale(attempt))


def _shared_tokens(attempt: AttemptRecord, earlier: Sequence[AttemptRecord]) -> int:
    """Tokens of the longest beginning that an earlier step of the same task read or wrote.

    Where a prompt goes on past the end of an earlier one, it goes on with that one's answer: an
    assumption, since the log holds no texts. The engine counted both. Boundaries inside of prompts
    are estimates, brought to the engine's count by the ratio of the two for the whole prompt.
    """
    call = attempt.step.call
    if not isinstance(call, LlmCall):
        return 0
    seen: set[int] = set()
    whole: dict[int, AttemptRecord] = {}
    for one in earlier:
        before = one.step.call
        if isinstance(before, LlmCall) and before.model == call.model and before.prefix_hashes:
            seen.update(before.prefix_hashes)
            if before.prefix_tokens[-1] == before.input_tokens:
                whole[before.prefix_hashes[-1]] = one
    last = len(call.prefix_hashes) - 1
    for at in range(last, -1, -1):
        prefix_hash = call.prefix_hashes[at]
        if prefix_hash in whole:
            usage = whole[prefix_hash].usage
            return usage.input_tokens + (usage.output_tokens if at < last else 0)
        if prefix_hash in seen:
            return round(call.prefix_tokens[at] * _scale(attempt))
    return 0
