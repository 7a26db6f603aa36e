"""W3C Trace Context: whose span a request continues, and the ids of our own spans.

Ids are drawn from names, not from chance: processes that each record a part of a task, and a
recorded log read later, then give the same tree without telling each other anything.

Source: W3C Trace Context (www.w3.org/TR/trace-context, section 3.2), read 2026-11-23.
"""

import hashlib
import re

import msgspec

_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2}).*"
)
_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")


class TraceParent(msgspec.Struct, frozen=True):
    """The span that asks.

    Attributes:
        trace_id: 32 hex digits.
        span_id: 16 hex digits.
        sampled: Whether the caller keeps its spans.
    """

    trace_id: str
    span_id: str
    sampled: bool = True

    def header(self) -> str:
        """It as the value of a `traceparent` header."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


def parse_traceparent(header: str) -> TraceParent | None:
    """Which span does a `traceparent` header name? None where it is malformed: it is then ignored.

    Args:
        header: Its value.

    >>> parse_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").span_id
    '00f067aa0ba902b7'
    >>> parse_traceparent("00-none-of-it-01") is None
    True
    """
    found = _TRACEPARENT.fullmatch(header)
    if found is None:
        return None
    trace_id, span_id, flags = found.groups()
    return TraceParent(trace_id, span_id, bool(int(flags, 16) & 1))


def trace_id_of(task_id: str) -> str:
    """Which trace is a task, where no request told? Its own name, if it is a trace's id.

    Args:
        task_id: The task.

    Returns:
        32 hex digits.

    >>> trace_id_of("4bf92f3577b34da6a3ce929d0e0e4736")
    '4bf92f3577b34da6a3ce929d0e0e4736'
    >>> len(trace_id_of("fix-7"))
    32
    """
    if _TRACE_ID.fullmatch(task_id):
        return task_id
    return hashlib.blake2b(task_id.encode(), digest_size=16, person=b"steelyard-trace").hexdigest()


def span_id_of(*names: str | int) -> str:
    """Which id has the span of a task, of a step (task, step), of an attempt (and its number)?

    Args:
        names: What tells it from all others.

    Returns:
        16 hex digits.
    """
    key = "\x00".join(str(one) for one in names).encode()
    return hashlib.blake2b(key, digest_size=8, person=b"steelyard-span").hexdigest()
