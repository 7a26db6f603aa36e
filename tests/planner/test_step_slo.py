"""Limits per step class: which machines they allow, and how full these may be."""

import msgspec
import pytest

from steelyard.config.catalog_table import Catalog, load_catalog
from steelyard.config.plan_settings import DeclaredAgent, DeclaredStep
from steelyard.domain.pool import LlmCurve
from steelyard.domain.slo import Slo, StepSlo
from steelyard.errors import InfeasiblePlanError, PlanError
from steelyard.perf.predict import prefill_share_s, shared_itl_s
from steelyard.planner.capacity import (
    CapacityRules,
    llm_fitness,
    mix_share_s,
    planned_curve,
    planned_fit,
    slowed_curve,
)
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


def full_gap_s(curve: LlmCurve) -> float:
    """Gap on a full machine: the others bring the prefill of 200 tokens per 50 of an answer."""
    share_s = prefill_share_s(curve.prefill_s_per_token, 200.0, 50.0)
    return shared_itl_s(curve.itl_base_s, curve.itl_slope_s, float(curve.concurrency_cap), share_s)


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
        gap_s = full_gap_s(pool.llm_curves["smollm2-135m"])
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
        assert 1.5 * full_gap_s(pool.llm_curves["smollm2-135m"]) <= 0.02 * (1 + 1e-9)
    assert made.usd_per_hour >= plan(catalog, Slo(itl_s=0.02)).usd_per_hour


@pytest.mark.parametrize("slo", [Slo(itl_s=0.02), Slo(ttft_s=0.3, itl_s=1.0)])
def test_weak_figures_are_taken_to_be_slower_in_every_limit(catalog: Catalog, slo: Slo) -> None:
    rules = CapacityRules()
    trusted = CapacityRules(weak_derate_frac=0.0)
    steps = DEMAND.classes
    for offering in catalog.offerings:
        fit = planned_fit(catalog, offering, DEMAND, "smollm2-135m", rules)
        if fit is None or fit.quality != "weak":
            continue
        slower = msgspec.structs.replace(
            fit, curve=slowed_curve(fit.curve, 1.0 + rules.weak_derate_frac)
        )
        planned = [
            (planned_curve(one, steps, slo, by), mix_share_s(one, steps, slo, by))
            for one, by in ((fit, rules), (slower, trusted))
        ]
        one = llm_fitness(steps[0], fit, planned[0], slo, rules)
        other = llm_fitness(steps[0], slower, planned[1], slo, trusted)
        assert (one.machine_s is None) == (other.machine_s is None)
        if one.machine_s is not None:
            assert one.machine_s == pytest.approx(other.machine_s)
            assert one.latency_s == pytest.approx(other.latency_s)


def test_limits_for_steps_that_are_not_there_are_refused(catalog: Catalog) -> None:
    with pytest.raises(PlanError, match=r"agent 'c', but the demand has no such step; it has: a"):
        plan(catalog, Slo(steps=(StepSlo(agent="c", ttft_s=1.0),)))
