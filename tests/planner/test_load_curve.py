import pytest

from steelyard.config.catalog_table import load_catalog
from steelyard.config.plan_settings import DeclaredAgent, DeclaredStep
from steelyard.domain.slo import Slo
from steelyard.errors import InfeasiblePlanError
from steelyard.planner.declared import declared_demand
from steelyard.planner.load_curve import cost_over_load
from steelyard.planner.plan import PlanOptions

STEP = DeclaredStep(
    name="answer", kind="llm", model="smollm2-135m", prompt_tokens=200.0, output_tokens=50.0
)
DEMAND = declared_demand((DeclaredAgent(name="a", tasks_per_hour=36000.0, steps=(STEP,)),))


def ignore(done: int, total: int) -> None:
    assert 1 <= done <= total


def test_a_task_never_costs_more_at_ten_times_the_load() -> None:
    planned_from = (load_catalog(), Slo(), PlanOptions())
    few, many = cost_over_load(DEMAND, planned_from, ignore, factors=(0.1, 10.0))
    assert many.tasks_per_s == pytest.approx(100.0 * few.tasks_per_s)
    for name, cost in few.usd_per_1000_tasks.items():
        other = many.usd_per_1000_tasks[name]
        assert (cost is None) == (other is None)
        if cost is not None and other is not None:
            assert other <= cost * (1 + 1e-3)
            mix = few.usd_per_1000_tasks["mix"]
            assert mix is not None
            assert mix <= cost * (1 + 1e-3)
    assert sum(few.mix_rent_frac.values()) == pytest.approx(1.0)


def test_a_demand_that_no_load_makes_feasible_is_refused() -> None:
    planned_from = (load_catalog(), Slo(itl_s=1e-9), PlanOptions())
    with pytest.raises(InfeasiblePlanError, match="loosen the SLO"):
        cost_over_load(DEMAND, planned_from, ignore, factors=(1.0,))
