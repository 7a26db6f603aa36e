"""Does goodput hold when tasks of several steps come faster than a pool can serve them?

Run as `python benchmarks/overload_tasks.py [--steps 1,3,6,20]`. One simulated replica of eight
places; tasks are chains of steps of about 0.2 s each, with five times that as their time. They
come at random, at 1, 2, 5 and 10 times what the replica can do. Printed is the goodput, the tasks
that ended in time, as a share of what the replica can do; above 1 where it finds the short ones.
Service times vary by 10 % (log-normal); seeds 5 (arrivals) and 3 (noise).
"""

import argparse
import datetime as dt
import platform

from steelyard.domain.pool import LlmCurve, PoolSpec
from steelyard.domain.task import OnMiss
from steelyard.domain.workload import WorkloadStep
from steelyard.ledger.ledger import Ledger
from steelyard.placement.baselines import policy_named
from steelyard.sim import (
    ArrivalProcess,
    Conditions,
    StepClass,
    TaskClass,
    simulate,
    synthesize,
)

PLACES = 8
STEP_S = 0.2
FACTORS = (1.0, 2.0, 5.0, 10.0)
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


def chain(steps: int) -> TaskClass:
    """Tasks of so many steps one after another."""
    return TaskClass(
        agent="chain",
        deadline_after_s=5.0 * STEP_S * steps,
        steps=tuple(
            StepClass(
                step=WorkloadStep(
                    step_id=number,
                    parents=(number - 1,) if number else (),
                    kind="llm",
                    name=f"s{number}",
                    model="m",
                    prompt_tokens=100,
                    output_tokens=50,
                    max_output_tokens=100,
                ),
                variation=0.3,
            )
            for number in range(steps)
        ),
    )


def goodput_frac(steps: int, factor: float, on_miss: OnMiss) -> float:
    """Tasks that ended in time, as a share of what the replica can do."""
    capacity_per_s = PLACES / (STEP_S * steps)
    rate_per_s = capacity_per_s * factor
    tasks = int(min(1000.0, 40.0 * rate_per_s))
    workload = synthesize((chain(steps),), ArrivalProcess(rate_per_s=rate_per_s), tasks, seed=5)
    conditions = Conditions(on_miss=on_miss, noise_sigma=0.1)
    run = simulate(workload, (_POOL,), policy_named("cheapest_feasible"), 3, conditions)
    good = sum(
        task.status == "succeeded"
        and task.deadline_s is not None
        and task.finished_s <= task.deadline_s
        for task in Ledger.of(run.events).tasks
    )
    return good / max(task.arrival_s for task in workload.tasks) / capacity_per_s


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", default="1,3,6,20")
    given = parser.parse_args()
    today = dt.datetime.now(tz=dt.UTC)
    print(f"{today:%Y-%m-%d} {platform.machine()}, Python {platform.python_version()}")
    modes: tuple[OnMiss, ...] = ("run_late", "refuse")
    for steps in (int(one) for one in given.steps.split(",")):
        for on_miss in modes:
            told = [f"{one:g}x {goodput_frac(steps, one, on_miss):.2f}" for one in FACTORS]
            print(f"{steps} steps, {on_miss}: {', '.join(told)}", flush=True)


if __name__ == "__main__":
    main()
