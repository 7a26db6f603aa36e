"""The reference of errors: every class, its stable code, its HTTP status, what a caller can do."""

import inspect

from docs_site.docstrings import prose
from docs_site.tables import code, table
from steelyard import errors
from steelyard.errors import SteelyardError
from steelyard.gateway import errors_http
from steelyard.gateway.errors_http import error_response


def classes() -> list[type[SteelyardError]]:
    """Every error of `steelyard.errors`, base classes first."""
    found = [
        one
        for _, one in inspect.getmembers(errors, inspect.isclass)
        if issubclass(one, SteelyardError)
    ]
    return sorted(found, key=lambda one: (len(one.__mro__), one.__mro__[1].__name__, one.__name__))


def page() -> str:
    """The whole page."""
    rows = [
        (
            code(one.__name__),
            code(one.__mro__[1].__name__),
            code(one.code),
            str(error_response(_made(one)).status),
            "yes" if one.retryable else "no",
            prose(one),
        )
        for one in classes()
    ]
    head = ("class", "is a", "code", "HTTP", "retryable", "meaning")
    drawn = (inspect.getdoc(errors) or "").split("```")[1]
    return (
        "# Errors\n\nEvery error that Steelyard raises on purpose. The class says what the caller "
        "can do. A message is one line: the thing, its value, the reason, the cure.\n\n"
        f"```text{drawn}```\n\n## Classes\n\n{table(head, rows)}\n{_http()}\n{_exit_codes()}"
    )


def _http() -> str:
    own = [errors_http.RequestError, errors_http.LimitError]
    rows = [(code(one.__name__), prose(one)) for one in own]
    return (
        "## Over HTTP\n\nThe body has OpenAI's shape: "
        '`{"error": {"message", "type", "param", "code"}}`.\n\n'
        f"{(inspect.getdoc(errors_http) or '').partition(chr(10) * 2)[2]}\n\n"
        f"Two more are of the gateway alone:\n\n{table(('class', 'meaning'), rows)}"
    )


def _exit_codes() -> str:
    rows = [
        ("0", "It went well."),
        ("1", "`run`: the task failed. `doctor`: a check failed."),
        ("2", "One of the errors above, in one line on standard error, or a wrong option."),
        ("130", "Ctrl-C."),
        ("141", "Whoever read the output has gone."),
    ]
    return f"## Exit codes of `steelyard`\n\n{table(('code', 'when'), rows)}"


def _made(kind: type[SteelyardError]) -> SteelyardError:
    if issubclass(kind, errors.PoolOverloadedError):
        return kind("", 1.0)
    return kind("")
