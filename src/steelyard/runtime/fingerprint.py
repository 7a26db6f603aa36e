"""Is it the same question? A short hash of whatever a step asks for."""

import hashlib
from typing import Any

import msgspec

from steelyard.errors import ConfigError

_DIGEST_BYTES = 8


def fingerprint(asked: Any, step: str) -> str:  # noqa: ANN401 - JSON is any value
    """Hash what a step asks for; equal JSON has an equal hash, in every process and release.

    Args:
        asked: JSON values.
        step: Name of the step, for the message.

    Returns:
        16 hexadecimal digits.

    Raises:
        ConfigError: It is no JSON.

    >>> fingerprint({"a": 1, "b": [2]}, "s") == fingerprint({"b": [2], "a": 1}, "s")
    True
    """
    try:
        body = msgspec.json.encode(asked, order="deterministic")
    except (TypeError, RecursionError, OverflowError, ValueError) as error:
        raise ConfigError(
            f"step {step} asks for what is no JSON ({error}); a step is recorded and asked for "
            "again after a crash, so give it numbers, texts, lists and dicts"
        ) from error
    return hashlib.blake2b(body, digest_size=_DIGEST_BYTES).hexdigest()
