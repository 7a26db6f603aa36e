"""What every store must do, whatever database it is in."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.store.conftest import Open
from tests.store.postgres_server import PostgresServer

from steelyard.domain.agent import AgentLimit
from steelyard.domain.events import (
    CancelRequested,
    SignalSent,
    StepWaiting,
    TaskFinished,
    TaskPreempted,
    TaskResumed,
    TaskSubmitted,
)
from steelyard.domain.pool import PoolLimit
from steelyard.errors import ConfigError, StoreError
from steelyard.store.event_store import EventStore, read_store
from steelyard.store.group_writer import GroupWriter
from steelyard.store.open_store import open_store
from steelyard.store.sqlite_backend import SqliteBackend
from steelyard.store.sqlite_log import SqliteEventLog
from steelyard.store.tasks import Claim, Lease, Parking, Submission

ANY = {"a": AgentLimit()}


def _submit(store: EventStore, task_id: str, *, agent: str = "a", priority: int = 0) -> None:
    event = TaskSubmitted(t_s=1.0, task_id=task_id, agent=agent)
    store.submit(Submission(event=event, priority=priority)).result()


def _claim(
    store: EventStore,
    worker: str,
    *,
    count: int = 10,
    lease_s: float = 60.0,
    agents: dict[str, AgentLimit] | None = None,
) -> list[Lease]:
    wish = Claim(worker=worker, agents=agents or ANY, count=count, lease_s=lease_s, t_s=2.0)
    return store.claim(wish).result()


def _marker(task_id: str, t_s: float = 3.0) -> TaskPreempted:
    return TaskPreempted(t_s=t_s, task_id=task_id, cause="deadline")


_REFUSED: tuple[Callable[[EventStore], object], ...] = (
    lambda store: _submit(store, "a\0b"),
    lambda store: store.tasks(task_id="a\udc80"),
    lambda store: _submit(store, "t", agent="a\0b"),
    lambda store: store.task_with_key("a\0b"),
    lambda store: _submit(store, "t", priority=2**31),
    lambda store: store.tasks(task_id="a\0b"),
    lambda store: store.journal("a\0b"),
    lambda store: store.cost_usd("a\0b"),
    lambda store: store.cancel("a\0b", 1.0),
    lambda store: store.append(_marker("a\0b")),
)


def test_what_no_database_can_hold_is_refused_and_the_log_goes_on(open_one: Open) -> None:
    with open_one() as store:
        for ask in _REFUSED:
            with pytest.raises(ConfigError, match=r"does not fit|cannot be stored"):
                ask(store)
        _submit(store, "t", priority=2**31 - 1)
        assert [one.task_id for one in store.tasks().result()] == ["t"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_waits_for_ever_for_a_log_whose_thread_broke_off(tmp_path: Path) -> None:
    writer = GroupWriter(SqliteBackend(tmp_path / "log.db"))
    broken = writer.call(lambda _: 1 // 0)
    with pytest.raises(StoreError, match="broke off: ZeroDivisionError"):
        broken.result(10)
    with pytest.raises(StoreError, match="broke off"):
        writer.durable().result(10)
    with pytest.raises(StoreError, match="broke off"):
        writer.close()


def test_a_task_is_taken_once_with_its_journal(open_one: Open) -> None:
    with open_one() as one, open_one() as two:
        _submit(one, "t")
        leases = _claim(two, "w1")
        assert [(lease.task_id, lease.fence) for lease in leases] == [("t", 1)]
        assert leases[0].events == (TaskSubmitted(t_s=1.0, task_id="t", agent="a"),)
        assert _claim(one, "w2") == []


def test_higher_priority_goes_first_then_the_older_one(open_one: Open) -> None:
    with open_one() as store:
        for number, priority in enumerate([0, 5, 0, 5]):
            _submit(store, f"t{number}", priority=priority)
        order = [_claim(store, f"w{number}", count=1)[0].task_id for number in range(4)]
    assert order == ["t1", "t3", "t0", "t2"]


def test_a_lease_that_ran_out_is_taken_over_and_its_holder_can_write_no_more(
    open_one: Open,
) -> None:
    with open_one() as old, open_one() as new:
        _submit(old, "t")
        assert _claim(old, "w1", lease_s=0.05)[0].fence == 1
        old.append(_marker("t", 1.0), fence=1)
        old.durable().result()
        gives_up_s = time.monotonic() + 10.0
        while not (taken := _claim(new, "w2")):
            assert time.monotonic() < gives_up_s
        assert taken[0].fence == 2
        assert taken[0].events[-1] == TaskResumed(t_s=2.0, task_id="t", worker="w2", fence=2)
        # The first worker wakes up, and believes that it still holds the task.
        old.append(_marker("t", 2.0), fence=1)
        old.append(TaskFinished(t_s=2.0, task_id="t", status="succeeded"), fence=1)
        old.durable().result()
        assert old.is_lost("t", 1)
        new.append(_marker("t", 3.0), fence=2)
        new.durable().result()
        assert not new.is_lost("t", 2)
        marks = [one.t_s for one in new.journal("t").result() if isinstance(one, TaskPreempted)]
        assert marks == [1.0, 3.0]
        assert new.tasks().result()[0].state == "running"
        assert [held.fence for held in new.renew("w2", 60.0).result()] == [2]
        assert old.renew("w1", 60.0).result() == []


def test_a_renewed_lease_is_not_taken(open_one: Open) -> None:
    with open_one() as store:
        _submit(store, "t")
        _claim(store, "w1", lease_s=0.2)
        store.renew("w1", 60.0).result()
        time.sleep(0.25)
        assert _claim(store, "w2") == []


def test_a_worker_never_takes_its_own_task_a_second_time(open_one: Open) -> None:
    with open_one() as store:
        _submit(store, "t")
        _claim(store, "w1", lease_s=0.0)
        assert _claim(store, "w1") == []
        assert len(_claim(store, "w2")) == 1


def test_a_released_task_is_free_at_once(open_one: Open) -> None:
    with open_one() as store:
        _submit(store, "t")
        _claim(store, "w1")
        store.release("t", 1).result()
        assert _claim(store, "w2")[0].fence == 2


def test_the_end_of_a_task_ends_its_lease_in_the_same_transaction(open_one: Open) -> None:
    with open_one() as store:
        _submit(store, "t")
        _claim(store, "w1", lease_s=0.0)
        store.append(TaskFinished(t_s=4.0, task_id="t", status="failed"), fence=1)
        store.durable().result()
        assert [row.state for row in store.tasks().result()] == ["failed"]
        assert _claim(store, "w2") == []


def test_one_key_is_one_task(open_one: Open) -> None:
    with open_one() as store:
        for name in ("first", "second"):
            event = TaskSubmitted(t_s=1.0, task_id=name, agent="a")
            store.submit(Submission(event=event, key="order-7")).result()
        assert store.task_with_key("order-7").result() == "first"
        assert store.task_with_key("order-8").result() is None
        assert [row.task_id for row in store.tasks().result()] == ["first"]
        assert store.journal("second").result() == ()


def test_many_threads_submitting_one_key_make_one_task(open_one: Open) -> None:
    with open_one() as one, open_one() as two:

        def submit(store: EventStore, name: str) -> None:
            event = TaskSubmitted(t_s=1.0, task_id=name, agent="a")
            store.submit(Submission(event=event, key="k")).result()

        threads = [
            threading.Thread(target=submit, args=(store, f"{name}{number}"))
            for name, store in (("one", one), ("two", two))
            for number in range(10)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(one.tasks().result()) == 1


def test_limits_of_an_agent_hold_over_all_workers(open_one: Open) -> None:
    narrow = {"a": AgentLimit(max_running=2), "b": AgentLimit()}
    with open_one() as one, open_one() as two:
        for number in range(4):
            _submit(one, f"a{number}")
            _submit(one, f"b{number}", agent="b")
        first = [lease.task_id for lease in _claim(one, "w1", count=5, agents=narrow)]
        second = [lease.task_id for lease in _claim(two, "w2", count=5, agents=narrow)]
        assert first == ["a0", "b0", "a1", "b1", "b2"]
        assert second == ["b3"]
        one.append(TaskFinished(t_s=4.0, task_id="a0", status="succeeded"), fence=1)
        one.durable().result()
        assert [lease.task_id for lease in _claim(two, "w2", agents=narrow)] == ["a2"]


def test_no_more_tasks_start_in_a_time_than_allowed(open_one: Open) -> None:
    slow = {"a": AgentLimit(starts=2, per_s=600.0)}
    with open_one() as store:
        for number in range(4):
            _submit(store, f"t{number}")
        assert len(_claim(store, "w1", agents=slow)) == 2
        assert _claim(store, "w2", agents=slow) == []


def test_a_cancelled_task_that_nobody_began_ends_at_once(open_one: Open) -> None:
    with open_one() as store:
        _submit(store, "t")
        assert store.cancel("t", 5.0).result()
        assert not store.cancel("t", 6.0).result()
        assert store.journal("t").result()[1:] == (
            CancelRequested(t_s=5.0, task_id="t"),
            TaskFinished(t_s=5.0, task_id="t", status="cancelled"),
        )
        assert _claim(store, "w1") == []


def test_cancelling_reaches_children(open_one: Open) -> None:
    with open_one() as store:
        _submit(store, "t")
        child = TaskSubmitted(t_s=1.0, task_id="t.0", agent="a", parent="t")
        store.submit(Submission(event=child)).result()
        _claim(store, "w1")
        store.cancel("t", 5.0).result()
        held = store.renew("w1", 0.0).result()
    assert [(one.task_id, one.cancelled) for one in held] == [("t", True), ("t.0", True)]


def test_signals_are_counted_for_their_task(open_one: Open) -> None:
    with open_one() as one, open_one() as two:
        _submit(one, "t")
        _claim(one, "w1")
        two.append(SignalSent(t_s=5.0, task_id="t", name="go", value=[1]))
        two.durable().result()
        assert [held.signals for held in one.renew("w1", 0.0).result()] == [1]


def _park(store: EventStore, after_s: float | None = None, **values: Any) -> str:
    """Park the only task, which has lease 1, and tell its state."""
    store.park(Parking(task_id="t", fence=1, after_s=after_s, **values)).result()
    return store.tasks(task_id="t").result()[0].state


def test_a_parked_task_is_held_by_nobody_and_taken_when_its_time_has_come(open_one: Open) -> None:
    with open_one() as one, open_one() as two:
        _submit(one, "t")
        _claim(one, "w1", lease_s=0.0)
        assert _park(one, after_s=0.2) == "waiting"
        assert one.renew("w1", 60.0).result() == []
        assert _claim(two, "w2") == []
        gives_up_s = time.monotonic() + 10.0
        while not (taken := _claim(two, "w2")):
            assert time.monotonic() < gives_up_s
        assert (taken[0].fence, _claim(one, "w1")) == (2, [])


def test_a_task_is_parked_by_the_last_lease_alone(open_one: Open) -> None:
    with open_one() as store:
        _submit(store, "t")
        _claim(store, "w1", lease_s=0.0)
        assert _claim(store, "w2")[0].fence == 2
        assert _park(store) == "running"


def test_a_signal_wakes_a_parked_task(open_one: Open) -> None:
    with open_one() as one, open_one() as two:
        _submit(one, "t")
        _claim(one, "w1")
        assert _park(one, signals=0) == "waiting"
        two.append(SignalSent(t_s=5.0, task_id="t", name="go"))
        two.durable().result()
        assert [lease.task_id for lease in _claim(one, "w1")] == ["t"]


def test_tasks_that_wait_for_room_under_caps_are_woken_and_others_sleep_on(open_one: Open) -> None:
    with open_one() as store:
        for task_id, caps in (("capped", {"aws": 0.5}), ("asleep", {})):
            _submit(store, task_id)
            (lease,) = _claim(store, "w1")
            waiting = StepWaiting(
                t_s=2.0,
                task_id=task_id,
                step_id=0,
                path="0",
                kind="tool",
                name="n",
                fingerprint="f",
                until_s=9e9,
                caps=caps,
            )
            store.append(waiting, fence=lease.fence)
            store.park(Parking(task_id=task_id, fence=lease.fence, after_s=3600.0)).result()
        assert _claim(store, "w2") == []
        store.spend.wake().result()
        assert [lease.task_id for lease in _claim(store, "w2")] == ["capped"]


def test_a_signal_that_came_before_its_task_was_parked_is_not_missed(open_one: Open) -> None:
    with open_one() as store:
        _submit(store, "t")
        _claim(store, "w1")
        store.append(SignalSent(t_s=5.0, task_id="t", name="go"))
        assert _park(store, signals=0) == "queued"


def test_a_child_that_ended_before_its_parent_was_parked_is_not_missed(open_one: Open) -> None:
    with open_one() as store:
        _submit(store, "t")
        child = TaskSubmitted(t_s=1.0, task_id="t.0", agent="a", parent="t")
        store.submit(Submission(event=child)).result()
        _claim(store, "w1")
        store.append(TaskFinished(t_s=4.0, task_id="t.0", status="failed"), fence=1)
        assert _park(store, children=("t.0",)) == "queued"


def test_the_end_of_a_child_wakes_its_parent(open_one: Open) -> None:
    with open_one() as one, open_one() as two:
        _submit(one, "t")
        child = TaskSubmitted(t_s=1.0, task_id="t.0", agent="a", parent="t")
        one.submit(Submission(event=child)).result()
        _claim(one, "w1")
        assert _park(one, children=("t.0",)) == "waiting"
        two.append(TaskFinished(t_s=4.0, task_id="t.0", status="succeeded"), fence=1)
        two.durable().result()
        assert [lease.task_id for lease in _claim(one, "w2")] == ["t"]


def test_a_parked_task_that_is_cancelled_ends_at_once(open_one: Open) -> None:
    with open_one() as store:
        _submit(store, "t")
        _claim(store, "w1")
        assert _park(store) == "waiting"
        assert store.cancel("t", 5.0).result()
        assert store.tasks().result()[0].state == "cancelled"
        assert isinstance(store.journal("t").result()[-1], TaskFinished)


def test_a_cancellation_that_came_before_its_task_was_parked_is_not_missed(open_one: Open) -> None:
    with open_one() as store:
        _submit(store, "t")
        _claim(store, "w1")
        store.cancel("t", 5.0).result()
        assert _park(store) == "queued"


def test_many_parked_tasks_cost_a_claim_nothing(open_one: Open) -> None:
    with open_one() as store:
        for number in range(300):
            event = TaskSubmitted(t_s=1.0, task_id=f"p{number}", agent="a")
            store.submit(Submission(event=event))
        for lease in _claim(store, "w1", count=300):
            store.park(Parking(task_id=lease.task_id, fence=1))
        _submit(store, "t")
        assert [lease.task_id for lease in _claim(store, "w1")] == ["t"]
        assert len(store.tasks(state="waiting", limit=1000).result()) == 300


def _take(
    store: EventStore, names: list[str], limit: PoolLimit, lease_s: float = 60.0
) -> list[str]:
    return store.take_places(f"owner of {names[0]}", ("gpu", names), limit, lease_s).result()


def test_places_in_a_pool_are_counted_over_all_processes(open_one: Open) -> None:
    two_at_once = PoolLimit(max_running=2)
    with open_one() as one, open_one() as two:
        assert _take(one, ["a", "b", "c"], two_at_once) == ["a", "b"]
        assert _take(two, ["d"], two_at_once) == []
        # Asked again, as after a lost connection, it gives what it gave.
        assert _take(one, ["b", "c"], two_at_once) == ["b"]
        one.free_place("gpu", "a").result()
        assert _take(two, ["d", "e"], two_at_once) == ["d"]
        assert two.take_places("o", ("other", ["f"]), two_at_once, 60.0).result() == ["f"]


def test_places_of_a_process_that_died_are_free_when_their_lease_is_over(open_one: Open) -> None:
    alone = PoolLimit(max_running=1)
    with open_one() as dead, open_one() as living:
        assert _take(dead, ["a"], alone, lease_s=0.3) == ["a"]
        dead.renew_places("owner of a", 0.3).result()
        assert _take(living, ["b"], alone) == []
        gives_up_s = time.monotonic() + 10.0
        while _take(living, ["b"], alone) != ["b"]:
            assert time.monotonic() < gives_up_s


def test_no_more_steps_start_in_a_pool_in_a_time_than_allowed(open_one: Open) -> None:
    slow = PoolLimit(starts=2, per_s=600.0)
    with open_one() as store:
        assert _take(store, ["a"], slow) == ["a"]
        store.free_place("gpu", "a").result()
        assert _take(store, ["b", "c"], slow) == ["b"]
        assert _take(store, ["c"], PoolLimit(starts=2, per_s=1e-9)) == ["c"]


@given(
    operations=st.lists(
        st.tuples(st.sampled_from(["claim", "expire", "write", "end"]), st.integers(0, 2)),
        max_size=12,
    )
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_only_the_last_lease_ever_writes(
    operations: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    # The clock is ours here: leases run out when the test says so.
    now_s = 0.0
    path = tmp_path_factory.mktemp("model") / "log.db"
    with SqliteEventLog(path, lambda: now_s) as store:
        _submit(store, "t")
        fences: dict[int, int] = {}
        last, ended, expected = 0, False, 0
        for number, (operation, worker) in enumerate(operations):
            if operation == "expire":
                now_s += 100.0
            elif operation == "claim":
                for lease in _claim(store, f"w{worker}"):
                    assert lease.fence == last + 1
                    assert not ended
                    fences[worker] = last = lease.fence
            elif worker in fences:
                status = TaskFinished(t_s=1.0, task_id="t", status="succeeded")
                event = status if operation == "end" else _marker("t", float(number))
                store.append(event, fence=fences[worker])
                store.durable().result()
                allowed = fences[worker] == last
                assert store.is_lost("t", fences[worker]) != allowed
                expected += allowed
                ended = ended or (operation == "end" and allowed)
        written = store.journal("t").result()
    kinds = (TaskPreempted, TaskFinished)
    assert sum(isinstance(event, kinds) for event in written) == expected


def test_a_clock_that_jumps_ends_leases_early_or_late_and_never_lets_two_write(
    tmp_path: Path,
) -> None:
    now_s = 1_000_000.0
    with SqliteEventLog(tmp_path / "log.db", lambda: now_s) as store:
        _submit(store, "t")
        _claim(store, "w1")
        now_s -= 5000.0
        assert _claim(store, "w2") == []
        now_s += 10_000.0
        assert _claim(store, "w2")[0].fence == 2
        store.append(_marker("t"), fence=1)
        store.durable().result()
        assert store.is_lost("t", 1)


def test_a_database_that_goes_away_and_comes_back_loses_and_repeats_nothing(
    postgres: PostgresServer,
) -> None:
    with open_store(postgres.new_database()) as store:
        stopped = threading.Event()
        wanted = 0

        def restart() -> None:
            postgres.stop()
            stopped.set()
            postgres.start()

        restarting = threading.Thread(target=restart)
        while not stopped.is_set() or wanted % 50:
            store.append(_marker(f"t{wanted}", float(wanted)))
            wanted += 1
            if wanted == 200:
                restarting.start()
            if wanted % 7 == 0:
                store.durable().result()
        restarting.join()
        store.durable().result()
        assert [event.t_s for event in read_store(store)] == [float(n) for n in range(wanted)]


def test_a_database_that_takes_no_writes_is_away_until_it_takes_them_again(
    postgres: PostgresServer,
) -> None:
    """As after a failover, while the connection is still to the old primary."""
    psycopg = pytest.importorskip("psycopg")
    url = postgres.new_database()
    with open_store(url) as store, psycopg.connect(url, autocommit=True) as admin:
        _submit(store, "before")
        name = admin.info.dbname
        change = f"ALTER DATABASE {name} SET default_transaction_read_only ="
        admin.execute(f"{change} on")
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        store.append(_marker("before"))
        waiting = store.durable()
        gives_up_s = time.monotonic() + 30.0
        while store.away_s == 0.0:
            assert time.monotonic() < gives_up_s
            time.sleep(0.01)
        assert not waiting.done()
        admin.execute("SET default_transaction_read_only = off")
        admin.execute(f"{change} off")
        waiting.result(timeout=30.0)
        assert store.away_s == 0.0
        assert len(list(read_store(store))) == 2


def test_a_store_is_opened_while_others_write(open_one: Open) -> None:
    """The first opener makes the tables; later ones wait for nobody and stop nobody."""
    with open_one() as store:
        stop = threading.Event()

        def write() -> None:
            number = 0
            while not stop.is_set():
                _submit(store, f"t{number}")
                number += 1

        writing = threading.Thread(target=write)
        writing.start()
        try:
            for _ in range(10):
                with open_one() as other:
                    assert other.task_with_key("none").result() is None
        finally:
            stop.set()
            writing.join()
        store.durable().result()


def test_what_comes_in_together_is_taken_in_its_order(open_one: Open) -> None:
    """One group: rows of old and new leases, a signal beside the end, ids that are there twice."""
    with open_one() as store:
        for name in ("held", "ends", "lost"):
            _submit(store, name)
        _claim(store, "w1", lease_s=0.0)
        taken_over = _claim(store, "w2", count=1)
        assert taken_over[0].task_id == "held"
        submissions = [
            Submission(
                event=TaskSubmitted(t_s=float(number), task_id=name, agent="b"),
                worker="w1",
                lease_s=60.0,
            )
            for number, name in enumerate(["new", "new", "held", "other"])
        ]
        hold = threading.Event()
        entered = threading.Event()

        def wait() -> None:
            entered.set()
            hold.wait(10.0)

        # Whoever is told keeps the writer from its next group until all is in its queue.
        store.durable().add_done_callback(lambda _: wait())
        entered.wait(10.0)
        for name, fence in (("held", 1), ("ends", 1), ("held", 2), ("lost", 7)):
            store.append(_marker(name), fence=fence)
        store.append(SignalSent(t_s=4.0, task_id="ends", name="go"))
        store.append(TaskFinished(t_s=5.0, task_id="ends", status="succeeded"), fence=1)
        answers = [store.submit(one) for one in submissions]
        hold.set()
        leases = [answer.result() for answer in answers]
        assert [None if one is None else one.task_id for one in leases] == [
            "new",
            # The same worker asks again for what it has: as after a lost connection.
            "new",
            None,
            "other",
        ]
        assert store.is_lost("held", 1)
        assert store.is_lost("lost", 7)
        assert not store.is_lost("held", 2)
        assert [type(event).__name__ for event in store.journal("ends").result()] == [
            "TaskSubmitted",
            "TaskPreempted",
            "SignalSent",
            "TaskFinished",
        ]
        assert [event.t_s for event in store.journal("new").result()] == [0.0]
        states = {row.task_id: row.state for row in store.tasks().result()}
        assert states["ends"] == "succeeded"
        assert len(store.journal("held").result()) == 3


def test_a_group_that_is_sent_again_is_in_the_log_once(postgres: PostgresServer) -> None:
    """As after a connection that broke between the commit and its answer."""
    from steelyard.store.event_store import event_row  # noqa: PLC0415
    from steelyard.store.postgres_backend import PostgresBackend  # noqa: PLC0415 - an extra

    backend = PostgresBackend(postgres.new_database(), "writer")
    for rows in ([_marker("a")], [_marker("b"), _marker("c")]):
        number = len(rows)
        for _ in range(2):
            assert backend.write([event_row(row, None) for row in rows], number) == set()
    assert backend.execute("SELECT task_id FROM events ORDER BY seq") == [("a",), ("b",), ("c",)]
    backend.close()


def test_a_database_that_is_not_there_is_named_without_its_password() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError, match="postgresql://127.0.0.1/none is away") as caught:
        open_store("postgresql://me:secret@127.0.0.1:1/none")
    assert "secret" not in str(caught.value)
