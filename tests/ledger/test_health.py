"""When pools took no steps, folded from the log; and what providers did over time."""

import math

from steelyard.domain.decision import Decision
from steelyard.domain.events import (
    AttemptFinished,
    AttemptOutcome,
    AttemptStarted,
    Event,
    PoolAdded,
    ReplicaChanged,
    StepPlaced,
    TaskFinished,
    TaskSubmitted,
    Usage,
)
from steelyard.domain.pool import LlmCurve, PoolSpec
from steelyard.domain.task import LlmCall, Step
from steelyard.ledger.health import Health
from steelyard.ledger.ledger import Ledger
from steelyard.ledger.providers_over_time import providers_over_time

CURVE = LlmCurve(
    ttft_floor_s=0.1, prefill_s_per_token=0.0, itl_base_s=0.01, itl_slope_s=0.0,
    concurrency_cap=8, context_tokens=100, predicted=False, source="test",
)  # fmt: skip


def pool(name: str, replicas: int = 2) -> PoolAdded:
    spec = PoolSpec(
        name=name, provider=f"of {name}", region="", arch="x86_64", hardware="gpu", offering="",
        usd_per_hour=1.0, replicas=replicas, llm_curves={"m": CURVE},
    )  # fmt: skip
    return PoolAdded(t_s=0.0, spec=spec)


def attempt(number: int, at: str, t_s: float, outcome: AttemptOutcome = "ok") -> list[Event]:
    task_id = f"task-{number}"
    call = LlmCall(model="m", input_tokens=10, max_output_tokens=10)
    step = Step(task_id=task_id, step_id=0, attempt=0, name="ask", agent="a", call=call)
    decision = Decision(
        pool=at, replica=number % 2, reason="", predicted_wait_s=0.0, predicted_ttft_s=0.1,
        predicted_finish_s=0.5, slack_s=1.0, predicted_cost_usd=0.001, predicted_cached_tokens=0,
        predicted_output_tokens=8.0, bid_usd_per_hour=1.0, policy="test", verdicts=(),
    )  # fmt: skip
    return [
        TaskSubmitted(t_s=t_s, task_id=task_id, agent="a"),
        StepPlaced(t_s=t_s, step=step, decision=decision),
        AttemptStarted(t_s=t_s, task_id=task_id, step_id=0, attempt=0),
        AttemptFinished(
            t_s=t_s + 0.5, task_id=task_id, step_id=0, attempt=0, outcome=outcome, usage=Usage(),
            cost_usd=0.001, error_code="" if outcome == "ok" else "pool_unavailable",
        ),
        TaskFinished(
            t_s=t_s + 0.5, task_id=task_id, status="succeeded" if outcome == "ok" else "failed"
        ),
    ]  # fmt: skip


def failures(at: str, start_s: float, count: int) -> list[Event]:
    return [
        event
        for number in range(count)
        for event in attempt(number, at, start_s + number, "failed")
    ]


def test_a_breaker_that_opens_and_is_closed_by_a_success_is_one_span() -> None:
    log: list[Event] = [pool("p"), *failures("p", 1.0, 4), *attempt(9, "p", 6.0)]
    (span,) = Health.of(log).spans()
    assert (span.pool, span.condition) == ("p", "breaker open")
    # The third failure in a row opens it, the fourth keeps it open for longer.
    assert (span.start_s, span.end_s) == (3.5, 6.5)


def test_a_breaker_that_nobody_closes_ends_by_its_own_time() -> None:
    (span,) = Health.of([pool("p"), *failures("p", 1.0, 3)]).spans()
    assert (span.start_s, span.end_s) == (3.5, 8.5)


def test_replicas_that_are_down_are_told_apart_from_a_pool_that_is() -> None:
    def changed(replica: int, t_s: float, *, up: bool) -> ReplicaChanged:
        return ReplicaChanged(t_s=t_s, pool="p", replica=replica, up=up, reason="test")

    log: list[Event] = [
        pool("p"), changed(0, 1.0, up=False), changed(1, 2.0, up=False), changed(1, 5.0, up=True),
    ]  # fmt: skip
    told = [(one.condition, one.start_s, one.end_s) for one in Health.of(log).spans()]
    assert told == [
        ("replicas down", 1.0, 2.0),
        ("down", 2.0, 5.0),
        ("replicas down", 5.0, math.inf),
    ]


def test_providers_are_told_apart_and_their_shares_of_spend_sum_to_one() -> None:
    log: list[Event] = [
        pool("p"), pool("q"), *attempt(1, "p", 1.0), *attempt(2, "q", 1.0), *attempt(3, "q", 1.0),
        *attempt(4, "q", 3.0, "failed"),
    ]  # fmt: skip
    told = providers_over_time(Ledger.of(log), Health.of(log).spans())
    p, q = told.providers["of p"], told.providers["of q"]
    assert (p.answered, p.failed, q.answered, q.failed) == (1, 0, 2, 1)
    assert math.isclose(sum(q.failed_per_s) * told.bucket_s, 1.0)
    for one, other in zip(p.spend_frac, q.spend_frac, strict=True):
        assert (one is None) == (other is None)
        assert one is None or other is None or math.isclose(one + other, 1.0)
