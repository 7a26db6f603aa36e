"""What does a workload ask for? Step classes with their rates and what one step of each uses."""

import math
from collections import defaultdict
from typing import Literal

import msgspec

from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask
from steelyard.errors import PlanError

SIZE_STEP = 4
# Windows for the peak when none is named: the shortest with enough arrivals to tell a peak from
# chance (30 differ by 18 % of their own), and enough windows for a quantile.
PEAK_WINDOWS_S = (60.0, 300.0, 900.0, 3600.0)
FEWEST_PER_WINDOW = 30
FEWEST_WINDOWS = 10

Arrivals = Literal["peak", "mean"]


# Beyond that, numbers leave the range in which the solver is exact.
MOST_GROWTH = 1e9


class StepClass(msgspec.Struct, frozen=True, kw_only=True):
    """Steps that are alike: of one agent, name, kind and model, with prompts of like length.

    Attributes:
        name: Unique, for reports.
        agent: Name of the agent.
        step: Name of the step within the agent.
        kind: What it is.
        model: Model of an LLM step, empty otherwise.
        count: Steps seen in the workload.
        rate_per_s: Steps per second to provide for, growth included.
        prompt_tokens: Mean length of the prompt.
        uncached_tokens: Mean prompt tokens that must be computed.
        high_uncached_tokens: The same at the planning quantile, for the TTFT limit.
        output_tokens: Mean length of the answer.
        longest_context_tokens: Longest prompt plus answer seen.
        cpu_s: Mean CPU seconds on the reference core.
        wait_s: Mean seconds that a tool waits beside its CPU time.
        memory_bytes: Peak memory at the planning quantile.
        per_task: Mean number of these steps on the longest chain of a task.
    """

    name: str
    agent: str
    step: str
    kind: Literal["llm", "tool"]
    model: str
    count: int
    rate_per_s: float
    prompt_tokens: float = 0.0
    uncached_tokens: float = 0.0
    high_uncached_tokens: float = 0.0
    output_tokens: float = 0.0
    longest_context_tokens: int = 0
    cpu_s: float = 0.0
    wait_s: float = 0.0
    memory_bytes: float = 0.0
    per_task: float = 0.0


class WorkloadDemand(msgspec.Struct, frozen=True, kw_only=True):
    """All step classes of a workload.

    Attributes:
        workload: Name of the workload.
        tasks_per_s: Tasks per second to provide for, growth included.
        growth_factor: How much more than the workload's own rate.
        quantile: Quantile of prompt length and memory that is provided for.
        classes: Sorted by name.
        deadlines_s: Agent to the shortest deadline of its tasks, seconds from arrival; people's
            gaps are taken off.
        peak_factor: How much more than the mean rate is provided for, growth aside.
        peak_window_s: Length of the windows whose quantile of rates that is; None: the mean rate
            is provided for, as asked or because too little was recorded to tell a peak.
    """

    workload: str
    tasks_per_s: float
    growth_factor: float
    quantile: float
    classes: tuple[StepClass, ...]
    deadlines_s: dict[str, float] = {}
    peak_factor: float = 1.0
    peak_window_s: float | None = None


def demand_of(
    workload: Workload,
    growth_factor: float = 1.0,
    quantile: float = 0.95,
    duration_s: float | None = None,
    peak_window_s: float | None = None,
    arrivals: Arrivals = "peak",
) -> WorkloadDemand:
    """Which steps come how often, and what does one use?

    Rates are the quantile over windows of the arrivals, times the growth factor; means where that
    is asked for or where too little was recorded. Gaps of people (`human`) use nothing.

    Args:
        workload: Tasks with their steps.
        growth_factor: Rate to provide for, over the workload's own.
        quantile: For prompt length (TTFT) and memory.
        duration_s: Seconds over which the tasks arrived; None takes the span of the arrivals.
        peak_window_s: Length of the windows; None takes the shortest of `PEAK_WINDOWS_S` that holds
            30 tasks in the mean and is filled ten times, and the mean rate if there is none.
        arrivals: `peak` provides for the `quantile` of the windows' rates, `mean` for the mean.

    Returns:
        The demand.

    Raises:
        PlanError: No steps, no duration, or numbers out of range.
    """
    if not 0.0 < growth_factor <= MOST_GROWTH:
        raise PlanError(
            f"growth factor is {growth_factor}; it must be a number above 0, at most"
            f" {MOST_GROWTH:g}"
        )
    if not 0.0 < quantile <= 1.0:
        raise PlanError(f"planning quantile is {quantile}; it must be in (0, 1]")
    recorded_s = _duration_s(workload)
    span_s = recorded_s if duration_s is None else duration_s
    if not span_s > 0.0:
        raise PlanError(
            f"workload {workload.name!r} has {len(workload.tasks)} tasks that arrive within"
            f" {span_s} s, so it has no rate; give its duration in seconds"
        )
    groups: dict[_GroupKey, list[WorkloadStep]] = defaultdict(list)
    for task in workload.tasks:
        for step in task.steps:
            if step.kind != "human":
                groups[_group(task, step)].append(step)
    if not groups:
        raise PlanError(f"workload {workload.name!r} has no LLM or tool steps; nothing to plan")
    window_s = peak_window_s or usual_window_s(workload) if arrivals == "peak" else None
    peak = 1.0 if window_s is None else peak_factor(workload, window_s, quantile)
    if window_s is not None and span_s > recorded_s:
        # A duration with hours in which nothing arrived lowers the mean, but not the busy hours.
        peak *= span_s / recorded_s
    factor = growth_factor * peak / span_s
    chains = chain_counts(workload)
    return WorkloadDemand(
        workload=workload.name,
        tasks_per_s=len(workload.tasks) * factor,
        growth_factor=growth_factor,
        quantile=quantile,
        classes=tuple(
            msgspec.structs.replace(
                _step_class(key[0], steps, factor, quantile), per_task=chains.get(key, 0.0)
            )
            for key, steps in sorted(groups.items())
        ),
        deadlines_s=_deadlines_s(workload),
        peak_factor=peak,
        peak_window_s=window_s,
    )


_GroupKey = tuple[str, str, str, str, int]


def _group(task: WorkloadTask, step: WorkloadStep) -> _GroupKey:
    return (task.agent, step.name, step.kind, step.model, _size(step))


def usual_window_s(workload: Workload) -> float | None:
    """Over which windows can this workload's peak be told? Seconds; None if over none."""
    times_s = [task.arrival_s for task in workload.tasks]
    span_s = max(times_s) - min(times_s) if times_s else 0.0
    for window_s in PEAK_WINDOWS_S:
        windows = int(span_s / window_s)
        if windows >= FEWEST_WINDOWS and len(times_s) >= FEWEST_PER_WINDOW * windows:
            return window_s
    return None


def peak_factor(workload: Workload, window_s: float, quantile: float) -> float:
    """How much more than the mean arrives in a busy window?

    Args:
        workload: Tasks with their arrivals.
        window_s: Length of a window, seconds; whole windows from the first arrival on count.
        quantile: Which quantile of the windows' counts is taken.

    Returns:
        Quantile over mean, at least 1.

    Raises:
        PlanError: The window is not above 0, or the arrivals fill fewer than ten windows.
    """
    if not (math.isfinite(window_s) and window_s > 0.0):
        raise PlanError(f"peak window is {window_s} s; it must be a number above 0")
    arrivals = sorted(task.arrival_s for task in workload.tasks)
    windows = int((arrivals[-1] - arrivals[0]) / window_s) if arrivals else 0
    if windows < FEWEST_WINDOWS:
        raise PlanError(
            f"workload {workload.name!r} fills {windows} windows of {window_s:g} s; a quantile of"
            " their rates needs at least 10: take a shorter peak window, or none"
        )
    counts = [0.0] * windows
    for arrival_s in arrivals:
        window = int((arrival_s - arrivals[0]) / window_s)
        if window < windows:
            counts[window] += 1.0
    return max(1.0, _quantile(counts, quantile) / _mean(counts))


def chain_counts(workload: Workload) -> dict[_GroupKey, float]:
    """How many steps of each kind are on the longest chain of a task, on average?

    The chain with the most steps, people's gaps not counted; what runs beside it costs no time.
    """
    totals: dict[_GroupKey, float] = defaultdict(float)
    tasks: dict[str, int] = defaultdict(int)
    for task in workload.tasks:
        tasks[task.agent] += 1
        for step in _longest_chain(task):
            totals[_group(task, step)] += 1.0
    return {key: total / tasks[key[0]] for key, total in totals.items()}


def _longest_chain(task: WorkloadTask) -> list[WorkloadStep]:
    length: dict[int, int] = {}
    before: dict[int, int] = {}
    by_id = {step.step_id: step for step in task.steps}
    for step in sorted(task.steps, key=lambda s: s.step_id):
        parents = [p for p in step.parents if p in length]
        longest = max(parents, key=lambda p: (length[p], -p), default=None)
        if longest is not None:
            before[step.step_id] = longest
        own = 0 if step.kind == "human" else 1
        length[step.step_id] = own + (0 if longest is None else length[longest])
    chain: list[WorkloadStep] = []
    at = max(length, key=lambda s: (length[s], -s), default=None)
    while at is not None:
        if by_id[at].kind != "human":
            chain.append(by_id[at])
        at = before.get(at)
    return chain


def _deadlines_s(workload: Workload) -> dict[str, float]:
    """The shortest deadline of each agent, without people's gaps: no hardware shortens them."""
    shortest: dict[str, float] = {}
    for task in workload.tasks:
        if task.deadline_after_s is not None:
            people_s = math.fsum(s.think_or_tool_s for s in task.steps if s.kind == "human")
            left_s = task.deadline_after_s - people_s
            shortest[task.agent] = min(shortest.get(task.agent, left_s), left_s)
    return dict(sorted(shortest.items()))


def _duration_s(workload: Workload) -> float:
    """Span of n arrivals, with one mean gap more: n arrivals have n - 1 gaps."""
    arrivals = [task.arrival_s for task in workload.tasks]
    if len(arrivals) < 2:
        return 0.0
    return (max(arrivals) - min(arrivals)) * len(arrivals) / (len(arrivals) - 1)


def _size(step: WorkloadStep) -> int:
    """Upper end of the range of prompt lengths: 64, 256, 1024, ...; 0 for tools."""
    if step.kind != "llm":
        return 0
    size = 64
    while size < step.prompt_tokens:
        size *= SIZE_STEP
    return size


def _uncached(step: WorkloadStep) -> int:
    """Prompt tokens not read from a cache: as recorded, else all but the repeated prefix."""
    cached = step.shared_prefix_tokens if step.cached_tokens is None else step.cached_tokens
    return max(0, step.prompt_tokens - cached)


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def _quantile(values: list[float], quantile: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(quantile * len(ordered) - 1e-9) - 1)]


def _step_class(agent: str, steps: list[WorkloadStep], factor: float, quantile: float) -> StepClass:
    first = steps[0]
    parts = [agent, first.name]
    if first.kind == "llm":
        parts += [first.model, f"to {_size(first)} tokens"]
    uncached = [float(_uncached(s)) for s in steps]
    return StepClass(
        name=" / ".join(parts),
        agent=agent,
        step=first.name,
        kind="llm" if first.kind == "llm" else "tool",
        model=first.model,
        count=len(steps),
        rate_per_s=len(steps) * factor,
        prompt_tokens=_mean([float(s.prompt_tokens) for s in steps]),
        uncached_tokens=_mean(uncached),
        high_uncached_tokens=_quantile(uncached, quantile),
        output_tokens=_mean([float(s.output_tokens) for s in steps]),
        longest_context_tokens=max(s.prompt_tokens + s.output_tokens for s in steps),
        cpu_s=_mean([s.cpu_s for s in steps]),
        wait_s=_mean([s.think_or_tool_s for s in steps]) if first.kind == "tool" else 0.0,
        memory_bytes=_quantile([float(s.memory_bytes) for s in steps], quantile),
    )
