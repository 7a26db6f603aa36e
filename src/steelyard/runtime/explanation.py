"""Why did a step go where it went, and how right were the predictions? Read from its task's log."""

from collections.abc import Iterable

import msgspec

from steelyard.domain.decision import Decision, Refusal
from steelyard.domain.events import AttemptFinished, Event, StepPlaced, StepRefused


class Explanation(msgspec.Struct, kw_only=True):
    """One placement or refusal of a step.

    Attributes:
        attempt: Number of the attempt.
        t_s: When the policy was asked.
        reason: One sentence for people.
        answer: Candidates with their verdicts, predictions and prices.
        measured: How it ended: outcome, usage, cost, error; None where it has not, or was refused.
        predicted_s: Seconds from placement to end, as predicted; None of a refusal.
        measured_s: The same, as it came; None before the end.
    """

    attempt: int
    t_s: float
    reason: str
    answer: Decision | Refusal
    measured: AttemptFinished | None = None
    predicted_s: float | None = None
    measured_s: float | None = None


def explained(events: Iterable[Event], step_id: int) -> list[Explanation]:
    """What is in a task's log about one of its steps?

    Args:
        events: The log of the task.
        step_id: Number of the step.

    Returns:
        One explanation per placement or refusal, in order; empty where there is no such step.
    """
    told: list[Explanation] = []
    for event in events:
        if isinstance(event, StepPlaced) and event.step.step_id == step_id:
            decision = event.decision
            told.append(
                Explanation(
                    attempt=event.step.attempt,
                    t_s=event.t_s,
                    reason=decision.reason,
                    answer=decision,
                    predicted_s=decision.predicted_finish_s,
                )
            )
        elif isinstance(event, StepRefused) and event.step.step_id == step_id:
            refusal = event.refusal
            told.append(
                Explanation(
                    attempt=event.step.attempt, t_s=event.t_s, reason=refusal.reason, answer=refusal
                )
            )
        elif isinstance(event, AttemptFinished) and event.step_id == step_id:
            _measure(told, event)
    return told


def _measure(told: list[Explanation], event: AttemptFinished) -> None:
    for one in reversed(told):
        if one.attempt == event.attempt and one.predicted_s is not None and one.measured is None:
            # The answer itself is the caller's alone.
            one.measured = msgspec.structs.replace(event, result=None)
            one.measured_s = event.t_s - one.t_s
            return
