"""What is read along of an answer that is handed on: a few fields, the rest is skipped."""

from typing import Any

import msgspec


class RelayedDelta(msgspec.Struct, gc=False):
    """A piece of a message, or a whole one."""

    content: Any = None
    tool_calls: Any = None


class RelayedChoice(msgspec.Struct, gc=False):
    """One of the answers."""

    delta: RelayedDelta | None = None
    message: RelayedDelta | None = None
    text: Any = None
    finish_reason: Any = None


class RelayedObject(msgspec.Struct, gc=False):
    """An event of a stream, or a whole answer."""

    choices: list[RelayedChoice] | None = None
    usage: Any = None
    error: Any = None


read_object = msgspec.json.Decoder(RelayedObject).decode
