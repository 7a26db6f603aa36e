import pytest

from steelyard.domain.decision import Decision
from steelyard.domain.events import (
    AttemptFinished,
    AttemptStarted,
    PoolAdded,
    StepPlaced,
    TaskSubmitted,
    Usage,
)
from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import LlmCall, Step
from steelyard.fleet.state import FleetState
from steelyard.placement.program_level import program_fcfs, program_least_attained
from steelyard.placement.queue import StepQueue


@pytest.fixture
def state(fleet: tuple[PoolSpec, ...]) -> FleetState:
    made = FleetState()
    for spec in fleet:
        made.apply(PoolAdded(t_s=0.0, spec=spec))
    return made


def llm(task_id: str, step_id: int, tokens: int = 5000) -> Step:
    call = LlmCall(model="m", input_tokens=tokens, max_output_tokens=50)
    return Step(task_id=task_id, step_id=step_id, agent="a", name="s", call=call)


def serve(state: FleetState, step: Step, start_s: float, took_s: float) -> Decision:
    """Submit, place and end one step of a task under least attained service."""
    if not state.has_task(step.task_id):
        state.apply(TaskSubmitted(t_s=start_s, task_id=step.task_id, agent="a"))
    answer = program_least_attained(step, state.view(step, start_s))
    assert isinstance(answer, Decision)
    state.apply(StepPlaced(t_s=start_s, step=step, decision=answer))
    state.apply(AttemptStarted(t_s=start_s, task_id=step.task_id, step_id=step.step_id, attempt=0))
    state.apply(
        AttemptFinished(
            t_s=start_s + took_s, outcome="ok", cost_usd=0.0,
            usage=Usage(input_tokens=5000, output_tokens=5, wall_s=took_s),
            task_id=step.task_id, step_id=step.step_id, attempt=0,
        )
    )  # fmt: skip
    return answer


def test_the_task_that_was_served_least_goes_first(state: FleetState) -> None:
    serve(state, llm("long", 0), 0.0, 30.0)
    serve(state, llm("short", 0), 0.0, 2.0)
    keys: dict[str, float] = {}
    queue = StepQueue()
    for task_id in ("long", "short"):
        step = llm(task_id, 1)
        answer = program_least_attained(step, state.view(step, 40.0))
        assert isinstance(answer, Decision)
        assert answer.queue_key is not None
        keys[task_id] = answer.queue_key
        queue.push(step, answer, 40.0)
    assert keys == {"long": 30.0, "short": 2.0}
    assert queue.pop(40.0).task_id == "short"


def test_a_long_prompt_stays_where_its_task_is_and_a_short_one_does_not(
    state: FleetState,
) -> None:
    first = serve(state, llm("t", 0), 0.0, 1.0)
    # Other tasks fill that replica, so that staying is not what the load says.
    for number in range(3):
        busy = llm(f"busy-{number}", 0)
        state.apply(StepPlaced(t_s=1.0, step=busy, decision=first))
    view = state.view(llm("t", 1), 2.0)
    stays = program_least_attained(llm("t", 1), view)
    assert isinstance(stays, Decision)
    assert (stays.pool, stays.replica) == (first.pool, first.replica)
    moves = program_least_attained(llm("t", 1, tokens=500), view)
    assert isinstance(moves, Decision)
    assert (moves.pool, moves.replica) != (first.pool, first.replica)


def test_a_cache_is_waited_for_until_its_time_to_live_is_over(state: FleetState) -> None:
    first = serve(state, llm("t", 0), 0.0, 1.0)
    for number in range(3):
        state.apply(StepPlaced(t_s=1.0, step=llm(f"busy-{number}", 0), decision=first))
    soon = program_fcfs(llm("t", 1), state.view(llm("t", 1), 1.1))
    late = program_fcfs(llm("t", 1), state.view(llm("t", 1), 1e6))
    assert isinstance(soon, Decision)
    assert isinstance(late, Decision)
    assert (soon.pool, soon.replica) == (first.pool, first.replica)
    assert (late.pool, late.replica) != (first.pool, first.replica)
    assert soon.queue_key == 0.0
