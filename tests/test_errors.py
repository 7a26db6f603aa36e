import inspect
import re

import pytest

from steelyard import errors
from steelyard.errors import (
    PoolOverloadedError,
    PoolTimeoutError,
    PoolUnavailableError,
    SteelyardError,
    StoreBusyError,
)


def _classes() -> dict[str, type[BaseException]]:
    found = inspect.getmembers(errors, inspect.isclass)
    own = [(name, kind) for name, kind in found if kind.__module__ == errors.__name__]
    return {name: kind for name, kind in own if issubclass(kind, BaseException)}


def _drawn() -> dict[str, tuple[str | None, str]]:
    """Class to (parent, remark), as the tree in the docstring draws them."""
    tree: dict[str, tuple[str | None, str]] = {}
    line_up: dict[int, str] = {}
    for line in (errors.__doc__ or "").split("```")[1].splitlines():
        found = re.match(r"^([│├└─ ]*)(\w+)\s*(.*)$", line)
        if found is None:
            continue
        depth = len(found.group(1)) // 4
        tree[found.group(2)] = (line_up.get(depth - 1), found.group(3))
        line_up[depth] = found.group(2)
    return tree


def test_every_class_stands_in_the_tree_below_its_parent() -> None:
    drawn = _drawn()
    assert set(drawn) == set(_classes())
    for name, kind in _classes().items():
        base = kind.__bases__[0]
        parent = base.__name__ if base.__module__ == errors.__name__ else None
        assert drawn[name][0] == parent, name


def test_the_tree_says_which_errors_are_worth_another_attempt() -> None:
    for name, (_, remark) in _drawn().items():
        kind = _classes()[name]
        if issubclass(kind, SteelyardError) and name != "SteelyardError":
            assert kind.retryable is ("retryable" in remark), name
    retryable = {
        name
        for name, kind in _classes().items()
        if issubclass(kind, SteelyardError) and kind.retryable
    }
    assert retryable >= {
        one.__name__
        for one in (PoolOverloadedError, PoolTimeoutError, PoolUnavailableError, StoreBusyError)
    }


def test_codes_are_unique_and_stable_in_form() -> None:
    kinds = [kind for kind in _classes().values() if issubclass(kind, SteelyardError)]
    codes = [kind.code for kind in kinds]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)
    # Each class has one of its own: an inherited code would make two kinds one in the log.
    assert all("code" in vars(kind) for kind in kinds)


@pytest.mark.parametrize("name", sorted(_classes()))
def test_every_class_is_documented_in_one_line_at_least(name: str) -> None:
    assert (_classes()[name].__doc__ or "").strip()


def test_an_overloaded_pool_tells_when_to_come_back() -> None:
    error = PoolOverloadedError("pool a is full; try again in 2.5 s", retry_after_s=2.5)
    assert (str(error), error.retry_after_s) == ("pool a is full; try again in 2.5 s", 2.5)
