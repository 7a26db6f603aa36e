"""The Steelyard-* headers: which task and step a request is, and what became of it.

Request headers:

- `Steelyard-Task`: id of the task; else the trace id of a W3C `traceparent`; else the request is a
  task of its own. Letters, digits and `._:-`, at most 128 of them.
- `Steelyard-Agent`, `Steelyard-Step`: names under which sizes and times are learned.
- `Steelyard-Deadline`: when the task must be done, as seconds from now or as an RFC 3339 time.
- `Steelyard-Budget-Usd`: what the whole task may cost.
  The first request of a task sets both for good: a client that sends `Steelyard-Deadline: 30` with
  every request of a run means 30 s for the run.
- `Steelyard-On-Miss`: `run_late` or `refuse`, when no pool can meet the deadline.
- `Steelyard-Priority`: -10 to 10; among requests that wait, each point counts as 6 s less of slack.
- `Idempotency-Key: TASK/STEP_ID` beside `Steelyard-Task: TASK`: the caller numbers its steps and
  wants the answer kept in the event log (Steelyard's own task runtime does). A step that has an
  answer there gets it again, without running. Other keys are ignored.
- `Steelyard-Journal: FENCE ATTEMPT PATH FINGERPRINT`: sent by Steelyard's own workers beside the
  former: number of the task's lease (`-` for none), number of the attempt, place of the step in the
  program, hash of what it asks.

Response headers:

- `Steelyard-Task`: the task, also where the gateway made it up.
- `Steelyard-Pool`, `Steelyard-Replica`: where the step ran; replicas are counted from 0.
- `Steelyard-Predicted-S`: predicted seconds from placement to the end of the answer.
- `Steelyard-Reason`: why it went there, in words.
- `Steelyard-Cost-Usd`: what the answer cost, not rounded; a streamed answer tells it in its last
  event instead.
- `Retry-After`, `Retry-After-Ms`: with 429 and 503, when another try can help.
- `x-should-retry`: `false` where none can, or where the gateway has tried already.
"""

import datetime as dt
import math
import re
from functools import lru_cache
from typing import get_args

import msgspec

from steelyard.domain.decision import Decision
from steelyard.domain.task import OnMiss
from steelyard.gateway.errors_http import RequestError
from steelyard.gateway.exchange import Exchange

TASK_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")
NAME = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,126}[\x21-\x7e])?")
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}.*"
)
_STEP_NUMBER = re.compile(r"[0-9]{1,9}")
_JOURNAL = re.compile(r"(-|[0-9]{1,18}) ([0-9]{1,9}) ([a-z0-9_.]{1,200}) ([0-9a-f]{16})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_MAX_HEADER_CHARS = 512
_MAX_PRIORITY = 10
_ON_MISS: tuple[OnMiss, ...] = get_args(OnMiss)


class TaskHeaders(msgspec.Struct, frozen=True, kw_only=True):
    """What the headers of one request say.

    Attributes:
        task_id: The task; None where the request is a task of its own.
        task_is_hint: Whether the task is the trace of a `traceparent`, which says nothing of keys.
        agent: Name of the agent.
        step: Name of the step; None where none was sent.
        step_id: Number of the step, where the caller counts; None otherwise.
        deadline_after_s: Seconds from now to the deadline.
        deadline_s: Absolute deadline, seconds since 1970.
        budget_usd: Budget of the whole task.
        on_miss: What to do when no pool can meet the deadline; None leaves it to the gateway.
        priority: Each point counts as 6 s less of slack among those that wait.
        attempt: Number of the step's first attempt in this request.
        path: Place of the step in a durable task's program; empty elsewhere.
        fingerprint: Hash of what the step asks, where the caller sent it.
        fence: Number of the task's lease; None outside of durable tasks.
    """

    task_id: str | None = None
    task_is_hint: bool = False
    agent: str = "unnamed"
    step: str | None = None
    step_id: int | None = None
    deadline_after_s: float | None = None
    deadline_s: float | None = None
    budget_usd: float | None = None
    on_miss: OnMiss | None = None
    priority: int = 0
    attempt: int = 0
    path: str = ""
    fingerprint: str = ""
    fence: int | None = None


NOTHING = TaskHeaders()
_NAMES = frozenset(
    (
        *(b"steelyard-task", b"traceparent", b"steelyard-agent", b"steelyard-step"),
        *(b"steelyard-deadline", b"steelyard-budget-usd", b"steelyard-on-miss"),
        *(b"steelyard-priority", b"idempotency-key", b"steelyard-journal"),
    )
)


def says_anything(exchange: Exchange) -> bool:
    """Does a request have any of the headers that tell of its task?"""
    return exchange.headers.has_any(_NAMES)


def task_headers(exchange: Exchange) -> TaskHeaders:
    """What do the headers of a request say about its task?

    Args:
        exchange: The request.

    Returns:
        The headers, checked.

    Raises:
        RequestError: A header is malformed; the message names it and its value.
    """
    if not says_anything(exchange):
        return NOTHING
    task_id = _matching(exchange, "Steelyard-Task", TASK_ID, "1-128 letters, digits and ._:-")
    trace = _TRACEPARENT.fullmatch(exchange.header(b"traceparent") or "")
    on_miss = exchange.header(b"steelyard-on-miss")
    if on_miss is not None and on_miss not in _ON_MISS:
        raise _wrong("Steelyard-On-Miss", on_miss, " or ".join(_ON_MISS))
    deadline_after_s, deadline_s = _deadline(exchange.header(b"steelyard-deadline"))
    printable = "1-128 printable ASCII characters"
    journal = _matching(exchange, "Steelyard-Journal", _JOURNAL, "what Steelyard's workers send")
    fence, attempt, path, fingerprint = (journal or "- 0  ").split(" ")
    return TaskHeaders(
        # A malformed traceparent is ignored, as W3C Trace Context section 3.2 demands.
        task_id=task_id or (trace.group(1) if trace else None),
        task_is_hint=task_id is None and trace is not None,
        agent=_matching(exchange, "Steelyard-Agent", NAME, printable) or "unnamed",
        step=_matching(exchange, "Steelyard-Step", NAME, printable),
        step_id=_step_id(task_id, exchange.header(b"idempotency-key")),
        deadline_after_s=deadline_after_s,
        deadline_s=deadline_s,
        budget_usd=_budget(exchange.header(b"steelyard-budget-usd")),
        on_miss=on_miss,
        priority=_priority(exchange.header(b"steelyard-priority")),
        attempt=int(attempt),
        path=path,
        fingerprint=fingerprint,
        fence=None if fence == "-" else int(fence),
    )


def decision_lines(task_id: str, decision: Decision) -> bytes:
    """What do the response headers say about a placement?

    Args:
        task_id: The task.
        decision: The placement.

    Returns:
        Header lines, each with its end, safe to send.
    """
    return b"steelyard-task: %b%b%.3f%b" % (
        task_id.encode() if task_id.isalnum() and task_id.isascii() else header_value(task_id),
        _place_lines(decision.pool, decision.replica),
        decision.predicted_finish_s,
        _reason_line(decision.reason),
    )


def cost_line(cost_usd: float) -> bytes:
    """The header line that says what an answer cost; not rounded."""
    return f"steelyard-cost-usd: {cost_usd!r}\r\n".encode()


def header_value(text: str) -> bytes:
    r"""Make any text safe as a header value: one line, Latin-1, at most 512 characters.

    >>> header_value("cheapest\r\nSet-Cookie: a=b")
    b'cheapest Set-Cookie: a=b'
    """
    return _CONTROL.sub(" ", text)[:_MAX_HEADER_CHARS].strip().encode("latin-1", "replace")


@lru_cache(maxsize=1024)
def _place_lines(pool: str, replica: int) -> bytes:
    """What stands between a task's id and its predicted end; the same again and again."""
    lines = b"\r\nsteelyard-pool: %b\r\nsteelyard-replica: %d\r\nsteelyard-predicted-s: "
    return lines % (header_value(pool), replica)


@lru_cache(maxsize=1024)
def _reason_line(reason: str) -> bytes:
    return b"\r\nsteelyard-reason: %b\r\n" % header_value(reason)


def _matching(exchange: Exchange, name: str, pattern: re.Pattern[str], allowed: str) -> str | None:
    value = exchange.header(name.lower().encode())
    if value is not None and not pattern.fullmatch(value):
        raise _wrong(name, value, allowed)
    return value


def _step_id(task_id: str | None, key: str | None) -> int | None:
    task, slash, number = (key or "").rpartition("/")
    if task_id is None or not slash or task != task_id or not _STEP_NUMBER.fullmatch(number):
        return None
    return int(number)


def _deadline(value: str | None) -> tuple[float | None, float | None]:
    """Seconds from now, or an absolute time; at most one of the two."""
    if value is None:
        return None, None
    allowed = "seconds from now above 0, or an RFC 3339 time such as 2026-11-22T10:00:00Z"
    seconds = _number(value)
    if seconds is not None:
        if seconds <= 0.0:
            raise _wrong("Steelyard-Deadline", value, allowed)
        return seconds, None
    try:
        moment = dt.datetime.fromisoformat(value)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise _wrong("Steelyard-Deadline", value, allowed)
    return None, moment.timestamp()


def _budget(value: str | None) -> float | None:
    if value is None:
        return None
    budget_usd = _number(value)
    if budget_usd is None or budget_usd < 0.0:
        raise _wrong("Steelyard-Budget-Usd", value, "an amount in USD of 0 or more")
    return budget_usd


def _priority(value: str | None) -> int:
    priority = _number(value or "0")
    if priority is None or priority != int(priority) or abs(priority) > _MAX_PRIORITY:
        raise _wrong("Steelyard-Priority", value or "", "a whole number from -10 to 10")
    return int(priority)


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in value else None


def _wrong(name: str, value: str, allowed: str) -> RequestError:
    msg = f"header {name} = {value[:80]!r} is not valid; send {allowed}"
    return RequestError(msg, param=name)
