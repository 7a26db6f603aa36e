"""Tasks of the traces, with deadlines and with arrivals of other traces."""

import dataclasses
import math
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask
from steelyard.sim.arrivals import replayed_s, with_arrivals
from steelyard.store.workload_file import read_workload

LONGEST_GAP_S = 60.0
# Between the seeds of stretches that come at once: far from the seeds that users try.
_SEED_STEP = 1000
# Tasks with longer contexts than any of the models can read are left out.
LONGEST_CONTEXT_TOKENS = 131_000
FILES = {
    "coding-agent": "claude_code_weka_dev.parquet",
    "tau-bench": "taubench_gpt4o_airline.parquet",
    "local-model": "agentcg_glm47flash_local.parquet",
}


@dataclasses.dataclass(frozen=True)
class Scale:
    """How many times as many tasks, and how they come.

    Attributes:
        times: Factor of the tasks and of their rate.
        superposed: Whether independent stretches come at once; else one is played faster.
    """

    times: int = 1
    superposed: bool = True


ONCE = Scale()


def workload_of(
    folder: Path,
    trace: str,
    arrivals: str,
    half: str,
    spec: tuple[str, float, int, int],
    scale: Scale = ONCE,
) -> Workload:
    """Tasks of one half of a trace that arrive as in another trace.

    Args:
        folder: Folder of the trace files.
        trace: A key of `FILES`.
        arrivals: `azure` or `servegen`.
        half: `tuned` or `held-out`.
        spec: Model, stretch of the deadlines, number of tasks drawn, and seed.
        scale: How many times as many tasks, and how they come.

    Returns:
        The workload, at one task per second, or `scale.times` of them.
    """
    model, stretch, tasks, seed = spec
    whole = half_of(read_workload(folder / FILES[trace]), half, seed)
    fits = tuple(
        with_deadline(task, model, stretch)
        for task in whole.tasks
        if max(step.prompt_tokens + step.output_tokens for step in task.steps)
        < LONGEST_CONTEXT_TOKENS
    )
    drawn = msgspec.structs.replace(whole, tasks=fits)
    recorded = recorded_arrivals_s(folder, arrivals, seed)
    return with_arrivals(drawn, scaled_s(recorded, tasks, scale, seed), seed)


def each_once(workload: Workload) -> Workload:
    """The tasks that differ in more than their arrival: what bounds need that know no arrivals.

    Tasks that are drawn many times are all drawn about as often, so the mix is the same to within
    one part in the number of draws.
    """
    once = {id(task.steps): task for task in reversed(workload.tasks)}
    return msgspec.structs.replace(workload, tasks=tuple(reversed(once.values())))


def scaled_s(recorded_s: list[float], tasks: int, scale: Scale, seed: int) -> list[float]:
    """When do so many times the tasks arrive, at so many times the rate?

    Superposed, `scale.times` stretches of the recording, each begun at a place of its own and each
    with the mean rate of one task per second, come at once: as many users more, who know nothing of
    one another, so that their bursts average out. Compressed, one stretch of `scale.times` as many
    consecutive arrivals is played faster: everybody comes together more often, so that the crowd
    is as large against the mean as it was, but passes sooner.

    Args:
        recorded_s: Recorded arrivals.
        tasks: How many without scale.
        scale: How many times as many, and how.
        seed: Of the draws; the first stretch is the one that is drawn without scale.

    Returns:
        Seconds, ascending, the first at 0.
    """
    if not scale.superposed:
        return replayed_s(recorded_s, tasks * scale.times, float(scale.times), seed)
    seeds = [seed + _SEED_STEP * number for number in range(scale.times)]
    return sorted(at for one in seeds for at in replayed_s(recorded_s, tasks, 1.0, one))


def as_model(step: WorkloadStep, model: str) -> WorkloadStep:
    """The step as a call of the model, or with a gap of bounded length."""
    if step.kind == "llm":
        return msgspec.structs.replace(step, model=model)
    gap_s = min(step.think_or_tool_s, LONGEST_GAP_S)
    return msgspec.structs.replace(step, think_or_tool_s=gap_s)


def with_deadline(task: WorkloadTask, model: str, stretch: float) -> WorkloadTask:
    """The task with steps of the model and the deadline of the module's docstring."""
    steps = tuple(as_model(step, model) for step in task.steps)
    work_s = math.fsum(
        step.think_or_tool_s
        + step.output_tokens * 0.02
        + (step.prompt_tokens - step.shared_prefix_tokens) * 0.0001
        for step in steps
    )
    return msgspec.structs.replace(
        task, agent="agent", steps=steps, deadline_after_s=5.0 + stretch * work_s
    )


def half_of(workload: Workload, half: str, seed: int) -> Workload:
    """One of two halves, drawn by the seed: `tuned` or `held-out`."""
    order = np.random.default_rng(seed).permutation(len(workload.tasks))
    middle = len(order) // 2
    chosen = sorted(order[:middle] if half == "tuned" else order[middle:])
    tasks = tuple(workload.tasks[index] for index in chosen)
    return msgspec.structs.replace(workload, tasks=tasks)


def recorded_arrivals_s(folder: Path, source: str, seed: int) -> list[float]:
    """Arrivals of the Azure trace, or drawn from ServeGen's clients for four hours."""
    if source == "azure":
        frame = pl.read_parquet(folder / "azure2023_conv.parquet", columns=["arrival_s"])
        return sorted(frame["arrival_s"].to_list())
    rates = pl.read_parquet(folder / "servegen_mlarge_rates.parquet")
    rates = rates.filter(pl.col("window_start_s") < 4 * 3600)
    random = np.random.default_rng(seed)
    times: list[float] = []
    for row in rates.iter_rows(named=True):
        times += _window_s(row, random)
    return sorted(times)


def _window_s(row: dict[str, object], random: np.random.Generator) -> list[float]:
    """Arrivals of one client in its window of ten minutes: a gamma or Weibull renewal process."""
    mean = 600.0 * float(str(row["rate_rps"]))
    count = int(3 * mean) + 50
    shape, scale = row["p1"], row["p2"]
    if shape is None or scale is None or mean <= 0.0:
        gaps = random.exponential(600.0 / max(mean, 1e-9), count)
    elif row["pattern"] == "Gamma":
        gaps = random.gamma(float(str(shape)), float(str(scale)), count)
    else:
        gaps = float(str(scale)) * random.weibull(float(str(shape)), count)
    since = np.cumsum(gaps)
    start = float(str(row["window_start_s"]))
    return [start + float(one) for one in since[since < 600.0]]
