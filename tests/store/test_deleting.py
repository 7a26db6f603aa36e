"""What docs/many-machines.md says may be deleted: what is over goes, what is open goes on."""

from pathlib import Path

import pytest
from tests.store.postgres_server import MISSING, PostgresServer

from steelyard.domain.events import Event, StepRecorded, TaskFinished, TaskSubmitted
from steelyard.store.event_store import EventStore, read_store
from steelyard.store.open_store import open_store
from steelyard.store.tasks import Submission

_PAGE = Path(__file__).parents[2] / "docs" / "many-machines.md"


def _statements() -> str:
    return _PAGE.read_text(encoding="utf-8").partition("```sql\n")[2].partition("```")[0]


def _submit(store: EventStore, task_id: str, t_s: float, parent: str = "") -> None:
    event = TaskSubmitted(t_s=t_s, task_id=task_id, agent="a", parent=parent)
    store.submit(Submission(event=event, key=f"key of {task_id}")).result()


def _record(store: EventStore, task_id: str, t_s: float) -> None:
    place = {"path": "0", "kind": "local", "name": "f", "fingerprint": "x"}
    store.append(StepRecorded(t_s=t_s, task_id=task_id, step_id=0, **place))  # type: ignore[arg-type]


def _end(store: EventStore, task_id: str, t_s: float) -> None:
    store.append(TaskFinished(t_s=t_s, task_id=task_id, status="succeeded"))
    store.durable().result()


@pytest.mark.skipif(bool(MISSING), reason=MISSING)
def test_the_documented_statements_delete_whole_tasks_that_are_over(
    postgres: PostgresServer,
) -> None:
    import psycopg  # noqa: PLC0415 - an extra

    url = postgres.new_database()
    with open_store(url) as store:
        for task_id in ("over", "open", "lately"):
            _submit(store, task_id, 1.0)
            _record(store, task_id, 2.0)
        _submit(store, "open.0", 1.0, parent="open")
        _submit(store, "over.0", 1.0, parent="over")
        _end(store, "open.0", 2.0)
        _end(store, "over.0", 2.0)
        _end(store, "over", 3.0)
        _end(store, "lately", 4e9)
        requests: list[Event] = [TaskSubmitted(t_s=1.0, task_id="named by requests", agent="a")]
        for event in requests:
            store.append(event)
        store.durable().result()
        with psycopg.connect(url, autocommit=True) as database:
            database.execute(_statements().encode())
            database.execute("VACUUM steelyard.events")
        left = {getattr(event, "task_id", "") for event in read_store(store)}
        assert left == {"open", "open.0", "lately"}
        assert {row.task_id for row in store.tasks().result()} == left
        # The same process goes on with what is open, and takes the freed id and key anew.
        assert len(store.journal("open").result()) == 2
        _end(store, "open", 5.0)
        _submit(store, "over", 4e9)
        assert store.task_with_key("key of over").result() == "over"
