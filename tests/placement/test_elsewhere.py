"""A step that failed goes to another replica, and to another pool where one is in time."""

import itertools

import msgspec
import pytest

from steelyard.domain.decision import Decision, Refusal
from steelyard.domain.events import (
    AttemptFinished,
    AttemptStarted,
    Event,
    PoolAdded,
    StepPlaced,
    TaskSubmitted,
    Usage,
)
from steelyard.domain.pool import LlmCurve, PoolSpec
from steelyard.domain.task import LlmCall, Step
from steelyard.fleet.state import FleetState
from steelyard.placement.baselines import policy_named, policy_names
from steelyard.placement.elsewhere import decide_elsewhere
from steelyard.placement.policy import CheapestFeasible
from steelyard.placement.replay import replay

STEP = Step(
    task_id="t",
    step_id=0,
    agent="a",
    name="s",
    call=LlmCall(model="m", input_tokens=100, max_output_tokens=100),
)


def pool(name: str, rent: float, replicas: int, itl_s: float = 0.01) -> PoolSpec:
    curve = LlmCurve(
        ttft_floor_s=0.01,
        prefill_s_per_token=0.0001,
        itl_base_s=itl_s,
        itl_slope_s=0.0,
        concurrency_cap=4,
        context_tokens=4096,
        predicted=True,
        source="made up for tests",
    )
    return PoolSpec(
        name=name,
        provider="p",
        region="r",
        arch="x86_64",
        hardware="x86",
        offering="o",
        usd_per_hour=rent,
        replicas=replicas,
        llm_curves={"m": curve},
    )


class Tried:
    """A step in a fleet, failing wherever it is sent."""

    def __init__(self, *pools: PoolSpec, step: Step = STEP, policy: str = "") -> None:
        self.policy = policy_named(policy) if policy else CheapestFeasible()
        self.state = FleetState()
        self.log: list[Event] = []
        self.step = step
        self.t_s = 0.0
        for spec in pools:
            self.take(PoolAdded(t_s=0.0, spec=spec))
        self.take(TaskSubmitted(t_s=0.0, task_id="t", agent="a"))

    def take(self, event: Event) -> None:
        self.log.append(event)
        self.state.apply(event)

    def attempt(self) -> Decision:
        """Place the next attempt, and let it fail."""
        self.t_s += 0.1
        step = self.step
        decision = decide_elsewhere(self.policy, step, self.state.view(step, self.t_s))
        assert isinstance(decision, Decision)
        self.take(StepPlaced(t_s=self.t_s, step=step, decision=decision))
        self.take(AttemptStarted(t_s=self.t_s, task_id="t", step_id=0, attempt=step.attempt))
        self.t_s += 0.1
        self.take(
            AttemptFinished(
                t_s=self.t_s,
                outcome="failed",
                usage=Usage(),
                cost_usd=0.0,
                error_code="pool_overloaded",
                task_id="t",
                step_id=0,
                attempt=step.attempt,
            )
        )
        self.step = msgspec.structs.replace(step, attempt=step.attempt + 1)
        return decision


@pytest.mark.parametrize("policy", policy_names())
def test_the_next_attempt_is_on_another_replica_under_every_policy(policy: str) -> None:
    for n in range(8):
        step = msgspec.structs.replace(STEP, step_id=0, name=f"s{n}")
        tried = Tried(pool("lab", 1.0, 3), step=step, policy=policy)
        places = [tried.attempt().replica for _ in range(3)]
        assert sorted(places) == [0, 1, 2]


def test_of_two_replicas_the_one_that_failed_last_is_avoided() -> None:
    tried = Tried(pool("lab", 1.0, 2))
    places = [tried.attempt().replica for _ in range(4)]
    assert all(one != other for one, other in itertools.pairwise(places))


def test_the_only_replica_is_tried_again() -> None:
    tried = Tried(pool("lab", 1.0, 1))
    assert [tried.attempt().pool for _ in range(3)] == ["lab"] * 3


def test_another_pool_that_is_in_time_is_taken_though_it_is_dearer() -> None:
    tried = Tried(pool("cheap", 1.0, 2), pool("dear", 9.0, 1))
    assert tried.attempt().pool == "cheap"
    retry = tried.attempt()
    assert retry.pool == "dear"
    assert [one.verdict for one in retry.verdicts] == ["just_failed", "chosen"]
    assert retry.reason.endswith("not where it just failed")


def test_a_pool_that_would_be_late_is_left_for_another_replica() -> None:
    step = msgspec.structs.replace(STEP, deadline_s=5.0)
    tried = Tried(pool("cheap", 1.0, 2), pool("slow", 9.0, 1, itl_s=1.0), step=step)
    first, second = tried.attempt(), tried.attempt()
    assert (first.pool, second.pool) == ("cheap", "cheap")
    assert first.replica != second.replica


def test_the_only_place_in_time_is_tried_again() -> None:
    step = msgspec.structs.replace(STEP, deadline_s=5.0)
    tried = Tried(pool("cheap", 1.0, 1), pool("slow", 9.0, 1, itl_s=1.0), step=step)
    assert [tried.attempt().pool for _ in range(2)] == ["cheap", "cheap"]


def test_where_all_are_late_another_place_comes_first() -> None:
    step = msgspec.structs.replace(STEP, deadline_s=0.5)
    tried = Tried(pool("lab", 1.0, 1), pool("slow", 9.0, 1, itl_s=1.0), step=step)
    assert [tried.attempt().pool for _ in range(2)] == ["lab", "slow"]


def test_retries_are_decided_again_on_the_log() -> None:
    tried = Tried(pool("cheap", 1.0, 3), pool("dear", 9.0, 2))
    for _ in range(4):
        tried.attempt()
    assert [one.same for one in replay(tried.log, CheapestFeasible())] == [True] * 4


def beside(tried: Tried) -> Decision | Refusal:
    """Place the step and, while that attempt is under way, ask for a second place."""
    step = tried.step
    decision = decide_elsewhere(tried.policy, step, tried.state.view(step, 0.1))
    assert isinstance(decision, Decision)
    tried.take(StepPlaced(t_s=0.1, step=step, decision=decision))
    second = msgspec.structs.replace(step, attempt=1)
    return decide_elsewhere(tried.policy, second, tried.state.view(second, 0.2))


@pytest.mark.parametrize("policy", policy_names())
def test_a_second_attempt_is_never_where_the_first_is_under_way(policy: str) -> None:
    tried = Tried(pool("lab", 1.0, 2), policy=policy)
    answer = beside(tried)
    placed = tried.log[-1]
    assert isinstance(answer, Decision)
    assert isinstance(placed, StepPlaced)
    assert answer.replica == 1 - placed.decision.replica
    assert answer.reason.endswith("beside an attempt that is late")


def test_it_goes_to_another_pool_where_the_first_has_the_only_replica() -> None:
    answer = beside(Tried(pool("cheap", 1.0, 1), pool("dear", 9.0, 1)))
    assert isinstance(answer, Decision)
    assert answer.pool == "dear"
    assert [one.verdict for one in answer.verdicts] == ["under_way", "chosen"]


def test_it_is_refused_where_there_is_no_other_place() -> None:
    answer = beside(Tried(pool("lab", 1.0, 1)))
    assert isinstance(answer, Refusal)
    assert [one.verdict for one in answer.verdicts] == ["under_way"]


def test_a_third_attempt_avoids_where_the_first_failed_and_where_the_second_runs() -> None:
    tried = Tried(pool("lab", 1.0, 3))
    first = tried.attempt()
    second = decide_elsewhere(tried.policy, tried.step, tried.state.view(tried.step, 0.5))
    assert isinstance(second, Decision)
    tried.take(StepPlaced(t_s=0.5, step=tried.step, decision=second))
    step = msgspec.structs.replace(tried.step, attempt=2)
    third = decide_elsewhere(tried.policy, step, tried.state.view(step, 0.6))
    assert isinstance(third, Decision)
    assert {first.replica, second.replica, third.replica} == {0, 1, 2}
