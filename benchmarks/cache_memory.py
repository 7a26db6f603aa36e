"""What does a task cost when the memory for prompts is too small for all tasks in flight?

Run as `python benchmarks/cache_memory.py --traces FOLDER`, with the folder of the trace files.

A fleet of one kind of GPU serves the tasks of a trace in the reference simulator, which models an
engine's key-value memory: what runs is held, of the rest the least recently used prompt goes first.
First the rate of tasks is raised with memory without end until less than 99 % of the deadlines are
met; the prompts of all tasks in flight at the highest rate are the working set. Then each replica
gets memory for 1/PRESSURE of its share, and every policy its own highest rate. Cost per task is the
fleet's rent over that rate. `unaware` is `cheapest_feasible` that knows nothing of memory, `told`
the same where engines report what they found of a prompt, `belief` where the size of the memory is
known, too, but bounds the belief alone, and `room` the whole policy, which also places by it.
"""

import argparse
import concurrent.futures
import dataclasses
import datetime as dt
import math
import os
import platform
import time
from pathlib import Path

import msgspec
import numpy as np
from policy_cases.market import market
from policy_cases.workloads import workload_of

from steelyard.config.catalog_table import load_catalog
from steelyard.domain.decision import Decision, Refusal
from steelyard.domain.events import AttemptFinished, Event, StepPlaced, TaskFinished, TaskSubmitted
from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import LlmCall, Step
from steelyard.domain.units import SECONDS_PER_HOUR
from steelyard.domain.workload import Workload
from steelyard.fleet.view import FleetView, LlmArrays
from steelyard.placement.baselines import policy_named
from steelyard.placement.policy import Policy
from steelyard.planner.bounds import fleet_bound
from steelyard.sim import Conditions, Serving, simulate

ATTAINMENT_FRAC = 0.99
WARM_UP_FRAC = 0.2
MODEL = "llama-3.1-8b"
# Name: policy, does the policy know the size of the memory, do engines tell what they found.
VARIANTS = {
    "unaware": ("cheapest_feasible", False, False),
    "told": ("cheapest_feasible", False, True),
    "belief": ("cheapest_feasible", True, True),
    "room": ("cheapest_feasible", True, True),
    "program_fcfs": ("program_fcfs", True, True),
    "prefix_affinity": ("prefix_affinity", True, True),
}
# With a limit, rates between these shares of the highest one without it are tried.
_LOWEST_SHARE = 0.2


@dataclasses.dataclass(frozen=True)
class Case:
    """A workload on a fleet.

    Attributes:
        workload: At one task per second.
        pools: The fleet.
        most_per_s: Tasks per second that it could serve at best.
        kv_tokens: Memory of each replica of models; None for memory without end.
    """

    workload: Workload
    pools: tuple[PoolSpec, ...]
    most_per_s: float
    kv_tokens: int | None = None


@dataclasses.dataclass(frozen=True)
class Trial:
    """What a policy did at a rate."""

    rate_per_s: float = 0.0
    attained_frac: float = 0.0
    cached_frac: float = 0.0
    believed_frac: float = 0.0
    working_tokens: float = 0.0


class RoomIgnored:
    """A policy that is not told how large memories are; what the fleet believes is as before.

    Args:
        policy: The policy.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.name = policy.name

    def __call__(self, step: Step, view: FleetView) -> Decision | Refusal:
        """Where does the step go?"""
        arrays = view.arrays
        if isinstance(arrays, LlmArrays):
            rows = tuple(msgspec.structs.replace(row, kv_tokens=math.inf) for row in arrays.rows)
            endless = np.full(len(rows), math.inf)
            arrays = dataclasses.replace(arrays, kv_tokens=endless, rows=rows)
        return self._policy(step, msgspec.structs.replace(view, arrays=arrays))


def main() -> None:
    """Print a table per trace, arrivals and half."""
    given = _arguments()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"{dt.datetime.now(dt.UTC).date()}, seed {given.seed}, {given.replicas} replicas"
    )
    for trace in given.only.split(","):
        for arrivals in given.arrivals.split(","):
            for half in given.half.split(","):
                compare(given, trace, arrivals, half)
    print(f"{time.process_time():.0f} s of CPU time, without those of other processes")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--traces", type=Path, required=True, help="folder of the trace files")
    parser.add_argument("--only", default="tau-bench,local-model")
    parser.add_argument("--arrivals", default="azure,servegen")
    parser.add_argument("--half", default="tuned,held-out")
    parser.add_argument("--policies", default=",".join(VARIANTS))
    parser.add_argument("--pressure", default="1,1.5,2", help="working set over memory")
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--stretch", type=float, default=2.0, help="of the deadlines")
    parser.add_argument("--halvings", type=int, default=6)
    parser.add_argument("--gpu", default="", help="part of the name of the GPU; the best if empty")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


def compare(given: argparse.Namespace, trace: str, arrivals: str, half: str) -> None:
    """Print the table of one workload."""
    case = case_of(given, trace, arrivals, half)
    free = best_rate("unaware", case, given)
    model = next(spec for spec in case.pools if spec.llm_curves)
    cap = model.llm_curves[MODEL].concurrency_cap
    print(
        f"\n{trace}, {arrivals} arrivals, {half} half, {given.tasks} tasks, deadlines 5 s + "
        f"{given.stretch:g} x work; {given.replicas} x {model.name}, {cap} streams each; without "
        f"a limit {_usd(case, free):.3f} USD/1,000 tasks at {free.rate_per_s:.3f}/s, "
        f"{100 * free.cached_frac:.1f} % cached, working set {free.working_tokens:.0f} tokens"
    )
    print("  pressure  USD/1,000  of first  cached  believed  policy")
    jobs = [
        (name, pressed(case, free, float(pressure)), float(pressure), given)
        for pressure in given.pressure.split(",")
        for name in given.policies.split(",")
    ]
    first = math.nan
    with concurrent.futures.ProcessPoolExecutor(given.jobs) as workers:
        for (name, _, pressure, _), one in zip(jobs, workers.map(best_rate_of, jobs), strict=True):
            usd = _usd(case, one)
            first = usd if name == given.policies.split(",")[0] else first
            print(
                f"  {pressure:8g}  {usd:9.3f}  {usd / first:8.3f}  {100 * one.cached_frac:5.1f}%  "
                f"{100 * one.believed_frac:7.1f}%  {name}",
                flush=True,
            )


def case_of(given: argparse.Namespace, trace: str, arrivals: str, half: str) -> Case:
    """The workload, and so many of the GPU that computes it at the lowest price."""
    spec = (MODEL, given.stretch, given.tasks, given.seed)
    workload = workload_of(given.traces, trace, arrivals, half, spec)
    offers = market(load_catalog(), workload, MODEL, (given.gpu,) if given.gpu else ())
    gpus = [one for one in offers if one.hardware == "gpu"]
    tools = [one for one in offers if one.tool_curve is not None]
    tool = msgspec.structs.replace(min(tools, key=lambda one: one.name), replicas=50)
    best = min(gpus, key=lambda one: fleet_bound(workload, (one, tool), 1.0).usd_per_hour)
    pools = (msgspec.structs.replace(best, replicas=given.replicas), tool)
    rents = math.fsum(one.usd_per_hour * one.replicas for one in pools)
    return Case(workload, pools, rents / fleet_bound(workload, pools, 1.0).usd_per_hour)


def pressed(case: Case, free: Trial, pressure: float) -> Case:
    """The case with memory for one part in `pressure` of the working set."""
    replicas = next(spec.replicas for spec in case.pools if spec.llm_curves)
    # One prompt must fit, whatever the pressure.
    least = max(
        step.prompt_tokens + step.output_tokens
        for task in case.workload.tasks
        for step in task.steps
    )
    kv_tokens = max(least, int(free.working_tokens / pressure / replicas))
    return dataclasses.replace(case, kv_tokens=kv_tokens, most_per_s=free.rate_per_s)


def best_rate_of(job: tuple[str, Case, float, argparse.Namespace]) -> Trial:
    """`best_rate` in another process."""
    name, case, _, given = job
    return best_rate(name, case, given)


def best_rate(name: str, case: Case, given: argparse.Namespace) -> Trial:
    """At which rate does a policy still keep the deadlines?"""
    low, high = _LOWEST_SHARE * case.most_per_s, case.most_per_s
    best = trial(name, case, low, given.seed)
    if best.attained_frac < ATTAINMENT_FRAC:
        return Trial()
    for _ in range(given.halvings):
        middle = math.sqrt(low * high)
        one = trial(name, case, middle, given.seed)
        if one.attained_frac >= ATTAINMENT_FRAC:
            low, best = middle, one
        else:
            high = middle
    return best


def trial(name: str, case: Case, rate_per_s: float, seed: int) -> Trial:
    """What does a policy do at a rate?"""
    policy, knows, tells = VARIANTS[name]
    tasks = case.workload.tasks
    first_s, last_s = tasks[0].arrival_s, tasks[-1].arrival_s
    faster = (last_s - first_s) / (len(tasks) - 1) * rate_per_s
    moved = tuple(
        msgspec.structs.replace(task, arrival_s=(task.arrival_s - first_s) / faster)
        for task in tasks
    )
    workload = msgspec.structs.replace(case.workload, tasks=moved)
    models = [spec.name for spec in case.pools if spec.llm_curves]
    serving = Serving(kv_tokens=case.kv_tokens, tells_cached=tells)
    conditions = Conditions(serving=dict.fromkeys(models, serving))
    pools = tuple(
        msgspec.structs.replace(spec, kv_tokens=case.kv_tokens if knows else None)
        if spec.llm_curves
        else spec
        for spec in case.pools
    )
    chosen = policy_named(policy)
    by = RoomIgnored(chosen) if name == "belief" else chosen
    run = simulate(workload, pools, by, seed, conditions)
    return _counted(run.events, rate_per_s, moved[int(WARM_UP_FRAC * len(moved))].arrival_s)


def _counted(events: tuple[Event, ...], rate_per_s: float, since_s: float) -> Trial:
    """Tasks that arrived and steps that ended after the warm-up."""
    due: dict[str, tuple[float, float]] = {}
    met: list[bool] = []
    context: dict[str, int] = {}
    working, working_s, last_s = 0, 0.0, since_s
    tokens = cached = believed = 0
    until_s = max(event.t_s for event in events if isinstance(event, TaskSubmitted))
    for event in events:
        if since_s < event.t_s <= until_s:
            working_s += working * (event.t_s - last_s)
            last_s = event.t_s
        match event:
            case TaskSubmitted():
                due[event.task_id] = (event.t_s, event.deadline_s or math.inf)
            case StepPlaced() if isinstance(event.step.call, LlmCall):
                prompt = event.step.call.input_tokens
                working += prompt - context.get(event.step.task_id, 0)
                context[event.step.task_id] = prompt
                if event.t_s >= since_s:
                    believed += event.decision.predicted_cached_tokens
            case AttemptFinished() if event.t_s >= since_s:
                tokens += event.usage.input_tokens
                cached += event.usage.cached_tokens
            case TaskFinished():
                working -= context.pop(event.task_id, 0)
                arrived_s, deadline_s = due[event.task_id]
                if arrived_s >= since_s:
                    met.append(event.status == "succeeded" and event.t_s <= deadline_s)
            case _:
                pass
    return Trial(
        rate_per_s=rate_per_s,
        attained_frac=sum(met) / max(1, len(met)),
        cached_frac=cached / max(1, tokens),
        believed_frac=believed / max(1, tokens),
        working_tokens=working_s / max(1e-9, last_s - since_s),
    )


def _usd(case: Case, one: Trial) -> float:
    """Rent per 1,000 tasks."""
    if not one.rate_per_s:
        return math.inf
    rent = math.fsum(spec.usd_per_hour * spec.replicas for spec in case.pools if spec.llm_curves)
    return 1000.0 * rent / SECONDS_PER_HOUR / one.rate_per_s


if __name__ == "__main__":
    main()
