"""The reference of /metrics, from the families that are shown there and from what sets them."""

import ast
import inspect
from typing import NamedTuple

from docs_site.docstrings import prose
from docs_site.tables import code, table
from steelyard.gateway import metrics
from steelyard.gateway.metrics import Metrics
from steelyard.gateway.prometheus import Family

_SETTERS = frozenset(("add", "cell", "histogram", "set", "observe"))


class Metric(NamedTuple):
    """One family as people see it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    told: str


def found() -> list[Metric]:
    """Every metric of a gateway, in the order of their definition."""
    labels = _labels()
    made: list[Metric] = []
    for attribute, value in vars(Metrics()).items():
        if isinstance(value, Family):
            head, kind = [*value.lines()][:2]
            name, _, told = head.removeprefix("# HELP ").partition(" ")
            keys = tuple(sorted(labels.get(attribute, set())))
            made.append(Metric(name, kind.split()[-1], keys, told))
    return made


def page() -> str:
    """The whole page."""
    rows = [
        (code(one.name), one.kind, ", ".join(code(key) for key in one.labels), one.told)
        for one in found()
    ]
    return (
        f"# Metrics\n\n`GET /metrics` shows them in Prometheus' text format. {prose(metrics)}\n\n"
        f"{table(('metric', 'kind', 'labels', 'meaning'), rows)}\n"
        "Histograms have `_bucket`, `_sum` and `_count`. What never happened has no series.\n"
    )


def _labels() -> dict[str, set[str]]:
    """Label names by the attribute that holds the family: the keywords where it is set."""
    keys: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(inspect.getsource(metrics))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        family = node.func.value
        if node.func.attr in _SETTERS and isinstance(family, ast.Attribute):
            keys.setdefault(family.attr, set()).update(
                word.arg for word in node.keywords if word.arg is not None
            )
    return keys
