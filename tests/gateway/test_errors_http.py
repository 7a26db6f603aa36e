"""Every error has a status, and none leaks."""

import inspect

import pytest

from steelyard import errors
from steelyard.errors import (
    NoFeasiblePoolError,
    PoolOverloadedError,
    PoolUnavailableError,
    SteelyardError,
)
from steelyard.gateway.errors_http import (
    ERROR_RESPONSES,
    RequestError,
    error_response,
    forget_frames,
)


def _leaves() -> list[type[SteelyardError]]:
    every = [
        one
        for _, one in inspect.getmembers(errors, inspect.isclass)
        if issubclass(one, SteelyardError)
    ]
    return [one for one in every if not any(issubclass(o, one) and o is not one for o in every)]


@pytest.mark.parametrize("leaf", _leaves())
def test_every_leaf_of_the_hierarchy_has_a_row_of_its_own(leaf: type[SteelyardError]) -> None:
    status, kind = ERROR_RESPONSES[leaf]
    assert 400 <= status < 600
    assert kind


def test_an_error_without_a_row_gets_the_one_of_its_base() -> None:
    class NewPoolError(PoolUnavailableError):
        pass

    assert error_response(NewPoolError("x")).status == 503


def test_retry_after_is_whole_seconds_and_at_least_one() -> None:
    response = error_response(PoolOverloadedError("full", retry_after_s=0.01))
    assert (b"retry-after", b"1") in response.headers


def test_a_step_that_only_a_queue_makes_late_is_told_when_to_come_back() -> None:
    error = NoFeasiblePoolError("late")
    assert (b"x-should-retry", b"false") in error_response(error).headers
    error.retry_after_s = 1.2
    assert error_response(error).headers == [(b"retry-after", b"2")]


def test_clients_are_told_not_to_repeat_what_was_repeated() -> None:
    assert (b"x-should-retry", b"false") in error_response(PoolUnavailableError("x")).headers


def test_a_request_error_names_its_field() -> None:
    error = RequestError("n = 0: too small", param="n")
    assert error_response(error).body == {
        "error": {
            "message": "n = 0: too small",
            "type": "invalid_request_error",
            "param": "n",
            "code": "invalid_request",
        }
    }


def test_errors_that_cause_each_other_are_forgotten_once() -> None:
    first, second = ValueError("first"), KeyError("second")
    for error, cause in ((first, None), (second, first), (first, second)):
        with pytest.raises(type(error)):
            raise error from cause
    forget_frames(first)
    assert (first.__cause__, second.__cause__) == (second, first)
    assert (first.__traceback__, second.__traceback__) == (None, None)
