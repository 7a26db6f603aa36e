"""The reference of the Python interface of agents: what `steelyard` exports, and the context."""

import inspect
from typing import Any, NewType

import steelyard
from docs_site.docstrings import entries, prose
from docs_site.tables import code, table
from steelyard.domain.agent import AgentLimit
from steelyard.runtime import definitions
from steelyard.runtime.context import TaskContext
from steelyard.runtime.open_tasks import TaskLimits


def exported() -> list[str]:
    """Every public name of the package but its version."""
    return [name for name in steelyard.__all__ if not name.startswith("__")]


def members(kind: type) -> list[str]:
    """Public methods and properties of a class, as written."""
    return [
        name
        for name, value in vars(kind).items()
        if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, property))
    ]


def page() -> str:
    """The whole page."""
    parts = ["# Python\n", f"{prose(steelyard)}\n", "## `import steelyard`\n"]
    parts += [_one(f"steelyard.{name}", getattr(steelyard, name)) for name in exported()]
    parts += ["## TaskContext\n", f"{prose(TaskContext)}\n"]
    for name in members(TaskContext):
        parts.append(_one(f"ctx.{name}", inspect.getattr_static(TaskContext, name)))
    parts.append("## Limits\n")
    for kind in (TaskLimits, AgentLimit):
        told = [(code(name), text) for name, text in entries(kind).items()]
        shown = table(("field", "meaning"), told)
        parts.append(f"### {kind.__name__}\n\n{prose(kind)}\n\n{shown}")
    return "\n".join(parts)


def _comment(name: str) -> str:
    """What stands above the assignment of a name that can have no docstring."""
    lines = inspect.getsource(definitions).splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith(f"{name} = "))
    while at and not lines[at].startswith("#"):
        at -= 1
    return lines[at].removeprefix("# ")


def _one(title: str, thing: Any) -> str:  # noqa: ANN401 - whatever is exported
    if isinstance(thing, str | NewType):
        return f"### `{title}`\n\n{_comment(title.rpartition('.')[2])}\n"
    if isinstance(thing, property):
        return f"### `{title}`\n\n{prose(thing)}\n"
    rows = [(code(name), text) for name, text in entries(thing, "Args").items()]
    shown = f"\n{table(('argument', 'meaning'), rows)}" if rows else ""
    call = "()" if inspect.isroutine(thing) else ""
    return f"### `{title}{call}`\n\n{prose(thing)}\n{shown}"
