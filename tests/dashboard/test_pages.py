"""What the pages show, whom they let in, and what they let nobody do."""

import asyncio
import html
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args
from urllib.parse import quote

import aiohttp
import pytest
from tests.dashboard.conftest import HERE, Rig, Start
from tests.dashboard.store_of_tasks import MODEL, fill

from steelyard.domain.agent import AgentLimit
from steelyard.domain.decision import Decision, PoolVerdict, Verdict
from steelyard.domain.events import (
    AttemptFinished,
    AttemptStarted,
    StepPlaced,
    TaskFinished,
    TaskSubmitted,
    Usage,
)
from steelyard.domain.task import LlmCall, Step
from steelyard.gateway.settings import GatewaySettings
from steelyard.store.tasks import Claim, Submission

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> {{7*7}} hx-get=/x"
KEY = "k" * 40


@pytest.fixture(scope="session")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dashboard") / "log.db"
    fill(path, 200)
    return path


async def test_every_page_answers(start: Start, store_path: Path) -> None:
    async with start(store_path) as rig:
        assert "arm-frankfurt" in await rig.page("/")
        assert "task-000199" in await rig.page("/tasks")
        shown = await rig.page("/task?id=task-000198")
        assert "Prediction against measurement" in shown
        assert "dearer" in shown
        assert "it would cost more by bid price" in shown
        for path in ("/ledger", "/plan", "/what-if"):
            assert "Steelyard" in await rig.page(path)
        assert "no page" in await rig.page("/nothing", 404)
        assert "is not in the log" in await rig.page("/task?id=nobody", 404)


async def test_tasks_are_found_by_text_agent_and_state_page_by_page(
    start: Start, store_path: Path
) -> None:
    async with start(store_path) as rig:
        assert _ids(await rig.page("/tasks?text=REPORT+17%3F")) == ["task-000017"]
        failed = _ids(await rig.page("/tasks?state=failed"))
        assert failed[:2] == ["task-000183", "task-000163"]
        coders = _ids(await rig.page("/tasks?agent=coder"))
        assert len(coders) == 50
        assert all(int(one[-6:]) % 3 == 1 for one in coders)
        first = await rig.page("/tasks")
        older = re.findall(r'href="(/tasks\?before=\d+)"', html.unescape(first))
        assert _ids(await rig.page(older[0]))[0] == "task-000149"
        assert _ids(await rig.page("/tasks?text=%25")) == []
        assert _ids(await rig.page("/tasks?state=nonsense&before=x&text=%00"))[0] == "task-000199"


def _ids(page: str) -> list[str]:
    return re.findall(r'href="/task\?id=([^"]+)"', page)


async def test_nothing_that_a_task_says_becomes_markup(start: Start, tmp_path: Path) -> None:
    async with start(tmp_path / "log.db") as rig:
        _hostile_task(rig)
        await asyncio.wrap_future(rig.store.durable())
        for path in ("/tasks", f"/task?id={quote(HOSTILE)}", f"/tasks?text={quote(HOSTILE)}"):
            _check_markup(await rig.page(path))
        _check_markup(await _ledger(rig))


async def _ledger(rig: Rig) -> str:
    async with asyncio.timeout(30.0):
        while "<progress" in (page := await rig.page("/ledger/first")):
            pass
    return page


def _check_markup(page: str) -> None:
    """What a task says is on the page, as text alone."""
    seen = _Markup()
    seen.feed(page)
    assert "alert(1)" in seen.text
    assert "{{7*7}}" in seen.text
    for tag, attributes in seen.tags:
        assert tag not in {"iframe", "object", "style"}
        assert tag not in {"script", "img"} or attributes["src"].startswith("/static/")
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("hx-get") != "/x"


class _Markup(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data


def _hostile_task(rig: Rig) -> None:
    step = Step(
        task_id=HOSTILE,
        step_id=0,
        agent=HOSTILE,
        name=HOSTILE,
        call=LlmCall(model=MODEL, input_tokens=1, max_output_tokens=1),
    )
    decision = Decision(
        pool="l4",
        replica=0,
        predicted_wait_s=0.0,
        predicted_ttft_s=0.0,
        predicted_finish_s=1.0,
        predicted_cached_tokens=0,
        predicted_output_tokens=1.0,
        predicted_cost_usd=0.0,
        bid_usd_per_hour=0.0,
        slack_s=None,
        policy=HOSTILE,
        reason=HOSTILE,
        # The page has words for every one of them.
        verdicts=tuple(PoolVerdict(pool=HOSTILE, verdict=one) for one in get_args(Verdict)),
    )
    end = AttemptFinished(
        t_s=3.0,
        task_id=HOSTILE,
        step_id=0,
        attempt=0,
        outcome="ok",
        usage=Usage(),
        cost_usd=0.0,
        result={HOSTILE: HOSTILE},
    )
    for event in (
        TaskSubmitted(t_s=1.0, task_id=HOSTILE, agent=HOSTILE, arguments={HOSTILE: HOSTILE}),
        StepPlaced(t_s=1.0, step=step, decision=decision),
        AttemptStarted(t_s=1.0, task_id=HOSTILE, step_id=0, attempt=0),
        end,
        TaskFinished(
            t_s=4.0, task_id=HOSTILE, status="failed", error=HOSTILE, result={"html": HOSTILE}
        ),
    ):
        rig.store.append(event)


async def test_every_answer_forbids_scripts_and_frames_from_elsewhere(
    start: Start, store_path: Path
) -> None:
    async with start(store_path) as rig:
        for path in ("/", "/tasks", "/nothing", "/static/app.js", "/login"):
            async with rig.http.get(path) as answer:
                policy = answer.headers["content-security-policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy
                assert answer.headers["x-content-type-options"] == "nosniff"
                text = await answer.text()
            assert not re.search(r"<script(?! src=)|\son\w+=|\sstyle=", text)
            assert not re.search(r'(src|href)="(https?:)?//', text)


async def test_a_foreign_host_or_origin_is_refused(start: Start, store_path: Path) -> None:
    async with start(store_path) as rig:
        for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
            async with rig.http.get("/", headers=headers) as answer:
                assert answer.status == 403


async def test_only_our_own_pages_can_change_anything(start: Start, tmp_path: Path) -> None:
    async with start(tmp_path / "log.db") as rig:
        await _submitted(rig, "t")
        refused: tuple[dict[str, str], ...] = (
            {},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
            {"Origin": "http://localhost:1"},
        )
        for headers in refused:
            async with rig.http.post("/task/cancel", data={"id": "t"}, headers=headers) as answer:
                assert answer.status == 403
        assert (await _state(rig, "t")) == "queued"
        async with rig.http.post("/task/cancel", data={"id": "t"}, headers=HERE) as answer:
            assert answer.status == 200
            assert "cancelled" in await answer.text()
        assert (await _state(rig, "t")) == "cancelled"
        async with rig.http.post("/task/retry", data={"id": "t"}, headers=HERE) as answer:
            assert answer.status == 200
        assert (await _state(rig, "t")) == "queued"
        async with rig.http.post("/task/retry", data={"id": "t"}, headers=HERE) as answer:
            assert answer.status == 400
            assert "has not ended" in await answer.text()
        async with rig.http.post("/task/cancel", data={"id": "no"}, headers=HERE) as answer:
            assert answer.status == 404
        async with rig.http.post("/task/cancel", data={"id": "x" * 70_000}, headers=HERE) as answer:
            assert answer.status == 400


async def _submitted(rig: Rig, task_id: str) -> None:
    event = TaskSubmitted(t_s=1.0, task_id=task_id, agent="a")
    await asyncio.wrap_future(rig.store.submit(Submission(event=event)))


async def _state(rig: Rig, task_id: str) -> str:
    return (await asyncio.wrap_future(rig.store.tasks(task_id=task_id)))[0].state


async def test_a_key_given_once_lets_a_browser_in_until_it_leaves(
    start: Start, store_path: Path
) -> None:
    async with start(store_path, GatewaySettings(api_keys=(KEY,))) as rig:
        async with rig.http.get("/tasks?text=a&state=failed", allow_redirects=False) as answer:
            assert answer.status == 303
            where = answer.headers["location"]
        assert where == "/login?to=%2Ftasks%3Ftext%3Da%26state%3Dfailed"
        async with rig.http.get("/fleet/part", headers={"HX-Request": "true"}) as answer:
            assert (answer.status, answer.headers["hx-redirect"]) == (401, "/login")
        async with rig.http.post("/login", data={"key": "wrong"}, headers=HERE) as answer:
            assert answer.status == 401
            assert "wrong" not in await answer.text()
        form = {"key": KEY, "to": "//evil.example"}
        async with rig.http.post(
            "/login", data=form, headers=HERE, allow_redirects=False
        ) as answer:
            assert (answer.status, answer.headers["location"]) == (303, "/")
            cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert KEY not in cookie
        assert "arm-frankfurt" in await rig.page("/")
        # The API takes no cookie, so no page can act through it.
        async with rig.http.get("/api/tasks") as answer:
            assert answer.status == 401
        async with rig.http.get("/metrics") as answer:
            assert answer.status == 401
        async with rig.http.post("/logout", headers=HERE, allow_redirects=False) as answer:
            assert answer.status == 303
        assert "Sign in" in await rig.page("/")
        async with rig.http.get("/", headers={"Authorization": f"Bearer {KEY}"}) as answer:
            assert "arm-frankfurt" in await answer.text()


async def test_open_pages_are_told_when_the_log_grows(start: Start, tmp_path: Path) -> None:
    async with (
        start(tmp_path / "log.db") as rig,
        rig.http.get("/live") as answer,
        asyncio.timeout(10.0),
    ):
        assert answer.content_type == "text/event-stream"
        first = await _told(answer.content)
        await _submitted(rig, "t")
        while await _told(answer.content) == first:
            pass


async def _told(lines: aiohttp.StreamReader) -> bytes:
    while True:
        line = await lines.readline()
        assert line
        if line.startswith(b"data:"):
            return line


async def test_a_stop_does_not_wait_for_open_pages(start: Start, tmp_path: Path) -> None:
    async with asyncio.timeout(8.0):
        async with start(tmp_path / "log.db") as rig:
            answer = await rig.http.get("/live")
            await _told(answer.content)
    answer.close()


async def test_a_task_at_work_is_drawn_up_to_now(start: Start, tmp_path: Path) -> None:
    async with start(tmp_path / "log.db") as rig:
        await _submitted(rig, "t")
        wish = Claim(worker="w", agents={"a": AgentLimit()}, count=1, lease_s=60.0, t_s=1.0)
        await asyncio.wrap_future(rig.store.claim(wish))
        shown = await rig.page("/task?id=t")
        assert "Cancel task" in shown
        assert "No step has been placed yet" in shown


async def test_a_task_whose_steps_were_in_time_is_not_late_while_nobody_ended_it(
    start: Start, tmp_path: Path
) -> None:
    async with start(tmp_path / "log.db") as rig:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
        headers = {"Steelyard-Task": "trip", "Steelyard-Deadline": "1.5"}
        async with rig.http.post("/v1/chat/completions", json=body, headers=headers) as one:
            assert one.status == 200, await one.text()
        shown = ""
        for _ in range(400):
            shown = await rig.page("/tasks")
            if not re.search(r"s left\s*<", shown):
                break
            await asyncio.sleep(0.05)
        assert re.search(r"s to spare\s*<", shown)
        assert "s late" not in shown
        shown = await rig.page("/task?id=trip")
        assert "no step is under way" in shown
        assert "to spare at the end" in shown


async def test_a_request_named_by_a_header_shows_up_as_a_task(start: Start, tmp_path: Path) -> None:
    async with start(tmp_path / "log.db") as rig:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
        headers = {"Steelyard-Task": "trip", "Steelyard-Agent": "guide"}
        for _ in range(2):
            async with rig.http.post("/v1/chat/completions", json=body, headers=headers) as one:
                assert one.status == 200, await one.text()
        assert _ids(await rig.page("/tasks?state=open")) == ["trip"]
        shown = await rig.page("/task?id=trip")
        assert shown.count("<summary>") == 2
        assert "Cancel task" not in shown
        assert "no step is under way" in shown
        fleet = await rig.page("/")
        done = re.findall(r'data-label="Done"[^>]*>(\d+)<', fleet)
        assert sum(map(int, done)) == 2
