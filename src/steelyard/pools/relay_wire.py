"""What is read along of an answer that is handed on: a few fields, the rest is skipped."""

import json
from typing import Any

import msgspec


class RelayedDelta(msgspec.Struct, gc=False):
    """A piece of a message, or a whole one."""

    content: Any = None
    tool_calls: Any = None
    # Thoughts, which are paid for as texts are. Some servers write them under both names.
    reasoning_content: Any = None
    reasoning: Any = None


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


def as_strict_json(data: bytes) -> bytes:
    r"""The same object in JSON that every reader takes, where common clients would read the text.

    Servers in JavaScript cut texts between the two halves of a character, those in Python write
    `NaN` for a probability that is none, and some put a byte order mark in front.

    Args:
        data: What was no JSON to `read_object`.

    Returns:
        JSON that `read_object` takes; nothing where it is none to anybody.

    >>> as_strict_json(b'{"choices":[{"text":"\\ud83d"}],"x":NaN}')
    b'{"choices": [{"text": "?"}], "x": null}'
    """
    try:
        document: object = json.loads(data, parse_constant=lambda _: None)
        strict = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
        read_object(strict)
    except (ValueError, RecursionError, msgspec.DecodeError):
        return b""
    return strict
