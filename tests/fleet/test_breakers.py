"""What fails again and again is left out: a replica alone, or its pool."""

from steelyard.fleet.breakers import Breakers

STARTS = [0, 2, 3]
UP = bytearray(b"\1\1\1")


def breakers() -> Breakers:
    two = Breakers()
    two.add()
    two.add()
    return two


def fail(some: Breakers, replica: int, t_s: float, *, alone: bool = False) -> None:
    some.failed((0, replica), t_s - 0.1, t_s, alone=alone)


def test_a_replica_that_fails_alone_is_left_out_and_its_pool_stays_open_to_steps() -> None:
    some = breakers()
    for t_s in (1.0, 2.0, 3.0, 4.0):
        fail(some, 0, t_s)
    assert some.trusted(UP, STARTS, 4.1) == b"\0\1\1"
    assert some.closed(4.1) == [True, True]
    # It is tried again later, and left out for longer when it fails again.
    assert some.trusted(UP, STARTS, 14.1) == UP
    fail(some, 0, 14.2)
    assert some.trusted(UP, STARTS, 30.0) == b"\0\1\1"
    some.works((0, 0))
    assert some.trusted(UP, STARTS, 30.0) is UP


def test_replicas_that_fail_in_turn_open_the_breaker_of_their_pool() -> None:
    some = breakers()
    for t_s, replica in ((1.0, 0), (2.0, 1), (3.0, 0)):
        fail(some, replica, t_s)
    assert some.closed(3.1) == [False, True]


def test_the_only_replica_that_is_up_is_its_pool() -> None:
    some = breakers()
    for t_s in (1.0, 2.0, 3.0):
        fail(some, 0, t_s, alone=True)
    assert some.closed(3.1) == [False, True]
    # Nothing would be gained by hiding all that a pool has.
    assert some.trusted(bytearray(b"\1\0\1"), STARTS, 3.1) == b"\1\0\1"


def test_replicas_that_are_gone_are_forgotten() -> None:
    some = breakers()
    for t_s in (1.0, 2.0, 3.0):
        fail(some, 1, t_s)
    some.shrink(0, 1)
    assert some.trusted(UP, STARTS, 3.1) is UP


def opened() -> Breakers:
    """The first pool's breaker, and those of its replicas, are open until 8 s."""
    some = breakers()
    for t_s in (1.0, 2.0, 3.0):
        fail(some, 0, t_s, alone=True)
    return some


def test_after_its_pause_a_breaker_lets_one_step_in_and_the_others_wait_for_its_answer() -> None:
    some = opened()
    assert some.closed(8.0) == [True, True]
    some.placed((0, 0), 8.0)
    assert some.closed(8.0) == [False, True]
    assert some.closed(12.9) == [False, True]
    some.works((0, 0))
    assert some.closed(9.0) == [True, True]


def test_a_probe_that_fails_doubles_the_pause() -> None:
    some = opened()
    some.placed((0, 0), 8.0)
    some.failed((0, 0), 8.0, 8.5, alone=True)
    assert some.closed(18.4) == [False, True]
    assert some.closed(18.5) == [True, True]


def test_a_probe_that_says_nothing_leaves_its_place_to_the_next_step() -> None:
    some = opened()
    some.placed((0, 0), 8.0)
    # Another one, of before the fault, says nothing of the probe.
    some.said_nothing((0, 0), 0.5, 8.5)
    assert some.closed(8.5) == [False, True]
    some.said_nothing((0, 0), 8.0, 8.6)
    assert some.closed(8.6) == [True, True]
    some.placed((0, 0), 8.7)
    assert some.closed(8.8) == [False, True]


def test_a_probe_that_runs_on_gets_another_one_beside_it() -> None:
    some = opened()
    some.placed((0, 0), 8.0)
    assert some.closed(13.0) == [True, True]
    some.placed((0, 0), 13.0)
    assert some.closed(13.0) == [False, True]


def test_a_replica_that_failed_alone_is_tried_by_one_step_at_a_time() -> None:
    some = breakers()
    for t_s in (1.0, 2.0, 3.0):
        fail(some, 0, t_s)
    assert some.trusted(UP, STARTS, 8.0) == UP
    some.placed((0, 0), 8.0)
    assert some.trusted(UP, STARTS, 8.1) == b"\0\1\1"
    some.placed((0, 1), 8.2)
    some.said_nothing((0, 0), 8.0, 8.3)
    assert some.trusted(UP, STARTS, 8.4) == UP


def test_steps_of_a_breaker_that_never_opened_are_no_probes() -> None:
    some = breakers()
    fail(some, 0, 1.0, alone=True)
    some.placed((0, 0), 2.0)
    assert some.closed(2.1) == [True, True]
