"""Limits per step class: which machines they allow, and how full these may be."""

import pytest

from steelyard.config.catalog_table import Catalog, load_catalog
from steelyard.config.plan_settings import DeclaredAgent, DeclaredStep
from steelyard.domain.slo import Slo, StepSlo
from steelyard.errors import InfeasiblePlanError, PlanError
from steelyard.perf.predict import itl_s
from steelyard.planner.capacity import CapacityRules
from steelyard.planner.declared import declared_demand
from steelyard.planner.plan import FleetPlan, PlanOptions, plan_demand
from steelyard.planner.pools import pools_of

STEP = DeclaredStep(
    name="answer", kind="llm", model="smollm2-135m", prompt_tokens=200.0, output_tokens=50.0
)
DEMAND = declared_demand(
    tuple(DeclaredAgent(name=name, tasks_per_hour=1e6, steps=(STEP,)) for name in ("a", "b"))
)


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


def plan(catalog: Catalog, slo: Slo) -> FleetPlan:
    return plan_demand(DEMAND, catalog, slo, PlanOptions(with_baselines=False))


def test_a_tight_limit_for_one_agent_costs_no_more_than_for_all_and_no_less_than_for_none(
    catalog: Catalog,
) -> None:
    none = plan(catalog, Slo()).usd_per_hour
    one = plan(catalog, Slo(steps=(StepSlo(agent="a", itl_s=0.006),))).usd_per_hour
    every = plan(catalog, Slo(itl_s=0.006)).usd_per_hour
    assert none * (1 - 1e-4) <= one <= every * (1 + 1e-4)
    assert none < every


def test_every_pool_keeps_the_tightest_limit_of_the_steps_that_go_there(catalog: Catalog) -> None:
    slo = Slo(steps=(StepSlo(agent="a", tpot_s=0.012),))
    made = plan(catalog, slo)
    limits = {"a": 0.012, "b": 0.1}
    for pool in pools_of(made, catalog):
        agents = {c.agent for c in made.choices if c.offering == pool.name}
        curve = pool.llm_curves["smollm2-135m"]
        gap_s = itl_s(curve.itl_base_s, curve.itl_slope_s, float(curve.concurrency_cap))
        assert gap_s <= min(limits[agent] for agent in agents) * (1 + 1e-9)


def test_a_limit_on_the_whole_step_leaves_only_the_quick(catalog: Catalog) -> None:
    tight = plan(catalog, Slo(steps=(StepSlo(agent="b", latency_s=0.4),)))
    for choice in tight.choices:
        if choice.agent == "b":
            assert choice.latency_s <= 0.4
    with pytest.raises(InfeasiblePlanError, match=r"'b / answer.*over its limit of 1e-06 s"):
        plan(catalog, Slo(steps=(StepSlo(agent="b", latency_s=1e-6),)))


def test_machines_taken_to_be_slower_keep_the_limits_at_that_speed(catalog: Catalog) -> None:
    options = PlanOptions(capacity=CapacityRules(service_factor=1.5), with_baselines=False)
    made = plan_demand(DEMAND, catalog, Slo(itl_s=0.02), options)
    for pool in pools_of(made, catalog):
        curve = pool.llm_curves["smollm2-135m"]
        gap_s = itl_s(curve.itl_base_s, curve.itl_slope_s, float(curve.concurrency_cap))
        assert 1.5 * gap_s <= 0.02 * (1 + 1e-9)
    assert made.usd_per_hour >= plan(catalog, Slo(itl_s=0.02)).usd_per_hour


def test_limits_for_steps_that_are_not_there_are_refused(catalog: Catalog) -> None:
    with pytest.raises(PlanError, match=r"agent 'c', but the demand has no such step; it has: a"):
        plan(catalog, Slo(steps=(StepSlo(agent="c", ttft_s=1.0),)))
