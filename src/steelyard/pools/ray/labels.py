"""Which nodes may a replica run on? Ray's label selectors, checked before Ray is asked.

Ray lets an actor with a selector that no node has wait for ever; so this is looked at first.
Source: https://docs.ray.io/en/latest/ray-core/scheduling/labels.html
"""

import math
from collections.abc import Mapping, Sequence

import msgspec

Selector = Mapping[str, str]
_MOST_SHOWN = 6


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A node of a cluster.

    Attributes:
        node_id: Its id in Ray.
        labels: Its labels, without Ray's own.
        cores: Cores that Ray may give away on it.
        leaves_in_s: Seconds until it goes, by a notice; None where there is none.
    """

    node_id: str
    labels: dict[str, str]
    cores: float
    leaves_in_s: float | None = None


def value_matches(wanted: str, value: str | None) -> bool:
    """Does a label have a wanted value? A label that is missing is not equal to anything.

    Args:
        wanted: A value, `!value`, `in(a,b)` or `!in(a,b)`.
        value: What the node says; None where it says nothing.

    >>> value_matches("in(aws, gcp)", "gcp"), value_matches("!spot", "spot")
    (True, False)
    >>> value_matches("!spot", None), value_matches("spot", None)
    (True, False)
    """
    without = wanted.removeprefix("!")
    allowed = {without}
    if without.startswith("in(") and without.endswith(")"):
        allowed = {one.strip() for one in without[3:-1].split(",")}
    return (value in allowed) != wanted.startswith("!")


def selects(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Has a node all labels of a selector?"""
    return all(value_matches(wanted, labels.get(key)) for key, wanted in selector.items())


def room(nodes: Sequence[NodeFacts], selectors: Sequence[Selector], cores: float) -> int:
    """How many replicas have room on nodes that may be used, were nothing else there?

    Args:
        nodes: All nodes; those with a notice do not count.
        selectors: The first one, and what to look for instead.
        cores: Cores of one replica.
    """
    return sum(
        math.floor(node.cores / cores + 1e-9)
        for node in nodes
        if node.leaves_in_s is None and any(selects(one, node.labels) for one in selectors)
    )


def why_no_room(nodes: Sequence[NodeFacts], selectors: Sequence[Selector], cores: float) -> str:
    """Why is there room for no replica, in one line?"""
    wanted = " or ".join(_told(one) for one in selectors)
    found = [node for node in nodes if any(selects(one, node.labels) for one in selectors)]
    if found and all(node.leaves_in_s is not None for node in found):
        return f"every node with {wanted} has been told to leave"
    if found:
        most = max(node.cores for node in found)
        return f"a replica takes {cores:g} cores, and no node with {wanted} has over {most:g}"
    kinds = sorted({_told(node.labels) for node in nodes})
    more = f" and {len(kinds) - _MOST_SHOWN} more" if len(kinds) > _MOST_SHOWN else ""
    there = "; ".join(kinds[:_MOST_SHOWN]) + more
    return f"no node has {wanted}; there are nodes with {there or 'no labels'}"


def _told(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={labels[key]}" for key in sorted(labels)) or "any labels"
