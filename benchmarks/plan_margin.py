"""Does a plan keep its SLOs when every service takes 1.2 times the figures? And what if not?

Run as `python benchmarks/plan_margin.py` (a generated workload) or with
`--trace FILE --model llama-3.1-8b --rate 2`: calls are then taken to be of MODEL, and a deadline is
5 s plus 1.5 times tools, people (at most 60 s each) and calls at 60 ms per output token and 0.2 ms
per prompt token that is not repeated.

The plan is simulated with the live policy and Poisson arrivals at the planned rate: at the figures,
and with service times of `--factor` times them. Where it fails, the plan is made with the margin
that does (steelyard.planner.margin), and both are shown. `tasks` is the share that met deadline
and budget, `steps` the share of LLM steps inside TTFT and time per output token, of the worst kind
of step; the SLO asks for 95 % of each. Seeds 1..N draw tasks and arrivals anew; the plan is made
with seed 1 and checked with all of them.
"""

import argparse
import datetime as dt
import math
import platform
from pathlib import Path

import msgspec

from steelyard.config.catalog_table import Catalog, load_catalog
from steelyard.domain.slo import Slo
from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask
from steelyard.planner.margin import MarginRules, check_margin, plan_with_margin
from steelyard.planner.plan import FleetPlan, PlanOptions, plan_demand
from steelyard.planner.workload_demand import demand_of
from steelyard.sim.synth import ArrivalProcess, StepClass, TaskClass, scale_workload, synthesize
from steelyard.store.workload_file import read_workload


def generated(rate_per_s: float, deadline_s: float) -> Workload:
    """Agents that search and answer on a small model; sizes vary by a factor of about two."""
    steps = [
        WorkloadStep(step_id=0, parents=(), kind="tool", name="search", cpu_s=0.4),
        WorkloadStep(
            step_id=1,
            parents=(0,),
            kind="llm",
            name="read",
            model="qwen2.5-0.5b",
            prompt_tokens=800,
            shared_prefix_tokens=400,
            output_tokens=60,
        ),
        WorkloadStep(
            step_id=2,
            parents=(1,),
            kind="llm",
            name="answer",
            model="qwen2.5-0.5b",
            prompt_tokens=1000,
            shared_prefix_tokens=900,
            output_tokens=120,
        ),
    ]
    agent = TaskClass(
        agent="searcher",
        steps=tuple(StepClass(step=step, variation=0.5) for step in steps),
        deadline_after_s=deadline_s,
    )
    return synthesize((agent,), ArrivalProcess(rate_per_s=rate_per_s), tasks=2000, seed=7)


def as_model(task: WorkloadTask, model: str) -> WorkloadTask:
    """The task with calls of this model, people's gaps of at most 60 s, and a deadline."""
    steps = tuple(
        msgspec.structs.replace(
            step,
            model=model if step.kind == "llm" else "",
            think_or_tool_s=min(step.think_or_tool_s, 60.0),
        )
        for step in task.steps
    )
    work_s = math.fsum(
        step.think_or_tool_s
        + step.output_tokens * 0.06
        + (step.prompt_tokens - step.shared_prefix_tokens) * 0.0002
        for step in steps
    )
    return msgspec.structs.replace(task, steps=steps, deadline_after_s=5.0 + 1.5 * work_s)


def recorded(path: Path, model: str, rate_per_s: float) -> Workload:
    """A trace at another rate, its calls taken to be of one model."""
    trace = read_workload(path)
    tasks = tuple(as_model(task, model) for task in trace.tasks)
    trace = Workload(name=trace.name, tasks=tasks, source=str(path))
    return scale_workload(trace, 1.0, 2000, 7, rate_per_s=rate_per_s)


def show(
    label: str,
    plan: FleetPlan,
    catalog: Catalog,
    workload: Workload,
    rules: MarginRules,
    seeds: int,
) -> None:
    """One line per service factor and seed."""
    fleet = ", ".join(f"{n} x {o}" for o, n in sorted(plan.fleet().items()))
    print(f"{label}: {plan.usd_per_hour:.4g} USD/h: {fleet}")
    for factor in (1.0, rules.service_factor):
        for seed in range(1, seeds + 1):
            at = msgspec.structs.replace(rules, service_factor=factor, seed=seed)
            check = check_margin(plan, catalog, workload, at)
            print(
                f"  service x {factor:g}, seed {seed}: tasks {check.tasks_met_frac:7.2%}  steps"
                f" {check.steps_met_frac:7.2%} ({check.worst_step})"
                f"  {'kept' if check.met else 'MISSED'}"
            )


def main() -> None:
    """Print the plan, its check, and the plan with margin where it is needed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--model", default="llama-3.1-8b")
    parser.add_argument("--rate", type=float, default=5.0, help="tasks per second")
    parser.add_argument(
        "--deadlines", type=float, nargs="+", default=[12.0, 3.2], help="of generated tasks, s"
    )
    parser.add_argument("--ttft", type=float, default=1.0)
    parser.add_argument("--itl", type=float, default=0.1)
    parser.add_argument("--tasks", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--factor", type=float, default=1.2)
    given = parser.parse_args()
    print(
        f"{platform.machine()}, Python {platform.python_version()},"
        f" {dt.datetime.now(dt.UTC).date()}"
    )
    if given.trace is not None:
        run(recorded(given.trace, given.model, given.rate), given)
        return
    for deadline_s in given.deadlines:
        print(f"deadline {deadline_s:g} s")
        run(generated(given.rate, deadline_s), given)


def run(workload: Workload, given: argparse.Namespace) -> None:
    """Plan, check, and plan with margin if the check fails."""
    catalog, slo = load_catalog(), Slo(ttft_s=given.ttft, itl_s=given.itl)
    options, demand = PlanOptions(with_baselines=False), demand_of(workload)
    rules = MarginRules(service_factor=given.factor, tasks=given.tasks)
    print(
        f"{workload.name}, {given.rate:g} tasks/s, peak factor {demand.peak_factor:.2f}, SLO: TTFT"
        f" {slo.ttft_s:g} s, gap {slo.itl_s:g} s, 95 %; {given.tasks} tasks"
    )
    plan = plan_demand(demand, catalog, slo, options)
    show("plan as it is", plan, catalog, workload, rules, given.seeds)
    with_margin = plan_with_margin(
        workload, demand, (catalog, slo, options), rules, lambda _check: None
    )
    if len(with_margin.margin) == 1:
        print(f"the plan keeps its SLOs at {given.factor:g} times the service times")
        return
    last = with_margin.margin[-1]
    show(
        f"plan with margin (service x {last.planned_service_factor:g}, headroom x"
        f" {last.extra_headroom:g})",
        with_margin,
        catalog,
        workload,
        rules,
        given.seeds,
    )


if __name__ == "__main__":
    main()
