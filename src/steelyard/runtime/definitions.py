"""`@tool` and `@task`: how agent developers say what a step or an agent is.

Light on purpose: tool workers import the user's module, and this with it.
"""

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import (
    Any,
    Concatenate,
    Generic,
    NewType,
    ParamSpec,
    TypeVar,
    get_type_hints,
)

from steelyard.domain.agent import AgentLimit
from steelyard.errors import ConfigError

# The context that a task is handed; TaskContext, which this light module must not import.
C = TypeVar("C")
P = ParamSpec("P")
R = TypeVar("R")

_DEFAULT_TIMEOUT_S = 60.0
_DEFAULT_WRAP_UP_S = 2.0

# Declare a parameter of this type, with the default NO_KEY, and the tool gets its step's key.
IdempotencyKey = NewType("IdempotencyKey", str)
NO_KEY = IdempotencyKey("")


class Tool(Generic[P, R]):
    """A function that runs as a step of its own, in another process.

    Calling it runs the function right here, as any function; `ctx.tool` makes it a step.

    Args:
        function: A function at the top level of an importable module; arguments and result are
            JSON values.
        timeout_s: Seconds after which the call is killed.
        memory_bytes: Memory that it may use; 0 for no limit of its own.
    """

    def __init__(self, function: Callable[P, R], timeout_s: float, memory_bytes: int) -> None:
        if "<" in function.__qualname__ or "." in function.__qualname__:
            raise ConfigError(
                f"tool {function.__qualname__} is not at the top level of {function.__module__}; "
                "workers could not import it: move it out of the function or class"
            )
        self._function = function
        self.name = f"{function.__module__}:{function.__name__}"
        self.step_name = function.__name__
        self.timeout_s = timeout_s
        self.memory_bytes = memory_bytes
        self._key_parameter = _key_parameter(function)
        self.__doc__ = function.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here, without a step."""
        return self._function(*args, **kwargs)

    def arguments(self, *args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        """The arguments of a call by name, as workers get them."""
        bound = inspect.signature(self._function).bind(*args, **kwargs)
        return dict(bound.arguments)

    def key_argument(self, key: str) -> dict[str, Any]:
        """The step's idempotency key as an argument, where the function takes one."""
        return {} if self._key_parameter is None else {self._key_parameter: key}


class NamedTool:
    """A tool that is known by its name alone, of an MCP server for instance.

    Args:
        name: `mcp:POOL/TOOL` for a tool of an MCP server; `module:function` for a function that
            tool workers can import.
        timeout_s: Seconds after which the call is given up; the pool may allow less.
    """

    def __init__(self, name: str, timeout_s: float = _DEFAULT_TIMEOUT_S) -> None:
        _, colon, inside = name.partition(":")
        if not colon or not inside:
            raise ConfigError(
                f"tool {name!r} is no name of a tool; write mcp:POOL/TOOL for a tool of an MCP "
                "server, or module:function"
            )
        self.name = name
        self.step_name = re.split(r"[/:]", name)[-1]
        self.timeout_s = timeout_s
        self.memory_bytes = 0

    def arguments(self, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON is any value
        """The arguments of a call by name."""
        return kwargs

    def key_argument(self, key: str) -> dict[str, Any]:
        """Nothing: such a tool gets the key of its step beside its arguments, if at all."""
        return {}


def _key_parameter(function: Callable[..., Any]) -> str | None:
    """The parameter of type IdempotencyKey; None when there is none."""
    try:
        hints: Mapping[str, Any] = get_type_hints(function)
    except NameError:
        # A hint that is only there for type checkers; then none of ours is meant to be found.
        hints = getattr(function, "__annotations__", {})
    return next((name for name, hint in hints.items() if hint is IdempotencyKey), None)


class AgentTask(Generic[C, P, R]):
    """An agent: an async function whose LLM calls and tools are steps.

    Args:
        function: Takes a TaskContext first; arguments and result are JSON values.
        name: Name of the agent in the log and in reports.
        limit: How many of its tasks may run and start.
        wrap_up: Takes a TaskContext; makes a result of what is recorded when the deadline comes
            or the budget ends. None lets the task fail then.
        wrap_up_s: Seconds before the deadline that are left to it.
    """

    def __init__(
        self,
        function: Callable[Concatenate[C, P], Awaitable[R]],
        name: str,
        limit: AgentLimit | None = None,
        wrap_up: Callable[[C], Awaitable[Any]] | None = None,
        wrap_up_s: float = _DEFAULT_WRAP_UP_S,
    ) -> None:
        self.function = function
        self.name = name
        self.limit = limit or AgentLimit()
        self.wrap_up = wrap_up
        self.wrap_up_s = wrap_up_s if wrap_up is not None else 0.0
        self.__doc__ = function.__doc__

    def limited(self, limit: AgentLimit) -> "AgentTask[C, P, R]":
        """The same agent with another limit."""
        return AgentTask(self.function, self.name, limit, self.wrap_up, self.wrap_up_s)

    def arguments(self, *args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        """The arguments of a run by name, as they are recorded."""
        bound = inspect.signature(self.function).bind(None, *args, **kwargs)
        return dict(list(bound.arguments.items())[1:])


def tool(
    *, timeout_s: float = _DEFAULT_TIMEOUT_S, memory_bytes: int = 0
) -> Callable[[Callable[P, R]], Tool[P, R]]:
    """Make a function a tool.

    Args:
        timeout_s: Seconds after which a call is killed.
        memory_bytes: Memory that it may use; 0 for no limit of its own.

    Returns:
        The decorator.
    """

    def decorate(function: Callable[P, R]) -> Tool[P, R]:
        return Tool(function, timeout_s, memory_bytes)

    return decorate


def task(
    *,
    name: str | None = None,
    limit: AgentLimit | None = None,
    wrap_up: Callable[[Any], Awaitable[Any]] | None = None,
    wrap_up_s: float = _DEFAULT_WRAP_UP_S,
) -> Callable[[Callable[Concatenate[C, P], Awaitable[R]]], AgentTask[C, P, R]]:
    """Make an async function an agent.

    Args:
        name: Name of the agent; the function's name by default.
        limit: How many of its tasks may run at once and start in a time, over all workers.
        wrap_up: Makes a result of what is recorded when the deadline comes or the budget ends.
        wrap_up_s: Seconds before the deadline that are left to `wrap_up`.

    Returns:
        The decorator.
    """

    def decorate(
        function: Callable[Concatenate[C, P], Awaitable[R]],
    ) -> AgentTask[C, P, R]:
        known = name or str(getattr(function, "__name__", "agent"))
        return AgentTask(function, known, limit, wrap_up, wrap_up_s)

    return decorate
