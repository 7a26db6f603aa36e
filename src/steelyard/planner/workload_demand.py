"""What does a workload ask for? Step classes with their rates and what one step of each uses."""

import math
from collections import defaultdict
from typing import Literal

import msgspec

from steelyard.domain.workload import Workload, WorkloadStep
from steelyard.errors import PlanError

SIZE_STEP = 4


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


class WorkloadDemand(msgspec.Struct, frozen=True, kw_only=True):
    """All step classes of a workload.

    Attributes:
        workload: Name of the workload.
        tasks_per_s: Tasks per second to provide for, growth included.
        growth_factor: How much more than the workload's own rate.
        quantile: Quantile of prompt length and memory that is provided for.
        classes: Sorted by name.
    """

    workload: str
    tasks_per_s: float
    growth_factor: float
    quantile: float
    classes: tuple[StepClass, ...]


def demand_of(
    workload: Workload,
    growth_factor: float = 1.0,
    quantile: float = 0.95,
    duration_s: float | None = None,
) -> WorkloadDemand:
    """Which steps come how often, and what does one use?

    Thin: rates are means over the workload times the growth factor; peaks inside it are left to
    the headroom. Gaps of people (`human`) use nothing.

    Args:
        workload: Tasks with their steps.
        growth_factor: Rate to provide for, over the workload's own.
        quantile: For prompt length (TTFT) and memory.
        duration_s: Seconds over which the tasks arrived; None takes the span of the arrivals.

    Returns:
        The demand.

    Raises:
        PlanError: No steps, no duration, or numbers out of range.
    """
    if not (math.isfinite(growth_factor) and growth_factor > 0.0):
        raise PlanError(f"growth factor is {growth_factor}; it must be a number above 0")
    if not 0.0 < quantile <= 1.0:
        raise PlanError(f"planning quantile is {quantile}; it must be in (0, 1]")
    span_s = _duration_s(workload) if duration_s is None else duration_s
    if not span_s > 0.0:
        raise PlanError(
            f"workload {workload.name!r} has {len(workload.tasks)} tasks that arrive within"
            f" {span_s} s, so it has no rate; give its duration in seconds"
        )
    groups: dict[tuple[str, str, str, str, int], list[WorkloadStep]] = defaultdict(list)
    for task in workload.tasks:
        for step in task.steps:
            if step.kind != "human":
                groups[task.agent, step.name, step.kind, step.model, _size(step)].append(step)
    if not groups:
        raise PlanError(f"workload {workload.name!r} has no LLM or tool steps; nothing to plan")
    factor = growth_factor / span_s
    return WorkloadDemand(
        workload=workload.name,
        tasks_per_s=len(workload.tasks) * factor,
        growth_factor=growth_factor,
        quantile=quantile,
        classes=tuple(
            _step_class(key[0], steps, factor, quantile) for key, steps in sorted(groups.items())
        ),
    )


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
