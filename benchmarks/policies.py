"""How do the policies do on a trace of real agents? One fleet, one arrival process, every policy.

Run as `python benchmarks/policies.py --trace FILE --model llama-3.1-8b --rate 2 --tasks 400`.

The trace's calls are taken to be of MODEL, so that the catalogue has curves for them. Tasks are
drawn with replacement and arrive as a Poisson process; the fleet is what the planner buys for them,
so the rent is the same for every policy and the SLO attainment is what tells them apart. A task's
deadline is 5 s plus 1.5 times its tools, people (at most 60 s each) and model calls at 60 ms per
output token and 0.2 ms per prompt token that is not repeated.
"""

import argparse
import datetime as dt
import platform
import time
from pathlib import Path

import msgspec

from steelyard.config.catalog_table import load_catalog
from steelyard.domain.slo import Slo
from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask
from steelyard.ledger.ledger import Ledger
from steelyard.placement.baselines import policy_named, policy_names
from steelyard.planner.plan import PlanOptions, plan_fleet
from steelyard.planner.pools import pools_of
from steelyard.sim import Conditions, simulate
from steelyard.sim.synth import scale_workload
from steelyard.store.workload_file import read_workload

LONGEST_GAP_S = 60.0


def as_model(step: WorkloadStep, model: str) -> WorkloadStep:
    """The step as a call of the model, or with a gap of bounded length."""
    if step.kind == "llm":
        return msgspec.structs.replace(step, model=model)
    gap_s = min(step.think_or_tool_s, LONGEST_GAP_S)
    return msgspec.structs.replace(step, think_or_tool_s=gap_s)


def with_deadline(task: WorkloadTask, model: str) -> WorkloadTask:
    """The task with steps of the model and the deadline of the module's docstring."""
    steps = tuple(as_model(step, model) for step in task.steps)
    work_s = sum(
        step.think_or_tool_s
        + step.output_tokens * 0.06
        + (step.prompt_tokens - step.shared_prefix_tokens) * 0.0002
        for step in steps
    )
    return msgspec.structs.replace(task, steps=steps, deadline_after_s=5.0 + 1.5 * work_s)


def main() -> None:
    """Print one line per policy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trace", type=Path, required=True)
    parser.add_argument("--model", default="llama-3.1-8b")
    parser.add_argument("--rate", type=float, default=2.0, help="tasks per second")
    parser.add_argument("--tasks", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    trace = read_workload(given.trace)
    tasks = tuple(with_deadline(task, given.model) for task in trace.tasks)
    trace = Workload(name=trace.name, tasks=tasks, source=str(given.trace))
    sample = scale_workload(trace, 1.0, given.tasks, given.seed, rate_per_s=given.rate)
    catalog = load_catalog()
    options = PlanOptions(with_baselines=False, duration_s=sample.tasks[-1].arrival_s)
    plan = plan_fleet(sample, catalog, Slo(ttft_s=5.0), options)
    print(
        f"{platform.machine()}, Python {platform.python_version()}, "
        f"{dt.datetime.now(dt.UTC).date()}, seed {given.seed}, {trace.name}, "
        f"{given.tasks} tasks at {given.rate}/s, fleet {plan.usd_per_hour:.2f} USD/h: "
        + ", ".join(f"{m.machines} x {m.offering}" for m in plan.machines)
    )
    bids = {machines.offering: machines.bid_usd_per_hour for machines in plan.machines}
    for name in policy_names():
        started_s = time.perf_counter()
        run = simulate(
            sample,
            pools_of(plan, catalog),
            policy_named(name),
            given.seed,
            conditions=Conditions(bids_usd_per_hour=bids),
        )
        ledger = Ledger.of(run.events)
        calls = [one.usage for one in ledger.attempts if one.step.kind == "llm"]
        cached = sum(one.cached_tokens for one in calls) / sum(one.input_tokens for one in calls)
        print(
            f"{name:24s} SLO attainment {ledger.slo_attainment_frac:6.1%}  "
            f"used {1000.0 * ledger.cost_usd / len(ledger.tasks):8.3f} USD/1,000 tasks  "
            f"cached {cached:5.1%}  span {ledger.span_s:7.0f} s  "
            f"({time.perf_counter() - started_s:.1f} s to simulate)"
        )


if __name__ == "__main__":
    main()
