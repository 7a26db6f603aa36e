"""The answer of an LLM step that is in the log, as the pool would give it."""

from collections.abc import Iterable

import msgspec

from steelyard.domain.events import AttemptFinished, Event, StepPlaced
from steelyard.domain.task import LlmCall, Step
from steelyard.errors import NondeterminismError
from steelyard.pools.backend import FinishReason, LlmChunk, ToolCallDelta
from steelyard.runtime.transcript import LlmAnswer

_FINISH_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
}


def recorded_llm(
    events: Iterable[Event], step: Step
) -> tuple[StepPlaced, list[LlmChunk], AttemptFinished] | None:
    """What did this step answer before, as the chunks of a pool? See `recorded_end`."""
    found = recorded_end(events, step)
    if found is None:
        return None
    placed, ended = found
    return placed, _chunks(msgspec.convert(ended.result, LlmAnswer)), ended


def recorded_end(events: Iterable[Event], step: Step) -> tuple[StepPlaced, AttemptFinished] | None:
    """How did this step end before?

    Args:
        events: The task's journal.
        step: The step.

    Returns:
        Its placement and its end, which has its result; None when it has none yet.

    Raises:
        NondeterminismError: It has one, to another question.
    """
    placed: dict[int, StepPlaced] = {}
    for event in events:
        if isinstance(event, StepPlaced) and event.step.step_id == step.step_id:
            placed[event.step.attempt] = event
        elif isinstance(event, AttemptFinished) and event.step_id == step.step_id:
            before = placed.pop(event.attempt, None)
            if before is None or event.outcome != "ok" or event.result is None:
                continue
            if _question(before.step) != _question(step):
                raise NondeterminismError(
                    f"step {step.name} of task {step.task_id} (fingerprint {step.fingerprint}) "
                    f"has number {step.step_id}, which is recorded for step {before.step.name} "
                    f"(fingerprint {before.step.fingerprint}); use a new number"
                )
            return before, event
    return None


def _question(step: Step) -> tuple[str, str, tuple[int, ...]]:
    """What tells a question from another one: its hash, and the hashes of its prompt."""
    if not isinstance(step.call, LlmCall):
        return step.fingerprint, "", ()
    return step.fingerprint, step.call.model, step.call.prefix_hashes


def _chunks(answer: LlmAnswer) -> list[LlmChunk]:
    calls = tuple(
        ToolCallDelta(index=index, id=call.id, name=call.name, arguments=call.arguments)
        for index, call in enumerate(answer.tool_calls)
    )
    return [
        LlmChunk(
            text=answer.text,
            tool_calls=calls,
            finish_reason=_FINISH_REASONS.get(answer.finish_reason),
        )
    ]
