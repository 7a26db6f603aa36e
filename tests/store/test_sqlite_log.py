import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.strategies import events

from steelyard.domain.events import BidChanged, Event, TaskSubmitted
from steelyard.errors import SchemaMismatchError, StoreError
from steelyard.store.event_log import MemoryEventLog
from steelyard.store.sqlite_backend import SqliteBackend
from steelyard.store.sqlite_log import SqliteEventLog, read_events

# Appends for ever; prints each number once `durable` says that it is safe.
_ENDLESS_WRITER = """
import sys
from pathlib import Path
from steelyard.domain.events import TaskSubmitted
from steelyard.store.sqlite_log import SqliteEventLog

log = SqliteEventLog(Path(sys.argv[1]))
group = int(sys.argv[2])
count = 0
while True:
    for _ in range(group):
        log.append(TaskSubmitted(t_s=float(count), task_id=f"t{count}", agent="a" * 300))
        count += 1
    log.durable().result()
    print(count, flush=True)
"""


def _bid(number: int) -> BidChanged:
    return BidChanged(t_s=float(number), pool="p", bid_usd_per_hour=0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def log_of_any_event(folder: Path) -> Iterator[SqliteEventLog]:
    with SqliteEventLog(folder / "any.db") as log:
        yield log


@given(appended=st.lists(events, min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_every_kind_of_event_is_read_as_it_was_written(
    appended: list[Event], log_of_any_event: SqliteEventLog
) -> None:
    path = log_of_any_event.path
    before = len(list(read_events(path)))
    for event in appended:
        log_of_any_event.append(event)
    log_of_any_event.durable().result()
    assert list(read_events(path))[before:] == appended
    connection = sqlite3.connect(path)
    kinds = connection.execute("SELECT kind FROM events ORDER BY seq").fetchall()
    connection.close()
    assert kinds[before:] == [(str(event.__struct_config__.tag),) for event in appended]


def test_events_go_on_where_the_file_ended(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    for number in range(2):
        with SqliteEventLog(path) as log:
            log.append(_bid(2 * number))
            log.append(_bid(2 * number + 1))
    assert [event.t_s for event in read_events(path)] == [0.0, 1.0, 2.0, 3.0]


def test_a_closed_log_says_so_and_may_be_closed_again(tmp_path: Path) -> None:
    log = SqliteEventLog(tmp_path / "log.db")
    log.close()
    log.close()
    with pytest.raises(StoreError, match="is closed"):
        log.append(_bid(1))
    with pytest.raises(StoreError, match="is closed"):
        log.durable().result()


def test_every_thread_finds_its_events_in_its_own_order(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with SqliteEventLog(path) as log:

        def append(thread: int) -> None:
            for number in range(200):
                log.append(TaskSubmitted(t_s=0.0, task_id=f"{thread}/{number}", agent="a"))
                if number % 50 == 0:
                    log.durable().result()

        threads = [threading.Thread(target=append, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    read = [event.task_id for event in read_events(path) if isinstance(event, TaskSubmitted)]
    assert len(read) == 800
    for thread_number in range(4):
        own = [task for task in read if task.startswith(f"{thread_number}/")]
        assert own == [f"{thread_number}/{number}" for number in range(200)]


def test_a_reader_sees_what_is_durable_while_the_writer_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with SqliteEventLog(path) as log:
        log.append(_bid(1))
        log.durable().result()
        assert list(read_events(path)) == [_bid(1)]
        log.append(_bid(2))
        log.durable().result()
        assert list(read_events(path)) == [_bid(1), _bid(2)]


async def test_a_waiter_that_gives_up_does_not_stop_the_log(tmp_path: Path) -> None:
    # asyncio.wrap_future cancels the future it wraps when its own task is cancelled.
    with SqliteEventLog(tmp_path / "log.db") as log:
        for number in range(200):
            log.append(_bid(number))
            waiting = asyncio.wrap_future(log.durable())
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        log.append(_bid(200))
        await asyncio.wait_for(asyncio.wrap_future(log.durable()), timeout=20.0)
    assert len(list(read_events(log.path))) == 201


@pytest.mark.parametrize("acknowledged", [1, 2, 5, 13, 40, 90])
@pytest.mark.parametrize("group", [1, 17])
def test_what_was_called_durable_survives_a_kill(
    acknowledged: int, group: int, tmp_path: Path
) -> None:
    path = tmp_path / "log.db"
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", _ENDLESS_WRITER, str(path), str(group)],
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout is not None
        for _ in range(acknowledged):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        # What it had printed before it died counts, too.
        told = [int(line) for line in writer.stdout.read().splitlines(keepends=True)[:-1]]
    last = max([acknowledged * group, *told])
    read = [event.t_s for event in read_events(path)]
    assert len(read) >= last
    assert read == [float(number) for number in range(len(read))]
    with SqliteEventLog(path) as log:
        log.append(_bid(0))
    assert len(list(read_events(path))) == len(read) + 1


def test_writers_in_several_processes_share_one_log(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    writers = [
        subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", _ENDLESS_WRITER, str(path), "3"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    told: list[int] = []
    for writer in writers:
        assert writer.stdout is not None
        for _ in range(20):
            writer.stdout.readline()
    for writer in writers:
        writer.kill()
        assert writer.stdout is not None
        rest = [int(line) for line in writer.stdout.read().splitlines(keepends=True)[:-1]]
        told.append(max([60, *rest]))
        writer.wait()
        writer.stdout.close()
    read = [event.t_s for event in read_events(path)]
    # Every writer counts from 0: what each was told to be safe is there, in its own order.
    for number in range(max(told)):
        assert read.count(float(number)) >= sum(1 for last in told if number < last)


def test_a_missing_log_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"gone\.db does not exist"):
        next(read_events(tmp_path / "gone.db"))


def test_an_empty_file_is_no_recorded_log_and_stays_empty(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    path.touch()
    with pytest.raises(SchemaMismatchError, match=r"empty\.db is empty"):
        next(read_events(path))
    assert path.stat().st_size == 0


def test_a_text_file_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("These are my notes, and no database.\n" * 100, encoding="utf-8")
    before = path.read_bytes()
    with pytest.raises(SchemaMismatchError, match=r"notes\.txt is no SQLite file"):
        SqliteEventLog(path)
    with pytest.raises(SchemaMismatchError, match=r"notes\.txt is no SQLite file"):
        next(read_events(path))
    assert path.read_bytes() == before


def test_the_database_of_another_program_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.executescript("PRAGMA application_id=77; CREATE TABLE mine (a);")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(SchemaMismatchError, match=r"other\.db is not a Steelyard event log"):
        SqliteEventLog(path)
    with pytest.raises(SchemaMismatchError, match=r"other\.db is not a Steelyard event log"):
        next(read_events(path))
    assert path.read_bytes() == before


def test_a_log_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with SqliteEventLog(path) as log:
        log.append(_bid(1))
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(SchemaMismatchError, match="version 99"):
        SqliteEventLog(path)
    with pytest.raises(SchemaMismatchError, match="version 99"):
        next(read_events(path))


def test_an_event_of_a_later_version_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with SqliteEventLog(path) as log:
        log.append(_bid(1))
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(
            "INSERT INTO events VALUES (2, 0.0, 'x', NULL, ?)", (b'{"type":"pool_painted"}',)
        )
    connection.close()
    with pytest.raises(SchemaMismatchError, match="pool_painted"):
        list(read_events(path))


@pytest.mark.parametrize("name", ["nowhere/log.db", "file/log.db"])
def test_a_folder_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"log\.db cannot be opened") as caught:
        SqliteEventLog(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be opened"):
        SqliteEventLog(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StoreError, match=r"log\.db cannot be opened"):
            SqliteEventLog(tmp_path / "log.db")
    finally:
        tmp_path.chmod(0o700)


def test_a_full_disk_fails_waiters_and_later_appends_and_spares_what_was_safe(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log.db"
    script = f"""
import resource
from pathlib import Path
from steelyard.domain.events import TaskSubmitted
from steelyard.errors import StoreError
from steelyard.store.sqlite_log import SqliteEventLog

resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
log = SqliteEventLog(Path({str(path)!r}))
event = TaskSubmitted(t_s=0.0, task_id="t", agent="a" * 1000)
safe = 0
try:
    while True:
        log.append(event)
        waiter = log.durable()
        waiter.result()
        safe += 1
except StoreError as error:
    print(safe, str(error), sep="|")
for again in (lambda: log.append(event), lambda: log.durable().result(), log.close):
    try:
        again()
        print("nothing raised")
    except StoreError as error:
        print(str(error))
"""
    ran = subprocess.run(  # noqa: S603
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    safe, _, message = ran[0].partition("|")
    assert int(safe) > 10
    assert "log.db cannot be written" in message
    assert ran[1:] == [message, message, message]
    assert len(list(read_events(path))) == int(safe)


def test_a_log_in_memory_keeps_order_and_is_done_at_once() -> None:
    log = MemoryEventLog()
    log.append(_bid(1))
    log.append(_bid(2))
    assert log.durable().done()
    assert log.events == [_bid(1), _bid(2)]


def test_many_that_make_one_store_at_the_same_moment_all_open_it(tmp_path: Path) -> None:
    start = threading.Barrier(4)

    def open_it(path: Path) -> None:
        start.wait(30)
        SqliteBackend(path).close()

    with ThreadPoolExecutor(4) as pool:
        for number in range(30):
            path = tmp_path / f"{number}.db"
            list(pool.map(open_it, [path] * 4))
