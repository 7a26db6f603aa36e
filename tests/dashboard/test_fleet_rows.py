"""The fleet of a gateway whose pools come and go."""

import math
from collections.abc import Mapping

import pytest
from tests.dashboard.store_of_tasks import MODEL, SPECS

from steelyard.dashboard.fleet_rows import fleet_now
from steelyard.domain.decision import Decision
from steelyard.domain.events import PoolAdded, PoolRemoved, StepPlaced
from steelyard.domain.task import LlmCall, Step
from steelyard.fleet.state import FleetState


def totals(_: str) -> Mapping[str, float]:
    return dict.fromkeys(("ok", "failed", "input_tokens", "cached_tokens"), 0.0) | {"cost_usd": 1.0}


def state_of_all() -> FleetState:
    state = FleetState()
    for spec in SPECS:
        state.apply(PoolAdded(t_s=0.0, spec=spec))
    return state


def test_a_pool_that_has_left_is_neither_shown_nor_rented_but_its_cost_stays() -> None:
    state = state_of_all()
    gone = SPECS[0]
    state.apply(PoolRemoved(t_s=1.0, pool=gone.name))
    now = fleet_now(state, 2.0, totals)
    assert {row.spec.name for row in now.pools} == {one.name for one in SPECS[1:]}
    assert now.rent_usd_per_hour == pytest.approx(
        math.fsum(one.usd_per_hour * one.replicas for one in SPECS[1:])
    )
    assert now.used_usd == len(SPECS)


def test_a_pool_that_leaves_is_shown_while_it_has_steps() -> None:
    state = state_of_all()
    pool = next(one.name for one in SPECS if MODEL in one.llm_curves)
    call = LlmCall(model=MODEL, input_tokens=8, max_output_tokens=1)
    step = Step(task_id="t", step_id=0, agent="a", name="s", call=call)
    decision = Decision(
        pool=pool, replica=0, policy="p", reason="r", predicted_wait_s=0.0, predicted_ttft_s=0.0,
        predicted_finish_s=1.0, predicted_cost_usd=0.0, predicted_output_tokens=1,
        predicted_cached_tokens=0, slack_s=None, bid_usd_per_hour=0.0, verdicts=(),
    )  # fmt: skip
    state.apply(StepPlaced(t_s=0.5, step=step, decision=decision))
    state.apply(PoolRemoved(t_s=1.0, pool=pool))
    row = next(one for one in fleet_now(state, 2.0, totals).pools if one.spec.name == pool)
    assert (row.health, row.waiting) == ("leaving", 1)
