import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from steelyard.domain.decision import Decision, Refusal
from steelyard.domain.events import AttemptFinished, AttemptStarted, PoolAdded, StepPlaced, Usage
from steelyard.domain.pool import LlmCurve, PoolSpec, ToolCurve
from steelyard.domain.task import LlmCall, OnMiss, Step, ToolCall
from steelyard.fleet.state import FleetState
from steelyard.placement.baselines import policy_named, policy_names
from steelyard.placement.policy import CheapestFeasible

OURS = CheapestFeasible()
# Pools within 5 % of the cheapest are as cheap to the policy; the rest is rounding.
TIE = 1.05 * (1.0 + 1e-12)

curves = st.builds(
    LlmCurve,
    ttft_floor_s=st.floats(0.0, 0.5),
    prefill_s_per_token=st.floats(1e-6, 1e-2),
    itl_base_s=st.floats(1e-3, 0.1),
    itl_slope_s=st.floats(0.0, 0.05),
    concurrency_cap=st.integers(1, 64),
    context_tokens=st.sampled_from([512, 100_000]),
    predicted=st.just(True),
    source=st.just("drawn"),
)
specs = st.builds(
    PoolSpec,
    name=st.just(""),
    provider=st.sampled_from(["aws", "gcp"]),
    region=st.just("r"),
    arch=st.just("arm64"),
    hardware=st.sampled_from(["arm", "x86", "gpu"]),
    offering=st.just("o"),
    usd_per_hour=st.floats(0.01, 50.0),
    replicas=st.integers(1, 4),
    llm_curves=st.fixed_dictionaries({}, optional={"m": curves}),
)
fleets = st.lists(specs, min_size=1, max_size=6).map(
    lambda found: tuple(
        msgspec.structs.replace(spec, name=f"pool-{number}") for number, spec in enumerate(found)
    )
)
steps = st.builds(
    Step,
    task_id=st.sampled_from(["one", "two", "three"]),
    step_id=st.integers(0, 3),
    agent=st.just("a"),
    name=st.just("s"),
    call=st.builds(
        LlmCall,
        model=st.just("m"),
        input_tokens=st.integers(1, 2000),
        max_output_tokens=st.integers(1, 500),
    ),
    deadline_s=st.none() | st.floats(0.0, 100.0),
    budget_usd=st.none() | st.floats(0.0, 0.02),
    on_miss=st.sampled_from(["run_late", "refuse"]),
)
busy = st.lists(st.tuples(steps, st.booleans()), max_size=12)
names = st.sampled_from(policy_names())


def state_of(fleet: tuple[PoolSpec, ...], work: list[tuple[Step, bool]]) -> FleetState:
    """A fleet on which some steps wait and others run, wherever our policy put them."""
    state = FleetState()
    for spec in fleet:
        state.apply(PoolAdded(t_s=0.0, spec=spec))
    for number, (drawn, started) in enumerate(work):
        step = msgspec.structs.replace(drawn, task_id=f"busy-{number}")
        answer = OURS(step, state.view(step, 0.0))
        if isinstance(answer, Decision):
            state.apply(StepPlaced(t_s=0.0, step=step, decision=answer))
            if started:
                state.apply(
                    AttemptStarted(
                        t_s=0.0, task_id=step.task_id, step_id=step.step_id, attempt=step.attempt
                    )
                )
    return state


@given(fleet=fleets, work=busy, step=steps)
def test_whoever_is_chosen_meets_the_deadline_if_any_pool_does(
    fleet: tuple[PoolSpec, ...], work: list[tuple[Step, bool]], step: Step
) -> None:
    answer = OURS(step, state_of(fleet, work).view(step, 0.0))
    if isinstance(answer, Refusal) or step.deadline_s is None:
        return
    if answer.predicted_finish_s > step.deadline_s:
        assert step.on_miss == "run_late"
        for verdict in answer.verdicts:
            in_time = (verdict.predicted_finish_s or 0.0) <= step.deadline_s
            assert verdict.verdict != "dearer" or not in_time
    else:
        assert answer.slack_s is not None
        assert answer.slack_s >= 0.0


@given(fleet=fleets, step=steps)
def test_pools_called_dearer_are_and_those_called_later_are_no_dearer_but_slower(
    fleet: tuple[PoolSpec, ...], step: Step
) -> None:
    answer = OURS(step, state_of(fleet, []).view(step, 0.0))
    assume(isinstance(answer, Decision) and (answer.slack_s is None or answer.slack_s >= 0.0))
    assert isinstance(answer, Decision)
    for verdict in answer.verdicts:
        if verdict.verdict == "dearer":
            assert verdict.predicted_cost_usd is not None
            assert verdict.predicted_cost_usd > answer.predicted_cost_usd
        elif verdict.verdict == "later":
            assert verdict.predicted_cost_usd is not None
            assert verdict.predicted_finish_s is not None
            assert verdict.predicted_cost_usd <= answer.predicted_cost_usd
            assert verdict.predicted_finish_s >= answer.predicted_finish_s


@given(name=names, fleet=fleets, work=busy, step=steps)
def test_no_policy_spends_more_than_the_budget(
    name: str, fleet: tuple[PoolSpec, ...], work: list[tuple[Step, bool]], step: Step
) -> None:
    answer = policy_named(name)(step, state_of(fleet, work).view(step, 0.0))
    if isinstance(answer, Decision) and step.budget_usd is not None:
        assert answer.predicted_cost_usd <= step.budget_usd


@given(name=names, fleet=fleets, work=busy, step=steps)
def test_every_policy_is_deterministic_and_answers_for_every_pool(
    name: str, fleet: tuple[PoolSpec, ...], work: list[tuple[Step, bool]], step: Step
) -> None:
    policy = policy_named(name)
    answer = policy(step, state_of(fleet, work).view(step, 0.0))
    assert answer == policy(step, state_of(fleet, work).view(step, 0.0))
    assert [verdict.pool for verdict in answer.verdicts] == [spec.name for spec in fleet]
    chosen = [verdict.pool for verdict in answer.verdicts if verdict.verdict == "chosen"]
    assert chosen == ([answer.pool] if isinstance(answer, Decision) else [])
    if isinstance(answer, Decision):
        spec = next(spec for spec in fleet if spec.name == answer.pool)
        assert "m" in spec.llm_curves
        assert 0 <= answer.replica < spec.replicas


@given(fleet=fleets, step=steps)
def test_another_pool_raises_the_cost_of_a_lone_step_by_a_tie_at_most(
    fleet: tuple[PoolSpec, ...], step: Step
) -> None:
    # With a deadline it may: a faster pool shows how much of the slack the others would spend.
    step = msgspec.structs.replace(step, deadline_s=None)
    fewer = OURS(step, state_of(fleet[:-1], []).view(step, 0.0))
    assume(isinstance(fewer, Decision) and (fewer.slack_s is None or fewer.slack_s >= 0.0))
    more = OURS(step, state_of(fleet, []).view(step, 0.0))
    assert isinstance(fewer, Decision)
    assert isinstance(more, Decision)
    assert more.predicted_cost_usd <= fewer.predicted_cost_usd * TIE


@pytest.mark.parametrize("on_miss", ["run_late", "refuse"])
def test_a_step_that_is_late_everywhere_runs_least_late_or_is_refused(
    fleet: tuple[PoolSpec, ...], on_miss: OnMiss
) -> None:
    call = LlmCall(model="m", input_tokens=4000, max_output_tokens=50)
    step = Step(
        task_id="t", step_id=0, agent="a", name="s", call=call, deadline_s=0.2, on_miss=on_miss
    )
    answer = OURS(step, state_of(fleet, []).view(step, 0.0))
    if on_miss == "run_late":
        assert isinstance(answer, Decision)
        assert answer.pool == "gpu"
        assert "least late" in answer.reason
    else:
        assert isinstance(answer, Refusal)
        assert answer.cause == "deadline"
        assert answer.earliest_finish_s is not None
        assert answer.earliest_finish_s > 0.2
        assert "gpu: too late" in answer.reason


def test_a_tight_deadline_moves_a_step_to_dearer_hardware(fleet: tuple[PoolSpec, ...]) -> None:
    call = LlmCall(model="m", input_tokens=1000, max_output_tokens=50)
    easy = Step(task_id="t", step_id=0, agent="a", name="s", call=call, deadline_s=100.0)
    tight = msgspec.structs.replace(easy, deadline_s=0.5)
    view = state_of(fleet, []).view(easy, 0.0)
    relaxed, hurried = OURS(easy, view), OURS(tight, view)
    assert isinstance(relaxed, Decision)
    assert isinstance(hurried, Decision)
    assert hurried.pool == "gpu"
    assert relaxed.predicted_cost_usd <= hurried.predicted_cost_usd


def waiting_on(pool: PoolSpec, others: tuple[PoolSpec, ...], count: int) -> FleetState:
    """A fleet in which so many steps were sent to one pool; those above its cap wait."""
    state = state_of((pool,), [])
    for number in range(count):
        call = LlmCall(model="m", input_tokens=1000, max_output_tokens=100)
        step = Step(task_id=f"busy-{number}", step_id=0, agent="b", name="b", call=call)
        answer = OURS(step, state.view(step, 0.0))
        assert isinstance(answer, Decision)
        state.apply(StepPlaced(t_s=0.0, step=step, decision=answer))
        if number < pool.llm_curves["m"].concurrency_cap:
            state.apply(AttemptStarted(t_s=0.0, task_id=step.task_id, step_id=0, attempt=0))
    for spec in others:
        state.apply(PoolAdded(t_s=0.0, spec=spec))
    return state


def test_a_queue_makes_a_pool_dearer_than_an_idle_one_that_costs_a_little_more(
    llm_pool: PoolSpec,
) -> None:
    idle = msgspec.structs.replace(llm_pool, name="idle", usd_per_hour=llm_pool.usd_per_hour * 1.5)
    call = LlmCall(model="m", input_tokens=1000, max_output_tokens=100)
    step = Step(task_id="t", step_id=0, agent="a", name="s", call=call)
    free = OURS(step, waiting_on(llm_pool, (idle,), 0).view(step, 0.0))
    full = OURS(step, waiting_on(llm_pool, (idle,), 12).view(step, 0.0))
    assert isinstance(free, Decision)
    assert isinstance(full, Decision)
    assert (free.pool, full.pool) == ("arm", "idle")


def test_a_refusal_tells_when_the_queue_will_be_short_enough(llm_pool: PoolSpec) -> None:
    state = waiting_on(llm_pool, (), 12)
    call = LlmCall(model="m", input_tokens=1000, max_output_tokens=100)
    patient = Step(task_id="t", step_id=0, agent="a", name="s", call=call, deadline_s=1e4)
    seen = OURS(patient, state.view(patient, 0.0))
    assert isinstance(seen, Decision)
    half_s = seen.predicted_finish_s - seen.predicted_wait_s / 2.0
    hurried = msgspec.structs.replace(patient, deadline_s=half_s, on_miss="refuse")
    view = state.view(hurried, 0.0)
    refused = OURS(hurried, view)
    assert isinstance(refused, Refusal)
    assert refused.retry_after_s == pytest.approx(seen.predicted_wait_s / 2.0)
    assert OURS.by_arrays(hurried, view) == refused
    # An empty pool would be too slow as well: to come back is in vain.
    hopeless = msgspec.structs.replace(hurried, deadline_s=0.001)
    never = OURS(hopeless, state.view(hopeless, 0.0))
    assert isinstance(never, Refusal)
    assert never.retry_after_s is None


def test_a_first_step_does_not_wait_until_its_whole_task_has_no_slack_left(
    llm_pool: PoolSpec,
) -> None:
    dear = msgspec.structs.replace(llm_pool, name="dear", usd_per_hour=llm_pool.usd_per_hour * 50)
    call = LlmCall(model="m", input_tokens=1000, max_output_tokens=100)
    step = Step(task_id="t", step_id=0, agent="new", name="s", call=call, deadline_s=60.0)
    view = waiting_on(llm_pool, (dear,), 12).view(step, 0.0)
    answer = OURS(step, view)
    assert isinstance(answer, Decision)
    waited = next(verdict for verdict in answer.verdicts if verdict.pool == "arm")
    assert waited.predicted_finish_s is not None
    # The queue would have been over in time for this step, but nothing is known of later ones.
    assert waited.predicted_finish_s < 60.0
    assert answer.pool == "dear"


def test_a_tool_that_declares_more_memory_than_a_pool_has_does_not_go_there(
    tool_pool: PoolSpec, tool_curve: ToolCurve
) -> None:
    state = state_of((tool_pool,), [])
    small = Step(task_id="t", step_id=0, agent="a", name="s", call=ToolCall(tool="x"))
    answer = OURS(small, state.view(small, 0.0))
    assert isinstance(answer, Decision)
    # Small ones were seen, so a small one is expected; the declared size still counts.
    state.apply(StepPlaced(t_s=0.0, step=small, decision=answer))
    state.apply(AttemptStarted(t_s=0.0, task_id="t", step_id=0, attempt=0))
    state.apply(
        AttemptFinished(
            t_s=1.0,
            task_id="t",
            step_id=0,
            attempt=0,
            outcome="ok",
            usage=Usage(cpu_s=1.0, memory_bytes=10, wall_s=1.0),
            cost_usd=0.0,
        )
    )
    call = ToolCall(tool="x", memory_bytes=tool_curve.memory_bytes + 1)
    large = msgspec.structs.replace(small, task_id="large", call=call)
    refused = OURS(large, state.view(large, 1.0))
    assert isinstance(refused, Refusal)
    assert refused.verdicts[0].verdict == "cannot_run"


def test_slack_for_the_queue_leaves_out_the_predicted_wait(llm_pool: PoolSpec) -> None:
    call = LlmCall(model="m", input_tokens=100, max_output_tokens=10)
    step = Step(task_id="t", step_id=0, agent="a", name="s", call=call, deadline_s=60.0)
    work = [(step, True)] * 4 + [(step, False)] * 3
    alone = OURS(step, state_of((llm_pool,), work[:3]).view(step, 0.0))
    queued = OURS(step, state_of((llm_pool,), work).view(step, 0.0))
    assert isinstance(alone, Decision)
    assert isinstance(queued, Decision)
    assert queued.predicted_wait_s > 0.0
    assert queued.slack_at_start_s == pytest.approx(alone.slack_at_start_s)


warm = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=6)


@given(
    fleets,
    st.lists(st.tuples(steps, st.booleans()), max_size=12),
    steps,
    warm,
    st.sampled_from([None, 100, 5000]),
)
def test_few_pools_are_scored_as_arrays_are_to_the_last_bit(
    fleet: tuple[PoolSpec, ...],
    work: list[tuple[Step, bool]],
    step: Step,
    holders: list[tuple[int, int]],
    kv_tokens: int | None,
) -> None:
    fleet = tuple(msgspec.structs.replace(spec, kv_tokens=kv_tokens) for spec in fleet)
    state = state_of(fleet, work)
    assert isinstance(step.call, LlmCall)
    call = msgspec.structs.replace(
        step.call, prefix_hashes=(7,), prefix_tokens=(step.call.input_tokens // 2 + 1,)
    )
    step = msgspec.structs.replace(step, call=call)
    for pool, replica in holders:
        if pool < len(fleet) and replica < fleet[pool].replicas:
            state._prefixes.add(  # pyright: ignore[reportPrivateUsage]
                (pool, replica), call.prefix_hashes, call.prefix_tokens
            )
    view = state.view(step, 20.0)
    assert OURS(step, view) == OURS.by_arrays(step, view)


@pytest.mark.parametrize("name", policy_names())
def test_a_tool_that_was_never_seen_is_refused_when_nothing_is_left(
    name: str, tool_pool: PoolSpec
) -> None:
    call = ToolCall(tool="x")
    step = Step(task_id="t", step_id=0, agent="a", name="s", call=call, budget_usd=0.0)
    free = msgspec.structs.replace(tool_pool, usd_per_hour=0.0)
    refused = policy_named(name)(step, state_of((tool_pool,), []).view(step, 0.0))
    assert isinstance(refused, Refusal)
    assert refused.cause == "budget"
    assert isinstance(policy_named(name)(step, state_of((free,), []).view(step, 0.0)), Decision)


def test_a_cold_step_goes_where_contexts_of_open_tasks_have_room(llm_pool: PoolSpec) -> None:
    sized = msgspec.structs.replace(llm_pool, replicas=3, kv_tokens=1000)
    state = FleetState()
    state.apply(PoolAdded(t_s=0.0, spec=sized))
    new = Step(
        task_id="new",
        step_id=0,
        agent="a",
        name="s",
        call=LlmCall(model=next(iter(sized.llm_curves)), input_tokens=300, max_output_tokens=50),
    )
    view = state.view(new, 0.0)
    tight = msgspec.structs.replace(view, live_tokens=np.array([900.0, 100.0, 800.0]))
    chosen = OURS(new, tight)
    assert isinstance(chosen, Decision)
    assert chosen.replica == 1
    assert OURS.by_arrays(new, tight) == chosen
