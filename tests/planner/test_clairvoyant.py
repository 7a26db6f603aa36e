import itertools

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from steelyard.domain.pool import LlmCurve, PoolSpec
from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask
from steelyard.errors import InfeasiblePlanError
from steelyard.ledger.ledger import Ledger
from steelyard.perf.cost import llm_step_usd
from steelyard.placement.policy import CheapestFeasible
from steelyard.planner.bounds import fastest_s
from steelyard.planner.clairvoyant import clairvoyant_usd
from steelyard.sim import simulate


def pool(name: str, rent: float, speed: float) -> PoolSpec:
    curve = LlmCurve(
        ttft_floor_s=0.0, prefill_s_per_token=0.001 / speed, itl_base_s=0.02 / speed,
        itl_slope_s=0.001 / speed, concurrency_cap=8, context_tokens=8192, predicted=True,
        source="test",
    )  # fmt: skip
    return PoolSpec(
        name=name, provider="p", region="r", arch="arm64", hardware="arm", offering=name,
        usd_per_hour=rent, replicas=4, llm_curves={"m": curve},
    )  # fmt: skip


POOLS = (pool("slow", 1.0, 1.0), pool("fast", 5.0, 3.0))


def task_of(sizes: list[int], deadline_s: float) -> WorkloadTask:
    steps = tuple(
        WorkloadStep(
            step_id=n, parents=(n - 1,) if n else (), kind="llm", name="s", model="m",
            prompt_tokens=size, output_tokens=size,
        )
        for n, size in enumerate(sizes)
    )  # fmt: skip
    return WorkloadTask(
        task_id="t", agent="a", arrival_s=0.0, steps=steps, deadline_after_s=deadline_s
    )


@given(
    sizes=st.lists(st.integers(10, 200), min_size=1, max_size=5),
    part=st.sampled_from([1.07, 1.33, 1.71, 2.29, 3.1]),
)
@example(sizes=[15, 138, 154, 169], part=1.71)
@settings(max_examples=25, deadline=None)
def test_it_finds_the_cheapest_of_all_choices_that_keep_the_deadline(
    sizes: list[int], part: float
) -> None:
    task = task_of(sizes, 0.0)
    deadline_s = part * sum(fastest_s(step, POOLS) for step in task.steps)
    best = min(
        sum(
            llm_step_usd(spec, "m", (float(s.prompt_tokens), 0.0, float(s.output_tokens)),
                         spec.usd_per_hour)
            for s, spec in zip(task.steps, choice, strict=True)
        )
        for choice in itertools.product(POOLS, repeat=len(sizes))
        if sum(fastest_s(s, (p,)) for s, p in zip(task.steps, choice, strict=True)) <= deadline_s
    )  # fmt: skip
    work = Workload(name="w", tasks=(task_of(sizes, deadline_s),), source="test")
    assert clairvoyant_usd(work, POOLS) == pytest.approx(best, rel=1e-6)


def test_our_policy_never_uses_less_than_the_clairvoyant() -> None:
    tasks = tuple(
        msgspec.structs.replace(task_of([100, 50, 80], 20.0), task_id=f"t{n}", arrival_s=float(n))
        for n in range(10)
    )
    work = Workload(name="w", tasks=tasks, source="test")
    ledger = Ledger.of(simulate(work, POOLS, CheapestFeasible(), seed=1).events)
    assert ledger.slo_attainment_frac == 1.0
    assert ledger.cost_usd >= clairvoyant_usd(work, POOLS) * (1.0 - 1e-9)


def test_a_deadline_that_nothing_keeps_is_told() -> None:
    work = Workload(name="w", tasks=(task_of([100], 0.01),), source="test")
    with pytest.raises(InfeasiblePlanError, match=r"task t cannot end in 0\.01 s"):
        clairvoyant_usd(work, POOLS)


def test_a_step_that_no_pool_runs_is_told_by_name() -> None:
    task = task_of([100], 9.0)
    other = msgspec.structs.replace(task.steps[0], model="unknown")
    lost = msgspec.structs.replace(task, steps=(other,), deadline_after_s=None)
    with pytest.raises(InfeasiblePlanError, match="no pool can run the llm step 's' of task t"):
        clairvoyant_usd(Workload(name="w", tasks=(lost,), source="test"), POOLS)


def test_a_task_of_people_alone_uses_nothing() -> None:
    step = WorkloadStep(step_id=0, parents=(), kind="human", name="read", think_or_tool_s=9.0)
    task = msgspec.structs.replace(task_of([100], 10.0), steps=(step,))
    assert clairvoyant_usd(Workload(name="w", tasks=(task,), source="test"), POOLS) == 0.0
