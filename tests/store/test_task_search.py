"""Pages of tasks, from every store."""

from contextlib import closing

import pytest
from tests.store.conftest import Open

from steelyard.domain.agent import AgentLimit
from steelyard.domain.decision import Decision
from steelyard.domain.events import (
    AttemptFinished,
    PoolAdded,
    StepPlaced,
    TaskFinished,
    TaskRetried,
    TaskSubmitted,
    Usage,
)
from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import Step, ToolCall
from steelyard.store import task_search
from steelyard.store.event_store import EventStore
from steelyard.store.reader import StoreAddress, StoreReader
from steelyard.store.task_search import TaskPage, TaskQuery
from steelyard.store.tasks import Claim, Submission


def _submit(store: EventStore, task_id: str, agent: str = "a", **arguments: object) -> None:
    event = TaskSubmitted(t_s=1.0, task_id=task_id, agent=agent, arguments=arguments)
    store.submit(Submission(event=event)).result()


def _named_by_a_request(store: EventStore, task_id: str, t_s: float = 1.0) -> None:
    store.append(TaskSubmitted(t_s=t_s, task_id=task_id, agent="a", budget_usd=0.5))


def _attempt(task_id: str, cost_usd: float, attempt: int = 0) -> AttemptFinished:
    return AttemptFinished(
        t_s=2.0,
        task_id=task_id,
        step_id=0,
        attempt=attempt,
        outcome="ok",
        usage=Usage(),
        cost_usd=cost_usd,
        result={"content": "x" * 1000},
    )


def _placed(task_id: str, step_id: int) -> StepPlaced:
    step = Step(task_id=task_id, step_id=step_id, agent="a", name="s", call=ToolCall(tool="t"))
    decision = Decision(
        pool="p", replica=0, reason="", predicted_wait_s=0.0, predicted_ttft_s=0.0,
        predicted_finish_s=0.5, slack_s=None, predicted_cost_usd=0.0, predicted_cached_tokens=0,
        predicted_output_tokens=0.0, bid_usd_per_hour=1.0, policy="test", verdicts=(),
    )  # fmt: skip
    return StepPlaced(t_s=1.5, step=step, decision=decision)


def _search(where: str, **asked: object) -> TaskPage:
    with closing(StoreReader(StoreAddress(where=where))) as reader:
        return reader.search(TaskQuery(**asked)).result()  # type: ignore[arg-type]


def _ids(page: TaskPage) -> list[str]:
    return [task.task_id for task in page.tasks]


def test_durable_tasks_and_those_of_requests_are_one_list(open_one: Open, where: str) -> None:
    with open_one() as store:
        _submit(store, "queued")
        _submit(store, "running")
        wish = Claim(worker="w", agents={"a": AgentLimit()}, count=1, lease_s=60.0, t_s=2.0)
        assert [lease.task_id for lease in store.claim(wish).result()] == ["queued"]
        _named_by_a_request(store, "open")
        _named_by_a_request(store, "ended")
        store.append(TaskFinished(t_s=4.0, task_id="ended", status="failed", error="why"))
        for cost_usd in (0.1, 0.2):
            store.append(_attempt("ended", cost_usd))
        store.durable().result()
        tasks = {task.task_id: task for task in _search(where).tasks}
    assert list(tasks) == ["ended", "open", "running", "queued"]
    states = [task.state for task in tasks.values()]
    assert states == ["failed", "open", "queued", "running"]
    ended = tasks["ended"]
    assert (ended.finished_s, ended.error, ended.attempts) == (4.0, "why", 2)
    assert ended.cost_usd == pytest.approx(0.3)
    assert ended.budget_usd == 0.5
    assert tasks["open"].finished_s is None


def test_a_named_task_is_quiet_when_none_of_its_attempts_is_under_way(
    open_one: Open, where: str
) -> None:
    with open_one() as store:
        for task_id in ("quiet", "busy", "fresh"):
            _named_by_a_request(store, task_id)
        for task_id, placed in (("quiet", 1), ("busy", 2)):
            for step_id in range(placed):
                store.append(_placed(task_id, step_id))
            store.append(_attempt(task_id, 0.1))
        store.durable().result()
        tasks = {task.task_id: task for task in _search(where).tasks}
    assert {name: task.quiet_s for name, task in tasks.items()} == {
        "quiet": 2.0,
        "busy": None,
        "fresh": None,
    }


def test_filters_find_what_they_say(open_one: Open, where: str) -> None:
    with open_one() as store:
        _submit(store, "one", agent="coder", question='Who said "100%_!" in Zürich?')
        _submit(store, "two", agent="coder2", question="nothing")
        _submit(store, "three", agent="writer", question="about coder")
        store.cancel("three", 2.0).result()
        assert _ids(_search(where, agent="coder")) == ["one"]
        assert _ids(_search(where, text="CODER")) == ["three", "two", "one"]
        for text in ("100%_!", 'said "1', "zürich", "ONE"):
            assert _ids(_search(where, text=text)) == ["one"], text
        for text in ("1%0", "100_", "nobody", "\\"):
            assert _ids(_search(where, text=text)) == [], text
        assert _ids(_search(where, state="cancelled")) == ["three"]
        assert _ids(_search(where, state="queued", text="nothing")) == ["two"]
        assert _ids(_search(where, state="failed")) == []


def test_pages_hold_every_task_once(
    open_one: Open, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_search, "_CHUNK", 4)
    with open_one() as store:
        for number in range(11):
            _submit(store, f"t{number:02d}", agent="ab"[number % 2])
        store.durable().result()
        seen: list[str] = []
        page = _search(where, agent="a", limit=2)
        while page.older:
            seen += _ids(page)
            page = _search(where, agent="a", limit=2, before=page.older)
        seen += _ids(page)
    assert seen == ["t10", "t08", "t06", "t04", "t02", "t00"]


def test_a_search_looks_through_a_bounded_piece_of_the_log_at_a_time(
    open_one: Open, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_search, "_MOST_EVENTS", 3)
    with open_one() as store:
        for number in range(7):
            _submit(store, f"t{number}")
        first = _search(where, text="t0")
        assert (first.tasks, first.older > 0) == ((), True)
        second = _search(where, text="t0", before=first.older)
        assert (second.tasks, second.older > 0) == ((), True)
        assert _ids(_search(where, text="t0", before=second.older)) == ["t0"]


def test_what_goes_on_after_its_end_is_not_shown_as_ended(open_one: Open, where: str) -> None:
    with open_one() as store:
        _submit(store, "retried")
        store.cancel("retried", 2.0).result()
        store.retry(TaskRetried(t_s=3.0, task_id="retried")).result()
        _named_by_a_request(store, "again")
        store.append(TaskFinished(t_s=4.0, task_id="again", status="succeeded"))
        _named_by_a_request(store, "again", t_s=5.0)
        store.durable().result()
        again, retried = _search(where).tasks
        with closing(StoreReader(StoreAddress(where=where))) as reader:
            found, events = reader.task("again").result()
            assert reader.task("nobody").result() == (None, ())
    assert (again.task_id, again.state, again.submitted_s) == ("again", "open", 5.0)
    assert (retried.state, retried.finished_s) == ("queued", None)
    assert found == again
    assert len(events) == 3


def test_the_log_is_read_from_where_one_stopped(open_one: Open, where: str) -> None:
    spec = PoolSpec(
        name="p",
        provider="x",
        region="r",
        arch="arm64",
        hardware="arm",
        offering="o",
        usd_per_hour=1.0,
        replicas=1,
    )
    with open_one() as store, closing(StoreReader(StoreAddress(where=where))) as reader:
        assert reader.last_number().result() == 0
        store.append(PoolAdded(t_s=0.0, spec=spec))
        _submit(store, "t", agent="b")
        store.durable().result()
        last = reader.last_number().result()
        page = reader.events(0, 10).result()
        assert [number for number, _ in page][-1] == last
        assert len(reader.events(page[0][0], 10).result()) == 1
        assert reader.pools(last).result() == (PoolAdded(t_s=0.0, spec=spec),)
        assert reader.agents().result() == ["b"]


def test_a_password_is_not_shown() -> None:
    hidden = "not-to-be-shown"
    assert hidden not in repr(StoreAddress(where="postgresql://h/d", password=hidden))
