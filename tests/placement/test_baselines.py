from collections import Counter

import msgspec
import pytest

from steelyard.domain.decision import Decision
from steelyard.domain.events import (
    AttemptFinished,
    AttemptStarted,
    PoolAdded,
    ReplicaChanged,
    StepPlaced,
    Usage,
)
from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import LlmCall, Step, ToolCall
from steelyard.errors import ConfigError
from steelyard.fleet.state import FleetState
from steelyard.placement.baselines import BASELINES, policy_named, policy_names


@pytest.fixture
def state(fleet: tuple[PoolSpec, ...]) -> FleetState:
    made = FleetState()
    for spec in fleet:
        made.apply(PoolAdded(t_s=0.0, spec=spec))
    return made


def llm(task_id: str = "t", deadline_s: float | None = None) -> Step:
    call = LlmCall(
        model="m",
        input_tokens=1000,
        max_output_tokens=50,
        prefix_hashes=(7,),
        prefix_tokens=(900,),
    )
    return Step(task_id=task_id, step_id=0, agent="a", name="s", call=call, deadline_s=deadline_s)


def ask(name: str, step: Step, state: FleetState) -> Decision:
    answer = policy_named(name)(step, state.view(step, 0.0))
    assert isinstance(answer, Decision)
    assert answer.policy == name
    return answer


def place(state: FleetState, name: str, step: Step) -> Decision:
    answer = ask(name, step, state)
    state.apply(StepPlaced(t_s=0.0, step=step, decision=answer))
    return answer


def test_the_all_gpu_baseline_leaves_the_gpu_only_for_tools(state: FleetState) -> None:
    assert {place(state, "least_loaded_gpu", llm(f"t{n}")).pool for n in range(40)} == {"gpu"}
    tool = Step(task_id="t", step_id=1, agent="a", name="s", call=ToolCall(tool="x"))
    assert ask("least_loaded_gpu", tool, state).pool == "tools-arm"


def test_the_all_cpu_baseline_spreads_over_cpus(state: FleetState) -> None:
    placed = [place(state, "all_cpu", llm(f"t{n}")) for n in range(10)]
    assert Counter((one.pool, one.replica) for one in placed) == {
        ("arm", 0): 2,
        ("arm", 1): 2,
        ("arm", 2): 2,
        ("x86", 0): 2,
        ("x86", 1): 2,
    }


def test_cheapest_first_takes_the_lowest_cost_even_when_it_is_late(state: FleetState) -> None:
    answer = ask("cheapest_first", llm(deadline_s=0.01), state)
    costs = [v.predicted_cost_usd for v in answer.verdicts if v.predicted_cost_usd is not None]
    assert answer.predicted_cost_usd == min(costs)


def test_just_enough_takes_the_slowest_in_time_and_the_fastest_of_the_late(
    state: FleetState,
) -> None:
    assert ask("just_enough", llm(deadline_s=1000.0), state).pool == "arm"
    assert ask("just_enough", llm(deadline_s=0.5), state).pool == "gpu"
    assert ask("just_enough", llm(deadline_s=0.01), state).pool == "gpu"


def test_earliest_deadline_takes_the_pool_that_ends_first(state: FleetState) -> None:
    assert ask("earliest_deadline", llm(), state).pool == "gpu"


def test_prefix_affinity_follows_the_prompt(state: FleetState) -> None:
    first = place(state, "cheapest_first", llm("first"))
    state.apply(AttemptStarted(t_s=0.0, task_id="first", step_id=0, attempt=0))
    state.apply(
        AttemptFinished(
            t_s=1.0,
            task_id="first",
            step_id=0,
            attempt=0,
            outcome="ok",
            usage=Usage(input_tokens=1000, output_tokens=5, wall_s=1.0),
            cost_usd=0.0,
        )
    )
    for number in range(5):
        answer = place(state, "prefix_affinity", llm(f"t{number}"))
        assert (answer.pool, answer.replica) == (first.pool, first.replica)
        assert answer.predicted_cached_tokens == 900


def test_round_robin_gives_every_replica_about_as_much(state: FleetState) -> None:
    placed = Counter(
        (one.pool, one.replica)
        for one in (place(state, "round_robin", llm(f"t{n}")) for n in range(1200))
    )
    assert len(placed) == 6
    assert all(150 < count < 250 for count in placed.values())


def test_the_shorter_of_two_is_shorter_than_one_drawn(fleet: tuple[PoolSpec, ...]) -> None:
    longest: dict[str, float] = {}
    arm = msgspec.structs.replace(fleet[0], replicas=100)
    for name in ("round_robin", "join_shortest_of_two", "normalised_least_load"):
        state = FleetState()
        state.apply(PoolAdded(t_s=0.0, spec=arm))
        for number in range(300):
            place(state, name, llm(f"t{number}"))
        longest[name] = float(state.view(llm(), 0.0).waiting.max())
    assert longest["normalised_least_load"] == 3.0
    assert longest["normalised_least_load"] < longest["join_shortest_of_two"]
    assert longest["join_shortest_of_two"] < longest["round_robin"]


@pytest.mark.parametrize("name", policy_names())
def test_no_policy_places_on_a_replica_that_is_down(name: str, state: FleetState) -> None:
    for pool, replica in (("arm", 1), ("x86", 0), ("gpu", 0)):
        state.apply(ReplicaChanged(t_s=0.0, pool=pool, replica=replica, up=False, reason="test"))
    for number in range(50):
        answer = place(state, name, llm(f"t{number}"))
        assert (answer.pool, answer.replica) in {("arm", 0), ("arm", 2), ("x86", 1)}


def test_policies_are_found_by_their_names_and_the_nearest_are_named() -> None:
    assert policy_names()[0] == "cheapest_feasible"
    assert [policy_named(name).name for name in policy_names()] == list(policy_names())
    assert list(policy_names()[1:]) == sorted(baseline.name for baseline in BASELINES)
    with pytest.raises(ConfigError, match="'round_robbin' is unknown; did you mean round_robin"):
        policy_named("round_robbin")
