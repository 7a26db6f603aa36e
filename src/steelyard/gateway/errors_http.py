"""Which HTTP status does an error get? One table; the rest of the code knows no status.

The body has OpenAI's shape, `{"error": {"message", "type", "param", "code"}}`, and `code` is the
error's stable code. Choices worth a word:

- a deadline that no pool can meet is 503 with the earliest finish, not 504: nothing was tried.
  Where only a queue is in the way, `Retry-After` says when it will be short enough;
- a missing budget is 402, since 429 makes clients wait and try again, which cannot help; a spent
  cap of providers is 429 with `Retry-After`, since the next hour or day renews it;
- a prompt that fits no pool is 400 `context_length_exceeded`, an unknown model 404
  `model_not_found`, both as OpenAI answers;
- where another try cannot help, or the gateway has tried already, `x-should-retry: false` tells
  OpenAI's clients, which otherwise retry 409, 429 and every 5xx.
"""

import math
from typing import Any

import msgspec

from steelyard import errors
from steelyard.errors import (
    NoFeasiblePoolError,
    PoolOverloadedError,
    SpendCapError,
    SteelyardError,
)

Headers = list[tuple[bytes, bytes]]

# error class -> (HTTP status, OpenAI's type); the nearest base class with a row counts.
ERROR_RESPONSES: dict[type[SteelyardError], tuple[int, str]] = {
    errors.SteelyardError: (500, "server_error"),
    errors.ConfigError: (500, "server_error"),
    errors.MissingExtraError: (501, "server_error"),
    errors.SandboxUnavailableError: (501, "server_error"),
    errors.FigureError: (500, "server_error"),
    errors.WorkloadError: (500, "server_error"),
    errors.NoFeasiblePoolError: (503, "server_error"),
    errors.BudgetExceededError: (402, "insufficient_quota"),
    errors.SpendCapError: (429, "insufficient_quota"),
    errors.PoolUnavailableError: (503, "server_error"),
    errors.PoolOverloadedError: (429, "rate_limit_error"),
    errors.PoolTimeoutError: (504, "server_error"),
    errors.PoolRejectedError: (400, "invalid_request_error"),
    errors.PoolProtocolError: (502, "server_error"),
    errors.StepFailedError: (502, "server_error"),
    errors.ToolFailedError: (500, "server_error"),
    errors.DeadlineExceededError: (504, "server_error"),
    errors.NondeterminismError: (409, "invalid_request_error"),
    errors.LeaseLostError: (409, "invalid_request_error"),
    errors.SignalTimeoutError: (408, "invalid_request_error"),
    errors.TaskNotFoundError: (404, "invalid_request_error"),
    errors.StoreBusyError: (503, "server_error"),
    errors.SchemaMismatchError: (500, "server_error"),
    errors.InfeasiblePlanError: (422, "invalid_request_error"),
    errors.SolverError: (500, "server_error"),
    errors.SteelyardBugError: (500, "server_error"),
}


class RequestError(SteelyardError):
    """The HTTP request itself is wrong; it never reached a pool and never leaves the gateway.

    Args:
        message: The field, its value, and what is allowed.
        status: HTTP status.
        param: The field at fault, None for the request as a whole.
        code: OpenAI's code where it has one.
        headers: Further response headers, e.g. `Allow`.
    """

    code = "invalid_request"
    kind = "invalid_request_error"

    def __init__(
        self,
        message: str,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        headers: Headers | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.openai_code = code
        self.headers: Headers = headers or []


class LimitError(RequestError):
    """429: the caller's key has asked too fast, or has no money left.

    Args:
        message: The limit, its value, and what to do.
        code: OpenAI's code.
        kind: OpenAI's type: `requests`, `tokens` or `insufficient_quota`.
        headers: When to come back, or that it is in vain.
    """

    def __init__(self, message: str, *, code: str, kind: str, headers: Headers) -> None:
        super().__init__(message, status=429, code=code, headers=headers)
        self.kind = kind


class StoreAwayError(RequestError):
    """503: nothing can be recorded now, so nothing is begun.

    Args:
        where: The store.
        away_s: Seconds for which it has been away.
    """

    code = "store_busy"
    kind = "server_error"

    def __init__(self, where: str, away_s: float) -> None:
        super().__init__(
            f"event log {where} has been away for {away_s:.0f} s; send the request again",
            status=503,
            headers=[(b"retry-after", b"2")],
        )


class ErrorResponse(msgspec.Struct, frozen=True, kw_only=True):
    """An error as the client will see it."""

    status: int
    body: dict[str, Any]
    headers: Headers

    def encoded(self) -> bytes:
        """The body as JSON."""
        return msgspec.json.encode(self.body)


def error_response(error: SteelyardError) -> ErrorResponse:
    """What does the client get to see of an error?

    Args:
        error: Any error that Steelyard raises on purpose.

    Returns:
        Status, body and headers.
    """
    if isinstance(error, RequestError):
        code = error.openai_code or error.code
        body = _body(str(error), error.kind, error.param, code)
        return ErrorResponse(status=error.status, body=body, headers=error.headers)
    status, kind = _row(error)
    headers: Headers = []
    wait_s = _retry_after_s(error)
    if wait_s is not None:
        headers.append((b"retry-after", str(max(1, math.ceil(wait_s))).encode()))
    elif status >= 500 or status == 409:
        # Those that can be repeated were: the dispatcher tries again before it gives up.
        headers.append((b"x-should-retry", b"false"))
    return ErrorResponse(
        status=status, body=_body(str(error), kind, None, error.code), headers=headers
    )


def _retry_after_s(error: SteelyardError) -> float | None:
    if isinstance(error, (PoolOverloadedError, NoFeasiblePoolError, SpendCapError)):
        return error.retry_after_s
    return None


def _row(error: SteelyardError) -> tuple[int, str]:
    for base in type(error).__mro__:
        row = ERROR_RESPONSES.get(base)
        if row is not None:
            return row
    return ERROR_RESPONSES[SteelyardError]


def _body(message: str, kind: str, param: str | None, code: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def too_large(size_bytes: int, max_bytes: int) -> RequestError:
    """The refusal of a body that is too long.

    Args:
        size_bytes: How much of it is known to come.
        max_bytes: The limit.
    """
    # The unread rest of the body would be taken for the next request.
    return RequestError(
        f"the request body has {size_bytes} bytes or more, the limit is {max_bytes}",
        status=413,
        code="request_too_large",
        headers=[(b"connection", b"close")],
    )


def forget_frames(error: BaseException) -> None:
    """Let go of the frames that an error and its causes went through.

    They hold the error and all of its request, until the garbage collector comes for them.

    Args:
        error: An error that was handled.
    """
    one: BaseException | None = error
    # One without frames was not raised, or was seen: errors that are raised again may form a ring.
    while one is not None and one.__traceback__ is not None:
        one.__traceback__ = None
        one = one.__cause__ or one.__context__
