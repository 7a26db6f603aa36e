"""`@tool` and `@task`: how agent developers say what a step or an agent is.

Light on purpose: tool workers import the user's module, and this with it.
"""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from steelyard.errors import ConfigError

# The context that a task is handed; TaskContext, which this light module must not import.
C = TypeVar("C")
P = ParamSpec("P")
R = TypeVar("R")

_DEFAULT_TIMEOUT_S = 60.0


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
        self.__doc__ = function.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here, without a step."""
        return self._function(*args, **kwargs)

    def arguments(self, *args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        """The arguments of a call by name, as workers get them."""
        bound = inspect.signature(self._function).bind(*args, **kwargs)
        return dict(bound.arguments)


class AgentTask(Generic[C, P, R]):
    """An agent: an async function whose LLM calls and tools are steps.

    Args:
        function: Takes a TaskContext first; arguments and result are JSON values.
        name: Name of the agent in the log and in reports.
    """

    def __init__(self, function: Callable[Concatenate[C, P], Awaitable[R]], name: str) -> None:
        self.function = function
        self.name = name
        self.__doc__ = function.__doc__


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
    *, name: str | None = None
) -> Callable[[Callable[Concatenate[C, P], Awaitable[R]]], AgentTask[C, P, R]]:
    """Make an async function an agent.

    Args:
        name: Name of the agent; the function's name by default.

    Returns:
        The decorator.
    """

    def decorate(
        function: Callable[Concatenate[C, P], Awaitable[R]],
    ) -> AgentTask[C, P, R]:
        return AgentTask(function, name or str(getattr(function, "__name__", "agent")))

    return decorate
