import msgspec
import pytest

from steelyard.config.catalog_table import Catalog, load_catalog
from steelyard.domain.slo import Slo
from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask
from steelyard.errors import PlanError
from steelyard.perf.predict import itl_s
from steelyard.planner import margin
from steelyard.planner.margin import MarginRules, check_margin, plan_with_margin
from steelyard.planner.plan import FleetPlan, PlanOptions, plan_demand
from steelyard.planner.plan_checks import MarginCheck
from steelyard.planner.workload_demand import WorkloadDemand, demand_of

MODEL = "smollm2-135m"
OPTIONS = PlanOptions(with_baselines=False, growth_factor=20.0)
RULES = MarginRules(tasks=200)


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    """A few offerings, so that plans are quick."""
    full = load_catalog()
    names = ("aws/m9g.xlarge", "gcp/g2-standard-4", "azure/Standard_F4als_v7", "aws/c8a.medium")
    return msgspec.structs.replace(full, offerings=tuple(full.offering(name) for name in names))


def workload(deadline_s: float | None) -> Workload:
    steps = (
        WorkloadStep(step_id=0, parents=(), kind="tool", name="parse", cpu_s=0.3),
        WorkloadStep(
            step_id=1,
            parents=(0,),
            kind="llm",
            name="answer",
            model=MODEL,
            prompt_tokens=300,
            output_tokens=60,
        ),
    )
    return Workload(
        name="w",
        tasks=tuple(
            WorkloadTask(
                task_id=f"t{i}",
                agent="a",
                arrival_s=float(i),
                steps=steps,
                deadline_after_s=deadline_s,
            )
            for i in range(40)
        ),
        source="test",
    )


def test_a_plan_that_is_too_tight_for_slower_machines_is_made_anew_with_margin(
    catalog: Catalog,
) -> None:
    # One stream of the cheap machine keeps the limit, but not when it is 20 % slower.
    curve = catalog.llm_curve(catalog.offering("aws/m9g.xlarge"), MODEL, "vllm-0.22.1")
    assert curve is not None
    slo = Slo(itl_s=1.1 * itl_s(curve.itl_base_s, curve.itl_slope_s, 1.0))
    arm = msgspec.structs.replace(OPTIONS, growth_factor=1.0)
    tight, demand = workload(None), demand_of(workload(None))
    told: list[MarginCheck] = []
    plan = plan_with_margin(tight, demand, (catalog, slo, arm), RULES, told.append)
    assert not told[0].met
    assert told[-1].met
    assert plan.margin == tuple(told)
    assert plan.usd_per_hour == told[-1].usd_per_hour
    assert plan.options.capacity.service_factor == 1.2
    assert check_margin(plan, catalog, tight, RULES) == told[-1]


def test_a_plan_that_keeps_its_limits_is_left_as_it_is(catalog: Catalog) -> None:
    easy, rules = workload(30.0), msgspec.structs.replace(RULES, service_factor=1.0)
    demand = demand_of(easy, 20.0)
    plan = plan_with_margin(easy, demand, (catalog, Slo(), OPTIONS), rules, lambda _: None)
    assert [check.met for check in plan.margin] == [True]
    assert plan.usd_per_hour == plan_demand(demand, catalog, Slo(), OPTIONS).usd_per_hour


def test_limits_that_no_headroom_keeps_are_refused_with_what_was_reached(catalog: Catalog) -> None:
    # The mean keeps the deadline, the slower simulation cannot.
    demand = msgspec.structs.replace(demand_of(workload(None), 20.0), deadlines_s={})
    with pytest.raises(PlanError, match=r"0\.0% of the tasks .* with 4 times the headroom"):
        plan_with_margin(workload(0.05), demand, (catalog, Slo(), OPTIONS), RULES, lambda _: None)


def test_a_fleet_that_a_baseline_replaces_is_run_before_it_is_returned(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_cheaper_baseline(
        demand: WorkloadDemand, catalog: Catalog, slo: Slo, chosen: PlanOptions
    ) -> FleetPlan:
        if chosen.with_baselines:
            return plan_demand(demand, catalog, slo, chosen)
        roomy = msgspec.structs.replace(chosen.capacity, extra_headroom=8.0)
        dear = msgspec.structs.replace(chosen, capacity=roomy)
        return plan_demand(demand, catalog, slo, dear)

    monkeypatch.setattr(margin, "plan_demand", with_cheaper_baseline)
    easy, rules = workload(30.0), msgspec.structs.replace(RULES, service_factor=1.0)
    options = msgspec.structs.replace(OPTIONS, with_baselines=True)
    told: list[MarginCheck] = []
    plan = plan_with_margin(
        easy, demand_of(easy, 20.0), (catalog, Slo(), options), rules, told.append
    )
    assert [check.met for check in told] == [True, True]
    assert told[1].usd_per_hour == plan.usd_per_hour < told[0].usd_per_hour
    assert plan.margin == tuple(told)
