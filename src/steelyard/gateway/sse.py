"""Server-sent events, as OpenAI streams them."""

from typing import Any

import msgspec

DONE = b"data: [DONE]\n\n"

_encoder = msgspec.json.Encoder()


def event(payload: dict[str, Any]) -> bytes:
    r"""One event of a stream.

    JSON has no bare line feed, so an event is one line whatever the payload holds.

    >>> event({"text": "a\nb"})
    b'data: {"text":"a\\nb"}\n\n'
    """
    return b"data: " + _encoder.encode(payload) + b"\n\n"
