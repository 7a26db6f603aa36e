"""A span, before anybody encodes it."""

from fractions import Fraction
from typing import Literal

import msgspec

AttributeValue = str | bool | int | float | tuple[int, ...]
SpanKind = Literal["internal", "client"]
_NANO = 1_000_000_000


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Something that took time, and what is known of it.

    Attributes:
        trace_id: 32 hex digits.
        span_id: 16 hex digits.
        parent_span_id: The span that asked for it; empty for a root.
        name: What is done, of few different values.
        kind: `client` where a pool was asked, else `internal`.
        start_ns: Nanoseconds since 1970, or since the start of a simulation.
        end_ns: The same of its end.
        attributes: By name; see `steelyard.telemetry.names`.
        error_code: Stable code of its error; empty when it went well.
        linked_span_id: A span of `linked_trace_id` that it belongs to beside its parent; empty
            without one.
        linked_trace_id: See there.
    """

    trace_id: str
    span_id: str
    parent_span_id: str
    name: str
    kind: SpanKind
    start_ns: int
    end_ns: int
    attributes: dict[str, AttributeValue]
    error_code: str = ""
    linked_span_id: str = ""
    linked_trace_id: str = ""


def nanoseconds(t_s: float) -> int:
    """Which nanosecond is nearest to a time?

    Without the error of a product of floats, so that a reader who divides by 1e9 as a whole number
    gets the time back to the last bit.

    Args:
        t_s: Seconds.

    >>> nanoseconds(1_763_890_000.1234567) / 1_000_000_000 == 1_763_890_000.1234567
    True
    """
    return round(Fraction(t_s) * _NANO)
