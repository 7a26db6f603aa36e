"""Where does a prompt begin like another one? Cumulative hashes at message boundaries.

The policy sends a step where most of its prompt is cached, so it needs prefixes that are equal
exactly when the prompts begin equally. The hash is the same in every process and release that
keeps this file, since recorded events carry it.

Token counts here are estimates, one token per four bytes of UTF-8 (English text has about 4.2 in
common tokenizers, code about 3); the engine counts, and the measured number goes on the books.
"""

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec

_BYTES_PER_TOKEN = 4
# Chat templates wrap every message in markers and its role.
_TOKENS_PER_MESSAGE = 4
# An image or sound costs what its encoder makes of it, not what its base64 text is long.
_TOKENS_PER_MEDIA = 256
# A completion prompt has no messages; blocks of this size are its boundaries.
_BLOCK_BYTES = 4096
_MASK_63_BITS = (1 << 63) - 1


class Prefixes(msgspec.Struct, frozen=True, kw_only=True):
    """Boundaries of a prompt.

    Attributes:
        hashes: One per boundary, over the model and everything up to there; 63 bits.
        tokens: Estimated tokens up to each boundary, ascending.
        input_tokens: Estimated length of the whole prompt.
    """

    hashes: tuple[int, ...]
    tokens: tuple[int, ...]
    input_tokens: int


def chat_prefixes(
    model: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]]
) -> Prefixes:
    """Which prefixes does a chat have?

    Args:
        model: Name of the model; caches of two models have nothing in common.
        messages: Messages of the OpenAI wire.
        tools: Tool definitions; templates put them before the first message.

    Returns:
        One boundary per message.

    >>> hello = {"role": "user", "content": "Hello"}
    >>> one = chat_prefixes("m", [hello], [])
    >>> two = chat_prefixes("m", [hello, {"role": "assistant", "content": "Hi"}], [])
    >>> one.hashes[0] == two.hashes[0], one.tokens[0] == two.tokens[0]
    (True, True)
    """
    head = _canonical(tools) if tools else b""
    tokens = _tokens(len(head))
    parts: list[tuple[bytes, int]] = []
    for message in messages:
        tokens += _TOKENS_PER_MESSAGE + _message_tokens(message)
        parts.append((_canonical(message), tokens))
    return _cumulative(model, head, parts)


def text_prefixes(model: str, prompt: str) -> Prefixes:
    """Which prefixes does a completion prompt have?

    Args:
        model: Name of the model.
        prompt: The text.

    Returns:
        One boundary per 4096 bytes, and one at the end.

    >>> text_prefixes("m", "x" * 5000).tokens
    (1024, 1250)
    """
    text = prompt.encode()
    starts = range(0, max(len(text), 1), _BLOCK_BYTES)
    blocks = [text[start : start + _BLOCK_BYTES] for start in starts]
    ends = [start + len(block) for start, block in zip(starts, blocks, strict=True)]
    parts = [(block, _tokens(end)) for block, end in zip(blocks, ends, strict=True)]
    return _cumulative(model, b"", parts)


def key_hash(model: str, key: str) -> int:
    """Hash of a key that requests of one session or user share; no boundary of a prompt has it.

    Args:
        model: Name of the model.
        key: The key.
    """
    digest = hashlib.blake2b(digest_size=8, person=b"affinity")
    _add(digest, model.encode())
    _add(digest, key.encode())
    return int.from_bytes(digest.digest(), "big") & _MASK_63_BITS


def _cumulative(model: str, head: bytes, parts: Iterable[tuple[bytes, int]]) -> Prefixes:
    if head:
        digest = hashlib.blake2b(digest_size=8)
        _add(digest, model.encode())
        _add(digest, head)
    else:
        digest = _begun(model).copy()
    hashes: list[int] = []
    tokens: list[int] = []
    for part, tokens_so_far in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
        hashes.append(int.from_bytes(digest.digest(), "big") & _MASK_63_BITS)
        tokens.append(tokens_so_far)
    input_tokens = tokens[-1] if tokens else 0
    return Prefixes(hashes=tuple(hashes), tokens=tuple(tokens), input_tokens=input_tokens)


@lru_cache(maxsize=64)
def _begun(model: str) -> hashlib.blake2b:
    """The digest up to the first message, without tools."""
    digest = hashlib.blake2b(digest_size=8)
    _add(digest, model.encode())
    _add(digest, b"")
    return digest


def _add(digest: hashlib.blake2b, part: bytes) -> None:
    # The length goes first, so that no two lists of parts run into the same bytes.
    digest.update(len(part).to_bytes(8, "big") + part)


_canonical = msgspec.json.Encoder(order="sorted").encode


def _tokens(size_bytes: int) -> int:
    return -(-size_bytes // _BYTES_PER_TOKEN)


def _message_tokens(message: dict[str, Any]) -> int:
    content = message.get("content")
    calls = message.get("tool_calls")
    tokens = _tokens(len(_canonical(calls))) if calls else 0
    if isinstance(content, str):
        # Most texts are ASCII, whose length is known without a copy.
        return tokens + _tokens(len(content) if content.isascii() else len(content.encode()))
    for part in content or ():
        text = part.get("text")
        tokens += _tokens(len(text.encode())) if isinstance(text, str) else _TOKENS_PER_MEDIA
    return tokens
