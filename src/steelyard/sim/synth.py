"""Workloads that were not recorded: generated from step classes, or scaled up from a recording."""

import itertools
import math

import msgspec
import numpy as np

from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask
from steelyard.errors import WorkloadError


class StepClass(msgspec.Struct, frozen=True, kw_only=True):
    """What one step of an agent uses, on average.

    Attributes:
        step: Means of every quantity, and all that does not vary.
        variation: Standard deviation over mean of tokens, CPU and waiting time; they are drawn
            from a gamma distribution, which is exponential at 1 and constant at 0.
    """

    step: WorkloadStep
    variation: float = 1.0


class TaskClass(msgspec.Struct, frozen=True, kw_only=True):
    """An agent, and how often its tasks come.

    Attributes:
        agent: Its name.
        steps: Its steps, in order of `step_id`.
        weight: Its part of all tasks, relative to the other classes.
        deadline_after_s: Seconds from arrival to the deadline; None without one.
        budget_usd: Budget of a task; None without one.
    """

    agent: str
    steps: tuple[StepClass, ...]
    weight: float = 1.0
    deadline_after_s: float | None = None
    budget_usd: float | None = None


class ArrivalProcess(msgspec.Struct, frozen=True, kw_only=True):
    """How tasks arrive: a renewal process with gamma gaps.

    Attributes:
        rate_per_s: Tasks per second on average.
        burstiness: Standard deviation of the gaps over their mean; 1 is a Poisson process, above
            it tasks come in bursts, 0 is a fixed beat.
    """

    rate_per_s: float
    burstiness: float = 1.0

    def draw_s(self, tasks: int, random: np.random.Generator) -> list[float]:
        """When do the tasks arrive?

        Args:
            tasks: How many.
            random: Source of chance.

        Returns:
            Seconds after the start, ascending.

        Raises:
            WorkloadError: The rate is not above zero.
        """
        if self.rate_per_s <= 0.0 or not math.isfinite(self.rate_per_s):
            raise WorkloadError(f"rate_per_s {self.rate_per_s:g} must be finite and above zero")
        gaps_s = [_gamma(1.0 / self.rate_per_s, self.burstiness, random) for _ in range(tasks)]
        return list(itertools.accumulate(gaps_s))


def synthesize(
    classes: tuple[TaskClass, ...], arrivals: ArrivalProcess, tasks: int, seed: int
) -> Workload:
    """What would a workload of these agents look like?

    Args:
        classes: The agents.
        arrivals: How tasks arrive.
        tasks: How many.
        seed: Of all draws.

    Returns:
        The workload; the same for the same arguments.

    Raises:
        WorkloadError: No classes, no tasks, or a weight or rate that makes no sense.
    """
    weights = np.array([one.weight for one in classes], dtype=np.float64)
    if tasks < 1 or not classes or weights.min() < 0.0 or weights.sum() <= 0.0:
        raise WorkloadError(
            f"cannot synthesize {tasks} tasks of {len(classes)} classes: at least one task, one "
            "class and one weight above zero are needed"
        )
    random = np.random.default_rng(seed)
    times_s = arrivals.draw_s(tasks, random)
    kinds: list[int] = random.choice(len(classes), size=tasks, p=weights / weights.sum()).tolist()
    return Workload(
        name="synthetic",
        tasks=tuple(
            _task(f"{classes[kind].agent}-{number}", classes[kind], arrival_s, random)
            for number, (arrival_s, kind) in enumerate(zip(times_s, kinds, strict=True))
        ),
        source=f"synthesize(rate_per_s={arrivals.rate_per_s:g}, "
        f"burstiness={arrivals.burstiness:g}, tasks={tasks}, seed={seed})",
    )


def recorded_rate_per_s(workload: Workload) -> float:
    """At which rate did the recorded tasks arrive?

    The maximum likelihood rate of a Poisson process seen from its first arrival to its last,
    `(tasks - 1) / (last - first)`.

    Args:
        workload: The recording.

    Returns:
        Tasks per second.

    Raises:
        WorkloadError: All tasks arrived at once, so there is no rate.
    """
    times_s = [task.arrival_s for task in workload.tasks]
    span_s = max(times_s) - min(times_s) if times_s else 0.0
    if span_s <= 0.0:
        raise WorkloadError(
            f"workload {workload.name}: {len(times_s)} tasks arrived at one moment, so no rate can "
            "be told; record tasks that arrive over time, or give a rate"
        )
    return (len(times_s) - 1) / span_s


def scale_workload(
    workload: Workload, rate_factor: float, tasks: int, seed: int, rate_per_s: float | None = None
) -> Workload:
    """What would a sample of this workload look like at many times its rate?

    Whole tasks are drawn with replacement (a bootstrap) and arrive as a Poisson process.

    Args:
        workload: The recording.
        rate_factor: New rate over recorded rate.
        tasks: How many to draw.
        seed: Of all draws.
        rate_per_s: Recorded tasks per second; by `recorded_rate_per_s` when left out.

    Returns:
        The workload; the same for the same arguments.

    Raises:
        WorkloadError: The recording is empty or has no rate.
    """
    if not workload.tasks or tasks < 1:
        raise WorkloadError(
            f"workload {workload.name}: cannot draw {tasks} tasks from {len(workload.tasks)}"
        )
    recorded_per_s = recorded_rate_per_s(workload) if rate_per_s is None else rate_per_s
    random = np.random.default_rng(seed)
    arrivals = ArrivalProcess(rate_per_s=recorded_per_s * rate_factor)
    times_s = arrivals.draw_s(tasks, random)
    drawn: list[int] = random.integers(len(workload.tasks), size=tasks).tolist()
    return Workload(
        name=f"{workload.name} x {rate_factor:g}",
        tasks=tuple(
            msgspec.structs.replace(
                workload.tasks[index],
                task_id=f"{workload.tasks[index].task_id}#{number}",
                arrival_s=arrival_s,
            )
            for number, (arrival_s, index) in enumerate(zip(times_s, drawn, strict=True))
        ),
        source=f"{workload.source}, scaled (rate_factor={rate_factor:g}, tasks={tasks}, "
        f"seed={seed})",
    )


def _gamma(mean: float, variation: float, random: np.random.Generator) -> float:
    """One draw from the gamma distribution with this mean and coefficient of variation."""
    if mean <= 0.0 or variation <= 0.0:
        return mean
    shape = 1.0 / (variation * variation)
    return float(random.gamma(shape, mean / shape))


def _task(
    task_id: str, kind: TaskClass, arrival_s: float, random: np.random.Generator
) -> WorkloadTask:
    return WorkloadTask(
        task_id=task_id,
        agent=kind.agent,
        arrival_s=arrival_s,
        steps=tuple(_step(one, random) for one in kind.steps),
        deadline_after_s=kind.deadline_after_s,
        budget_usd=kind.budget_usd,
    )


def _step(kind: StepClass, random: np.random.Generator) -> WorkloadStep:
    mean, variation = kind.step, kind.variation
    prompt_tokens = round(_gamma(mean.prompt_tokens, variation, random))
    # The shared part of the prompt keeps its proportion.
    shared_frac = mean.shared_prefix_tokens / mean.prompt_tokens if mean.prompt_tokens else 0.0
    return msgspec.structs.replace(
        mean,
        prompt_tokens=prompt_tokens,
        shared_prefix_tokens=int(shared_frac * prompt_tokens),
        output_tokens=round(_gamma(mean.output_tokens, variation, random)),
        cpu_s=_gamma(mean.cpu_s, variation, random),
        think_or_tool_s=_gamma(mean.think_or_tool_s, variation, random),
    )
