"""Spend caps of providers: kept by every policy, counted alike live, simulated and replayed."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.placement.test_policy import OURS, fleets, names, state_of, steps

from steelyard.domain.decision import Decision, Refusal
from steelyard.domain.events import AttemptFinished, Event, PoolAdded, StepPlaced, Usage
from steelyard.domain.pool import PoolSpec, SpendCap
from steelyard.domain.task import LlmCall, Step, ToolCall
from steelyard.domain.workload import Workload
from steelyard.fleet.state import FleetState
from steelyard.placement.baselines import policy_named, policy_names
from steelyard.placement.replay import replay
from steelyard.sim import simulate

caps = st.none() | st.builds(
    SpendCap,
    usd_per_hour=st.none() | st.floats(1e-6, 0.05),
    usd_per_day=st.none() | st.floats(1e-6, 0.1),
)
# Steps of a time, of which some end before the next one comes, at what share of their prediction.
work = st.lists(
    st.tuples(steps, st.floats(0.0, 4000.0), st.none() | st.floats(0.0, 1.5)), max_size=15
)


def with_caps(
    fleet: tuple[PoolSpec, ...], by_provider: dict[str, SpendCap | None]
) -> tuple[PoolSpec, ...]:
    return tuple(
        msgspec.structs.replace(spec, spend_cap=by_provider.get(spec.provider)) for spec in fleet
    )


def room_usd(state: FleetState, spec: PoolSpec, now_s: float) -> float:
    """What is left by the definition of a cap: per span, settled and reserved."""
    cap = spec.spend_cap or SpendCap()
    hour, day = state.spend.spent_usd(spec.provider, now_s)
    hour_usd = math.inf if cap.usd_per_hour is None else cap.usd_per_hour
    day_usd = math.inf if cap.usd_per_day is None else cap.usd_per_day
    return min(hour_usd - hour, day_usd - day)


@given(name=names, fleet=fleets, one=caps, two=caps, work=work)
def test_no_policy_lets_concurrent_steps_exceed_a_cap(
    name: str,
    fleet: tuple[PoolSpec, ...],
    one: SpendCap | None,
    two: SpendCap | None,
    work: list[tuple[Step, float, float | None]],
) -> None:
    fleet = with_caps(fleet, {"aws": one, "gcp": two})
    state, policy, now_s = state_of(fleet, []), policy_named(name), 0.0
    specs = {spec.name: spec for spec in fleet}
    for number, (drawn, later_s, frac) in enumerate(work):
        now_s += later_s
        step = msgspec.structs.replace(drawn, task_id=f"t-{number}")
        answer = policy(step, state.view(step, now_s))
        if isinstance(answer, Refusal):
            continue
        spec = specs[answer.pool]
        assert answer.predicted_cost_usd <= room_usd(state, spec, now_s)
        state.apply(StepPlaced(t_s=now_s, step=step, decision=answer))
        assert room_usd(state, spec, now_s) >= -1e-12
        if frac is not None:
            state.apply(ended(step, now_s, frac * answer.predicted_cost_usd))


def ended(step: Step, t_s: float, cost_usd: float) -> AttemptFinished:
    return AttemptFinished(
        t_s=t_s,
        task_id=step.task_id,
        step_id=step.step_id,
        attempt=step.attempt,
        outcome="ok",
        usage=Usage(),
        cost_usd=cost_usd,
    )


@given(fleets, caps, caps, st.lists(st.tuples(steps, st.booleans()), max_size=12), steps)
def test_arrays_few_pools_and_the_short_way_agree_on_caps(
    fleet: tuple[PoolSpec, ...],
    one: SpendCap | None,
    two: SpendCap | None,
    busy: list[tuple[Step, bool]],
    step: Step,
) -> None:
    state = state_of(with_caps(fleet, {"aws": one, "gcp": two}), busy)
    free = msgspec.structs.replace(step, deadline_s=None, budget_usd=None)
    for asked in (step, free):
        view = state.view(asked, 20.0)
        assert OURS(asked, view) == OURS.by_arrays(asked, view)
        few = state.few(asked, asked.call, 20.0)  # type: ignore[arg-type]
        assert OURS.by_few(asked, few) == OURS(asked, view)


def test_a_spent_cap_moves_steps_to_another_provider_until_the_next_hour(
    fleet: tuple[PoolSpec, ...],
) -> None:
    aws = SpendCap(usd_per_hour=0.0001)
    state = FleetState()
    for spec in with_caps(fleet, {"aws": aws}):
        state.apply(PoolAdded(t_s=0.0, spec=spec))
    step, placed = llm_step("t"), list[str]()
    for number in range(40):
        step = llm_step(f"t-{number}")
        answer = OURS(step, state.view(step, 10.0))
        assert isinstance(answer, Decision)
        placed.append(answer.pool)
        state.apply(StepPlaced(t_s=10.0, step=step, decision=answer))
        state.apply(ended(step, 11.0, answer.predicted_cost_usd))
    assert placed[0] in {"arm", "gpu"}
    assert placed[-1] == "x86"
    last = OURS(step, state.view(step, 20.0))
    assert {one.pool: one.verdict for one in last.verdicts}["gpu"] == "over_cap"
    assert state.spend.provider_left("aws", 20.0).renewed_s == pytest.approx(3580.0)
    renewed = OURS(step, state.view(step, 3600.0))
    assert isinstance(renewed, Decision)
    assert renewed.pool == placed[0]


def llm_step(task_id: str) -> Step:
    call = LlmCall(model="m", input_tokens=100, max_output_tokens=100)
    return Step(task_id=task_id, step_id=0, agent="a", name="s", call=call)


@pytest.mark.parametrize("name", policy_names())
def test_where_caps_alone_are_in_the_way_the_refusal_says_when_they_are_renewed(
    name: str, llm_pool: PoolSpec
) -> None:
    cap = SpendCap(usd_per_hour=1e-9, usd_per_day=1.0)
    state = state_of((msgspec.structs.replace(llm_pool, spend_cap=cap),), [])
    refused = policy_named(name)(llm_step("t"), state.view(llm_step("t"), 3000.0))
    assert isinstance(refused, Refusal)
    assert refused.cause == "spend_cap"
    assert refused.error_code == "spend_cap"
    assert refused.retry_after_s == pytest.approx(600.0)
    assert not refused.may_pass


def test_a_tool_that_was_never_seen_is_over_a_cap_of_which_nothing_is_left(
    tool_pool: PoolSpec,
) -> None:
    capped = msgspec.structs.replace(tool_pool, spend_cap=SpendCap(usd_per_day=0.5))
    state = state_of((capped,), [])
    step = Step(task_id="t", step_id=0, agent="a", name="s", call=ToolCall(tool="x"))
    answer = OURS(step, state.view(step, 0.0))
    assert isinstance(answer, Decision)
    state.apply(StepPlaced(t_s=0.0, step=step, decision=answer))
    state.apply(ended(step, 1.0, 0.5))
    refused = OURS(step, state.view(step, 2.0))
    assert isinstance(refused, Refusal)
    assert refused.cause == "spend_cap"


def test_a_simulated_run_keeps_caps_and_its_replay_decides_the_same(
    workload: Workload, fleet: tuple[PoolSpec, ...]
) -> None:
    capped = with_caps(fleet, {"aws": SpendCap(usd_per_hour=0.002)})
    events: list[Event] = list(simulate(workload, capped, OURS, 7).events)
    pools = {spec.name: spec.provider for spec in capped}
    placed = [one for one in events if isinstance(one, StepPlaced)]
    assert {pools[one.decision.pool] for one in placed} == {"aws", "gcp"}
    verdicts = {verdict.verdict for one in placed for verdict in one.decision.verdicts}
    assert "over_cap" in verdicts
    assert all(one.same for one in replay(events, OURS))


def test_a_pool_that_moves_to_another_provider_leaves_no_reservation_behind(
    llm_pool: PoolSpec,
) -> None:
    cap = SpendCap(usd_per_hour=1.0)
    state = state_of((msgspec.structs.replace(llm_pool, spend_cap=cap),), [])
    step = llm_step("t")
    answer = OURS(step, state.view(step, 0.0))
    assert isinstance(answer, Decision)
    state.apply(StepPlaced(t_s=0.0, step=step, decision=answer))
    moved = msgspec.structs.replace(llm_pool, provider="other", spend_cap=cap)
    state.apply(PoolAdded(t_s=1.0, spec=moved))
    state.apply(ended(step, 2.0, 0.25))
    assert state.spend.spent_usd("aws", 2.0) == (0.25, 0.25)
    assert state.spend.spent_usd("other", 2.0) == (0.0, 0.0)
