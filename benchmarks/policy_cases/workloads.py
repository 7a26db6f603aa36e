"""Tasks of the traces, with deadlines and with arrivals of other traces."""

import math
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask
from steelyard.sim.arrivals import replayed_s, with_arrivals
from steelyard.store.workload_file import read_workload

LONGEST_GAP_S = 60.0
# Tasks with longer contexts than any of the models can read are left out.
LONGEST_CONTEXT_TOKENS = 131_000
FILES = {
    "coding-agent": "claude_code_weka_dev.parquet",
    "tau-bench": "taubench_gpt4o_airline.parquet",
    "local-model": "agentcg_glm47flash_local.parquet",
}


def workload_of(
    folder: Path, trace: str, arrivals: str, half: str, spec: tuple[str, float, int, int]
) -> Workload:
    """Tasks of one half of a trace that arrive as in another trace.

    Args:
        folder: Folder of the trace files.
        trace: A key of `FILES`.
        arrivals: `azure` or `servegen`.
        half: `tuned` or `held-out`.
        spec: Model, stretch of the deadlines, number of tasks drawn, and seed.

    Returns:
        The workload, at one task per second.
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
    return with_arrivals(drawn, replayed_s(recorded, tasks, 1.0, seed), seed)


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
