"""How fast is the simulator's reference path? Prints machine, date, seed, and medians.

python benchmarks/simulator.py [--tasks 400] [--repeats 5] [--seed 1]
"""

import argparse
import datetime as dt
import os
import platform
import statistics
import sys
import time

from steelyard.domain.pool import LlmCurve, PoolSpec, ToolCurve
from steelyard.domain.workload import Workload, WorkloadStep
from steelyard.placement.baselines import policy_named, policy_names
from steelyard.sim import ArrivalProcess, StepClass, TaskClass, simulate, synthesize

STEPS_PER_TASK = 10


def fleet(size: int) -> tuple[PoolSpec, ...]:
    """Three pools of models and two of tools; `size` scales their replicas."""

    def llm(name: str, hardware: str, replicas: int, rent: float, speed: float) -> PoolSpec:
        curve = LlmCurve(
            ttft_floor_s=0.02,
            prefill_s_per_token=1e-4 / speed,
            itl_base_s=0.01 / speed,
            itl_slope_s=0.001 / speed,
            concurrency_cap=16,
            context_tokens=131_072,
            predicted=True,
            source="benchmark",
        )
        return PoolSpec(
            name=name,
            provider="aws" if hardware != "x86" else "gcp",
            region="r",
            arch="arm64" if hardware == "arm" else "x86_64",
            hardware="gpu" if hardware == "gpu" else "arm" if hardware == "arm" else "x86",
            offering=name,
            usd_per_hour=rent,
            replicas=replicas * size,
            llm_curves={"m": curve},
        )

    def tools(name: str, replicas: int, rent: float, speed: float) -> PoolSpec:
        curve = ToolCurve(
            relative_speed=speed,
            cores=8.0,
            memory_bytes=64 << 30,
            start_s=0.01,
            slots=16,
            predicted=True,
            source="benchmark",
        )
        return PoolSpec(
            name=name,
            provider="aws",
            region="r",
            arch="arm64",
            hardware="arm",
            offering=name,
            usd_per_hour=rent,
            replicas=replicas * size,
            tool_curve=curve,
        )

    return (
        llm("arm", "arm", 20, 0.3, 1.0),
        llm("x86", "x86", 10, 0.35, 1.5),
        llm("gpu", "gpu", 2, 2.0, 8.0),
        tools("tools-arm", 8, 0.3, 1.0),
        tools("tools-x86", 4, 0.4, 1.3),
    )


def agents(tasks: int, rate_per_s: float, seed: int) -> Workload:
    """Agents that call a model and a tool in turn; each prompt repeats the last one."""
    steps: list[StepClass] = []
    for number in range(STEPS_PER_TASK):
        prompt = 500 + 300 * (number // 2)
        llm = WorkloadStep(
            step_id=number,
            parents=(number - 1,) if number else (),
            kind="llm",
            name=f"think-{number}",
            model="m",
            prompt_tokens=prompt,
            output_tokens=60,
            shared_prefix_tokens=prompt - 300 if number else 0,
            max_output_tokens=512,
        )
        tool = WorkloadStep(
            step_id=number,
            parents=(number - 1,),
            kind="tool",
            name=f"act-{number}",
            tool="shell",
            cpu_s=0.3,
            think_or_tool_s=0.2,
            memory_bytes=300 << 20,
        )
        steps.append(StepClass(step=tool if number % 2 else llm, variation=0.5))
    kind = TaskClass(agent="coder", steps=tuple(steps), deadline_after_s=40.0)
    return synthesize((kind,), ArrivalProcess(rate_per_s=rate_per_s), tasks, seed)


def measure(policy: str, size: int, options: argparse.Namespace) -> None:
    """Print the median speed of one policy on one fleet."""
    work = agents(options.tasks, 5.0 * size, options.seed)
    pools = fleet(size)
    steps_per_s: list[float] = []
    events = 0
    for _ in range(options.repeats):
        began_s = time.perf_counter()
        run = simulate(work, pools, policy_named(policy), options.seed)
        took_s = time.perf_counter() - began_s
        steps_per_s.append(run.steps / took_s)
        events = len(run.events)
    median = statistics.median(steps_per_s)
    per_step = events / (options.tasks * STEPS_PER_TASK)
    replicas = sum(pool.replicas for pool in pools)
    print(
        f"{policy:24} {replicas:9,} {events:10,} {median:10,.0f} {median * per_step:10,.0f}"
        f"   {min(steps_per_s):,.0f} to {max(steps_per_s):,.0f}"
    )


def main() -> None:
    """Measure our policy on fleets of three sizes, and all baselines on the smallest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=400, help="tasks of ten steps each")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    today = dt.datetime.now(tz=dt.UTC).date()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, "
        f"Python {sys.version.split()[0]}; {today}; seed {options.seed}, "
        f"{options.tasks} tasks of {STEPS_PER_TASK} steps, median of {options.repeats}"
    )
    print(
        f"{'policy':24} {'replicas':>9} {'events':>10} {'steps/s':>10} {'events/s':>10}"
        "   steps/s, least to most"
    )
    for size in (1, 10, 100):
        measure(policy_names()[0], size, options)
    for policy in policy_names()[1:]:
        measure(policy, 1, options)


if __name__ == "__main__":
    main()
