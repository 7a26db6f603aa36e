"""Does goodput hold when tasks of several steps come faster than a pool can serve them?

Run as `python benchmarks/overload_tasks.py [--steps 1,3,10,30]`; quick with the extra `fast`. One
simulated replica of eight places; tasks are chains of steps of about 0.2 s each, with five times
that as their time, or `--stretch` times. They come at random: 60 at half of what the replica can
do, from which it learns, then at 1, 2, 5 and 10 times that for 12 deadlines. `--gap` seconds pass
between steps, in which tasks do something else. Printed is the goodput, the tasks that ended in
time, per second of the last ten of the twelve deadlines, as a share of what the replica can do;
above 1 where it finds the short ones. Service times vary by 10 % (log-normal); seeds 5 (arrivals)
and 3 (noise).

ADR 38 has what it showed, and what made it hold.
"""

import argparse
import datetime as dt
import platform

import msgspec

from steelyard.domain.pool import LlmCurve, PoolSpec
from steelyard.domain.task import OnMiss
from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask
from steelyard.sim import (
    ArrivalProcess,
    Conditions,
    StepClass,
    TaskClass,
    synthesize,
)
from steelyard.sim.compiled.simulate import Span, simulate_compiled
from steelyard.sim.compiled.translate import has_numba

PLACES = 8
STEP_S = 0.2
FACTORS = (1.0, 2.0, 5.0, 10.0)
WARM_TASKS = 60
DEADLINES, RAMP_DEADLINES = 12.0, 2.0
_CURVE = LlmCurve(
    ttft_floor_s=0.05,
    prefill_s_per_token=0.0,
    itl_base_s=0.003,
    itl_slope_s=0.0,
    concurrency_cap=PLACES,
    context_tokens=8192,
    predicted=True,
    source="made up for this benchmark",
)
_POOL = PoolSpec(
    name="lab",
    provider="local",
    region="here",
    arch="x86_64",
    hardware="gpu",
    offering="local",
    usd_per_hour=1.0,
    replicas=1,
    llm_curves={"m": _CURVE},
)


def chain(steps: int, stretch: float, gap_s: float) -> TaskClass:
    """Tasks of so many steps one after another, with gaps between them."""
    made: list[StepClass] = []
    for number in range(steps):
        if number and gap_s > 0.0:
            made.append(_step(len(made), f"g{number}", gap_s))
        made.append(_step(len(made), f"s{number}", 0.0))
    alone_s = STEP_S * steps + gap_s * (steps - 1)
    return TaskClass(agent="chain", deadline_after_s=stretch * alone_s, steps=tuple(made))


def _step(number: int, name: str, gap_s: float) -> StepClass:
    parents = (number - 1,) if number else ()
    step = WorkloadStep(
        step_id=number, parents=parents, kind="human", name=name, think_or_tool_s=gap_s
    )
    if not gap_s:
        step = WorkloadStep(
            step_id=number,
            parents=parents,
            kind="llm",
            name=name,
            model="m",
            prompt_tokens=100,
            output_tokens=50,
            max_output_tokens=100,
        )
    return StepClass(step=step, variation=0.3)


def goodput_frac(kind: TaskClass, factor: float, on_miss: OnMiss) -> float:
    """Tasks that ended in time, as a share of what the replica can do."""
    deadline_s = kind.deadline_after_s or 0.0
    calls = sum(one.step.kind == "llm" for one in kind.steps)
    capacity_per_s = PLACES / (STEP_S * calls)
    warm = _tasks(kind, capacity_per_s / 2.0, WARM_TASKS, 0.0)
    begin_s = warm[-1].arrival_s
    rate_per_s = capacity_per_s * factor
    rush = _tasks(kind, rate_per_s, int(rate_per_s * deadline_s * DEADLINES), begin_s)
    workload = Workload(name="rush", tasks=(*warm, *rush), source="synthesize")
    first_s = begin_s + RAMP_DEADLINES * deadline_s
    last_s = begin_s + DEADLINES * deadline_s
    run = simulate_compiled(
        workload,
        (_POOL,),
        "cheapest_feasible",
        3,
        Conditions(on_miss=on_miss, noise_sigma=0.1),
        (Span(until_s=last_s, compiled=has_numba()), None),
    )
    good = sum(
        first_s <= end_s < last_s and end_s <= task.arrival_s + deadline_s
        for task, end_s in zip(workload.tasks, run.success_s.tolist(), strict=True)
    )
    return float(good / (last_s - first_s) / capacity_per_s)


def _tasks(kind: TaskClass, rate_per_s: float, tasks: int, from_s: float) -> list[WorkloadTask]:
    made = synthesize((kind,), ArrivalProcess(rate_per_s=rate_per_s), tasks, seed=5)
    return [
        msgspec.structs.replace(
            one, task_id=f"{from_s:.0f}-{one.task_id}", arrival_s=from_s + one.arrival_s
        )
        for one in made.tasks
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", default="1,3,10,30")
    parser.add_argument("--stretch", type=float, default=5.0)
    parser.add_argument("--gap", type=float, default=0.0)
    given = parser.parse_args()
    today = dt.datetime.now(tz=dt.UTC)
    print(f"{today:%Y-%m-%d} {platform.machine()}, Python {platform.python_version()}")
    modes: tuple[OnMiss, ...] = ("run_late", "refuse")
    for steps in (int(one) for one in given.steps.split(",")):
        kind = chain(steps, given.stretch, given.gap)
        for on_miss in modes:
            told = [f"{one:g}x {goodput_frac(kind, one, on_miss):.2f}" for one in FACTORS]
            print(f"{steps} steps, {on_miss}: {', '.join(told)}", flush=True)


if __name__ == "__main__":
    main()
