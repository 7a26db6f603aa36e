import math

import pytest

from steelyard.config.catalog_table import load_catalog
from steelyard.domain.slo import Slo
from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask
from steelyard.planner.plan import FleetPlan, PlanOptions, plan_fleet
from steelyard.report.from_plan import plan_inputs
from steelyard.report.inputs import PlanInputs

_CATALOG = load_catalog()


def _plan() -> FleetPlan:
    steps = (
        WorkloadStep(step_id=0, parents=(), kind="tool", name="parse", tool="m:f", cpu_s=0.2),
        WorkloadStep(
            step_id=1,
            parents=(0,),
            kind="llm",
            name="summarise",
            model="smollm2-135m",
            prompt_tokens=400,
            output_tokens=30,
        ),
    )
    tasks = tuple(
        WorkloadTask(task_id=f"t{n}", agent="librarian", arrival_s=float(n), steps=steps)
        for n in range(5)
    )
    workload = Workload(name="five", tasks=tasks, source="test")
    return plan_fleet(workload, _CATALOG, Slo(), PlanOptions(growth_factor=10.0))


@pytest.fixture(scope="module")
def plan() -> FleetPlan:
    """A real plan of the real catalogue."""
    return _plan()


@pytest.fixture(scope="module")
def told(plan: FleetPlan) -> PlanInputs:
    """The same in the words of a report."""
    return plan_inputs(plan, _CATALOG)


def test_the_rents_of_the_machines_add_up_to_the_cost_of_the_plan(told: PlanInputs) -> None:
    rents = math.fsum(pool.usd_per_hour for pool in told.plan.pools)
    assert told.plan.usd_per_hour == pytest.approx(rents)


def test_every_baseline_is_told_with_a_cost_or_a_reason(told: PlanInputs) -> None:
    assert {"all-gpu", "all-arm", "single-provider"} <= {one.name for one in told.baselines}
    for one in told.baselines:
        assert (one.usd_per_1000_tasks is None) == bool(one.infeasible)


def test_every_step_of_the_workload_is_told_where_it_goes(told: PlanInputs) -> None:
    assert {choice.step for choice in told.choices} == {"parse", "summarise"}
    for step in ("parse", "summarise"):
        shares = math.fsum(c.share_frac for c in told.choices if c.step == step)
        assert shares == pytest.approx(1.0, abs=1e-6)
