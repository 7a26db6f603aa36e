"""Cores of the engines, and of the process beside them."""

import os
import sys

import pytest

from steelyard.pools.engine.replicas import come_back_to, keep_off

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the system cannot say")


def test_the_engines_cores_are_left_to_them_and_taken_back() -> None:
    before = os.sched_getaffinity(0)
    engines = {max(before)}
    try:
        keep_off(engines)
        assert os.sched_getaffinity(0) == (before - engines or before)
        come_back_to(engines)
        assert os.sched_getaffinity(0) == before
    finally:
        os.sched_setaffinity(0, before)


def test_a_process_whose_engines_take_every_core_stays_where_it_is() -> None:
    before = os.sched_getaffinity(0)
    keep_off(before)
    assert os.sched_getaffinity(0) == before
