"""The reference of the event log: every event and its fields."""

from typing import get_args

import msgspec

from docs_site.docstrings import entries, prose
from docs_site.tables import code, table
from docs_site.types import default, readable
from docs_site.units import unit
from steelyard.domain import events
from steelyard.domain.decision import Decision, PoolVerdict, Refusal
from steelyard.domain.task import LlmCall, Step, ToolCall

# What fields of several events mean, where their docstrings leave it out.
_USUAL = {
    "t_s": "When, on the log's clock.",
    "task_id": "The task.",
    "step_id": "The step.",
    "attempt": "The attempt: 0, 1, 2.",
    "pool": "The pool.",
    "name": "Its name.",
    "value": "What was sent.",
    "spec": "The pool as it is from now on.",
    "bid_usd_per_hour": "The new price.",
    "step": "The step.",
    "decision": "Where it goes, and what is expected of it.",
    "refusal": "Why no pool takes it.",
    "worker": "Who goes on.",
    "fence": "Number of its lease.",
    "cause": "What ran out.",
    "status": "How it ended.",
    "error_code": "Stable code of the error, empty when it went well.",
    "error": "Its message.",
    "result": "What the agent returned.",
    "ended_s": "End of its last step, where a while of silence ended the task; None elsewhere.",
    "wrapped_up": "Whether that is what `wrap_up` made of a part.",
}


def kinds() -> tuple[type[msgspec.Struct], ...]:
    """Every event of the log."""
    found: tuple[type[msgspec.Struct], ...] = get_args(events.Event)
    return found


def parts() -> tuple[type[msgspec.Struct], ...]:
    """What events hold."""
    return (Step, LlmCall, ToolCall, Decision, Refusal, PoolVerdict, events.Usage)


def page() -> str:
    """The whole page."""
    told = [_one(kind, f"`{kind.__struct_config__.tag}`: {kind.__name__}") for kind in kinds()]
    inside = [_one(kind, kind.__name__) for kind in parts()]
    return (
        f"# Events of the log\n\n{prose(events)}\n\nEach is one JSON object with its kind under "
        "`type`. New fields have defaults, so that old logs stay readable.\n\n"
        + "\n".join(told)
        + "\n## What they hold\n\n"
        + "\n".join(inside)
    )


def _one(kind: type[msgspec.Struct], title: str) -> str:
    said = entries(kind)
    rows = [
        (
            code(field.encode_name),
            readable(field.type),
            default(field),
            unit(field.encode_name),
            said.get(field.name) or _USUAL.get(field.name, ""),
        )
        for field in msgspec.structs.fields(kind)
    ]
    head = ("field", "type", "default", "unit", "meaning")
    return f"### {title}\n\n{prose(kind)}\n\n{table(head, rows)}"
