"""What is a workload like? The figures by which agents are told apart."""

import math

import msgspec
import numpy as np

from steelyard.domain.units import BYTES_PER_MIB
from steelyard.domain.workload import Workload, WorkloadStep
from steelyard.sim.arrivals import FittedArrivals, fit_arrivals


class Quantiles(msgspec.Struct, frozen=True, kw_only=True):
    """Median, mean, 95th percentile and largest of something.

    Attributes:
        p50: Median.
        mean: Mean.
        p95: 95th percentile.
        most: The largest.
    """

    p50: float
    mean: float
    p95: float
    most: float


class WorkloadFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What a workload is like.

    Attributes:
        workload: Its name.
        source: Where it comes from.
        tasks: How many tasks.
        steps: Steps by kind.
        agents: Tasks by agent.
        models: Calls by model.
        tools: Tool steps by tool, the commonest twelve.
        steps_per_task: All kinds together.
        prompt_tokens: Per call.
        output_tokens: Per call.
        prefix_reuse_frac: Share of all prompt tokens that repeat an earlier prompt of the task.
        cached_frac: Share of all prompt tokens read from a cache; None where none were recorded.
        tool_s: Wall seconds per tool step, CPU time included.
        cpu_s: CPU seconds per tool step.
        memory_mib: Peak memory per tool step.
        human_s: Seconds per gap of a person.
        deadline_frac: Share of the tasks with a deadline.
        arrivals: The arrivals as a process; None where they tell none.
    """

    workload: str
    source: str
    tasks: int
    steps: dict[str, int]
    agents: dict[str, int]
    models: dict[str, int]
    tools: dict[str, int]
    steps_per_task: Quantiles
    prompt_tokens: Quantiles | None
    output_tokens: Quantiles | None
    prefix_reuse_frac: float | None
    cached_frac: float | None
    tool_s: Quantiles | None
    cpu_s: Quantiles | None
    memory_mib: Quantiles | None
    human_s: Quantiles | None
    deadline_frac: float
    arrivals: FittedArrivals | None


def describe(workload: Workload) -> WorkloadFigures:
    """What is this workload like?

    Args:
        workload: The workload, of at least one task.

    Returns:
        Its figures.
    """
    steps = [step for task in workload.tasks for step in task.steps]
    calls = [step for step in steps if step.kind == "llm"]
    tools = [step for step in steps if step.kind == "tool"]
    people = [step for step in steps if step.kind == "human"]
    prompt = math.fsum(step.prompt_tokens for step in calls)
    cached = [step.cached_tokens for step in calls if step.cached_tokens is not None]
    return WorkloadFigures(
        workload=workload.name,
        source=workload.source,
        tasks=len(workload.tasks),
        steps=_counts([step.kind for step in steps]),
        agents=_counts([task.agent for task in workload.tasks]),
        models=_counts([step.model for step in calls]),
        tools=dict(list(_counts([step.tool for step in tools]).items())[:12]),
        steps_per_task=_quantiles([float(len(task.steps)) for task in workload.tasks]),
        prompt_tokens=_some([float(step.prompt_tokens) for step in calls]),
        output_tokens=_some([float(step.output_tokens) for step in calls]),
        prefix_reuse_frac=_repeated(calls) / prompt if prompt else None,
        cached_frac=math.fsum(cached) / prompt if cached and prompt else None,
        tool_s=_some([step.cpu_s + step.think_or_tool_s for step in tools]),
        cpu_s=_some([step.cpu_s for step in tools]),
        memory_mib=_some([step.memory_bytes / BYTES_PER_MIB for step in tools]),
        human_s=_some([step.think_or_tool_s for step in people]),
        deadline_frac=sum(t.deadline_after_s is not None for t in workload.tasks)
        / len(workload.tasks),
        arrivals=_arrivals([task.arrival_s for task in workload.tasks]),
    )


def _repeated(calls: list[WorkloadStep]) -> float:
    return math.fsum(step.shared_prefix_tokens for step in calls)


def _counts(names: list[str]) -> dict[str, int]:
    """How often each name occurs, the commonest first, ties by name."""
    found: dict[str, int] = {}
    for name in names:
        found[name] = found.get(name, 0) + 1
    return dict(sorted(found.items(), key=lambda one: (-one[1], one[0])))


def _some(values: list[float]) -> Quantiles | None:
    return _quantiles(values) if values else None


def _quantiles(values: list[float]) -> Quantiles:
    return Quantiles(
        p50=float(np.percentile(values, 50)),
        mean=math.fsum(values) / len(values),
        p95=float(np.percentile(values, 95)),
        most=max(values),
    )


def _arrivals(times_s: list[float]) -> FittedArrivals | None:
    if len(times_s) < 3 or max(times_s) <= min(times_s):
        return None
    return fit_arrivals(times_s)
