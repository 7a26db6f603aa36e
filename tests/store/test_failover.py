"""A store whose PostgreSQL fails over to a synchronous standby: nothing acknowledged is lost."""

import pytest
from tests.store.postgres_server import MISSING

from steelyard.domain.events import TaskSubmitted
from steelyard.store.event_store import read_store
from steelyard.store.open_store import open_store

_PATIENCE_S = 60.0


@pytest.mark.skipif(bool(MISSING), reason=MISSING or "PostgreSQL is there")
def test_what_was_acknowledged_before_and_during_a_failover_is_there_once() -> None:
    pytest.importorskip("psycopg", reason="the postgres extra is not installed")
    from drill_store.pair import postgres_pair  # noqa: PLC0415 - needs the extra

    with postgres_pair(is_synchronous=True) as pair, open_store(pair.new_database()) as store:
        for number in range(50):
            store.append(TaskSubmitted(t_s=float(number), task_id=f"t{number}", agent="a"))
        store.durable().result(_PATIENCE_S)
        pair.kill_primary()
        # These wait until there is a primary again.
        store.append(TaskSubmitted(t_s=50.0, task_id="t50", agent="a"))
        waiting = store.durable()
        pair.promote()
        waiting.result(_PATIENCE_S)
        found = [event.task_id for event in read_store(store) if isinstance(event, TaskSubmitted)]
        assert found == [f"t{number}" for number in range(51)]
