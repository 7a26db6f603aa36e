"""Agentic hints of others: which session a request says it belongs to, in whose words ever.

A session becomes the task, where the request names no task of ours: its cost, steps and parents
are kept together. It is also a key of affinity: requests with the same key are drawn to the replica
that served the last one, unless another one holds more of the prompt itself. `prompt_cache_key`,
`safety_identifier` and `user` are keys of affinity alone: many tasks share one of them.

All hints are handed on to the pool untouched. Names and sources are in docs/compatibility.md.
"""

import hashlib
from typing import Any, cast

import msgspec

from steelyard.gateway.exchange import Exchange
from steelyard.gateway.headers import TASK_ID, TaskHeaders
from steelyard.gateway.prefix import Prefixes, key_hash

_Json = dict[str, Any]

# Of a whole run first, of the session of one of its agents second: the run is the task.
_TASK_HEADERS = (
    *(b"x-dynamo-parent-session-id", b"x-dynamo-session-id", b"x-claude-code-session-id"),
    *(b"x-parent-session-id", b"x-session-id", b"session-id", b"x-session-affinity"),
    *(b"x-smg-routing-key", b"helicone-session-id"),
)
# The other way round: agents of one run have prompts of their own.
_KEY_HEADERS = (
    *(b"x-dynamo-session-id", b"x-claude-code-agent-id", b"x-claude-code-session-id"),
    *_TASK_HEADERS[4:],
)
# Asked first: most requests have none of them.
_ANY_HEADER = frozenset(_TASK_HEADERS)
_TASK_FIELDS = (
    ("vllm_xargs", "agentic_context", "task_id"),
    ("vllm_xargs", "agentic_context", "program_id"),
    ("nvext", "agent_context", "parent_session_id"),
    ("nvext", "agent_context", "session_id"),
    ("agent_hint", "parent_session_id"),
    ("agent_hint", "session_id"),
    ("agent_hints", "workflow_id"),
    ("session_id",),
    ("litellm_session_id",),
    ("metadata", "session_id"),
    ("metadata", "litellm_session_id"),
)
_KEY_FIELDS = (
    _TASK_FIELDS[1],
    _TASK_FIELDS[3],
    _TASK_FIELDS[5],
    *_TASK_FIELDS[6:],
)
_ROOTS = frozenset(path[0] for path in _TASK_FIELDS)
_KEYS = ("prompt_cache_key", "safety_identifier", "user")
_ANY_FIELD = _ROOTS | frozenset(_KEYS)
_MAX_CHARS = 512


class Hints(msgspec.Struct, frozen=True, kw_only=True):
    """What a request says of its session.

    Attributes:
        task: Name of the run that it belongs to; None for none.
        key: Name of the chain of requests whose prompts go on from one another; None for none.
    """

    task: str | None = None
    key: str | None = None


_NOTHING = Hints()


def names_session(exchange: Exchange) -> bool:
    """Does a header of a request name a session in others' words?"""
    return exchange.headers.has_any(_ANY_HEADER)


def names_anyone(document: _Json) -> bool:
    """Does a field of a request name a session, or a key of affinity?"""
    return not _ANY_FIELD.isdisjoint(document)


def hints_of(exchange: Exchange, document: _Json) -> Hints:
    """Which session does a request name?

    Args:
        exchange: The request.
        document: Its body.

    Returns:
        The names as they were sent. One that cannot be a name is ignored: hints are for others, and
        never a reason to refuse.
    """
    if names_session(exchange):
        task = _header(exchange, _TASK_HEADERS)
        if task is not None:
            return Hints(task=task, key=_header(exchange, _KEY_HEADERS) or task)
    if _ROOTS.isdisjoint(document):
        return _NOTHING
    task = _field(document, _TASK_FIELDS)
    return Hints(task=task, key=_field(document, _KEY_FIELDS) or task)


def with_session(headers: TaskHeaders, hints: Hints) -> TaskHeaders:
    """The headers of a request whose session stands for the task, where they name none.

    Args:
        headers: What the request says in our words, and its key for it: a hint comes after both.
        hints: What it says in others'.
    """
    if hints.task is None or headers.task_id is not None:
        return headers
    return msgspec.structs.replace(headers, task_id=task_of(hints.task))


def task_of(session: str) -> str:
    """Which task id stands for a session?

    >>> task_of("run-42:researcher"), task_of("für alle")
    ('run-42:researcher', 'session:93a94ecfefa93dab')
    """
    if TASK_ID.fullmatch(session):
        return session
    return "session:" + hashlib.blake2b(session.encode(), digest_size=8).hexdigest()


def with_affinity(prefixes: Prefixes, model: str, hints: Hints, document: _Json) -> Prefixes:
    """The prompt's boundaries with the key of affinity in front, as a first boundary of one token.

    So a replica that served the key is preferred to one that knows nothing of the request, and one
    that holds a part of the prompt is preferred to both.

    Args:
        prefixes: Boundaries of the prompt.
        model: Name of the model.
        hints: What the request says of its session.
        document: Its body.
    """
    key: object = hints.key
    for name in _KEYS:
        if key is None:
            key = document.get(name)
    if not isinstance(key, str) or not _is_name(key) or not prefixes.hashes:
        return prefixes
    return Prefixes(
        hashes=(key_hash(model, key), *prefixes.hashes),
        tokens=(1, *prefixes.tokens),
        input_tokens=prefixes.input_tokens,
    )


def _header(exchange: Exchange, names: tuple[bytes, ...]) -> str | None:
    sent = exchange.headers
    for name in names:
        if name in sent and _is_name(value := sent.first(name)):
            return value
    return None


def _field(document: _Json, paths: tuple[tuple[str, ...], ...]) -> str | None:
    for path in paths:
        found: object = document
        for part in path:
            found = cast("_Json", found).get(part) if isinstance(found, dict) else None  # pyright: ignore[reportUnnecessaryCast]
        if isinstance(found, str) and _is_name(found):
            return found
    return None


def _is_name(value: str) -> bool:
    return 0 < len(value) <= _MAX_CHARS and value.isprintable()
