"""The dashboard in a real browser: every page, by keyboard, at two sizes, light and dark."""

import asyncio
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import pytest
from tests.dashboard.conftest import Rig, Start
from tests.dashboard.store_of_tasks import fill

from steelyard.domain.events import TaskFinished, TaskSubmitted
from steelyard.store.tasks import Submission

playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.base", reason="axe is not installed")
from playwright.async_api import Page, async_playwright, expect  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run"),
)
_WAIT_MS = 30_000.0
Scheme = Literal["light", "dark"]


class Visit:
    """A page of the dashboard, and what went wrong on it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.wrong: list[str] = []
        page.on("console", lambda one: self._note(one.type, one.text))
        page.on("pageerror", lambda one: self.wrong.append(str(one)))
        page.on("dialog", lambda one: self.wrong.append(f"dialog: {one.message}"))
        page.set_default_timeout(_WAIT_MS)

    def _note(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"}:
            self.wrong.append(text)

    async def check(self, shots: Path, name: str) -> None:
        """No errors, nothing that keeps people out, nothing wider than the screen."""
        assert self.wrong == []
        await self.page.evaluate(axe.AXE_FILE_PATH.read_text(encoding="utf-8"))
        found = await self.page.evaluate("axe.run()")
        told = [
            (one["id"], [node["target"] for node in one["nodes"]]) for one in found["violations"]
        ]
        assert told == []
        wide = await self.page.evaluate("document.documentElement.scrollWidth > innerWidth")
        assert not wide, name
        await self.page.screenshot(path=shots / f"{name}.png", full_page=True)


@asynccontextmanager
async def visit(
    rig: Rig, width: int = 1280, scheme: Scheme = "light"
) -> AsyncGenerator[Visit, None]:
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=[*_FLAGS])
        context = await browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        try:
            yield Visit(await context.new_page(), rig.server.url)
        finally:
            await browser.close()


@pytest.mark.parametrize(
    ("tasks", "width", "scheme"), [(10_000, 1280, "light"), (300, 390, "dark")]
)
async def test_every_page_is_sound_at_this_size_and_in_this_scheme(
    start: Start, tmp_path: Path, tasks: int, width: int, scheme: Scheme
) -> None:
    path = tmp_path / "log.db"
    fill(path, tasks)
    newest, wanted = f"task-{tasks - 1:06d}", "task-000242"
    async with start(path) as rig, visit(rig, width, scheme) as seen:
        page = seen.page
        await page.goto(seen.url)
        await expect(page.get_by_role("heading", level=1)).to_contain_text("Fleet")
        await seen.check(tmp_path, "fleet")
        await page.get_by_role("link", name="Tasks").click()
        await expect(page.get_by_role("link", name=newest)).to_be_visible()
        await page.get_by_role("searchbox").fill("report 242?")
        await expect(page.get_by_role("link", name=wanted)).to_be_visible()
        await expect(page.get_by_role("link", name=newest)).to_have_count(0)
        await seen.check(tmp_path, "tasks")
        await page.get_by_role("link", name=wanted).click()
        await page.locator(".waterfall summary").first.click()
        await expect(page.get_by_text("Why here:").first).to_be_visible()
        await seen.check(tmp_path, "task")
        await page.get_by_role("navigation").get_by_role("link", name="Ledger").click()
        await expect(page.get_by_role("heading", name="By provider")).to_be_visible(
            timeout=_WAIT_MS
        )
        await seen.check(tmp_path, "ledger")
        await page.get_by_role("link", name="Plan", exact=True).click()
        await expect(page.get_by_text("No plan is in force")).to_be_visible(timeout=_WAIT_MS)
        await seen.check(tmp_path, "plan")
        await page.get_by_role("link", name="What-if").click()
        await expect(page.get_by_role("button", name="Plan and simulate")).to_be_visible()
        await seen.check(tmp_path, "what-if")


async def test_a_new_plan_and_a_slider_answer_with_predictions(
    start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "log.db"
    fill(path, 120)
    async with start(path) as rig, visit(rig) as seen:
        page = seen.page
        await page.goto(f"{seen.url}/what-if")
        await page.get_by_label("Load").focus()
        await page.keyboard.press("ArrowRight")
        await expect(page.locator("#load-value")).to_have_text("1.05x")
        await expect(
            page.get_by_role("heading", name="As things are, and as they might be predicted")
        ).to_be_visible(timeout=2 * _WAIT_MS)
        assert await page.locator("#outcome .badge.measured").count() == 0
        await seen.check(tmp_path, "outcome")
        await page.goto(f"{seen.url}/plan")
        await page.get_by_role("button", name="Plan from the ledger").click()
        await page.get_by_role("button", name="Cancel").click()
        await expect(page.locator("#anew").get_by_role("alert")).to_have_text("cancelled")


async def test_everything_can_be_reached_by_keyboard(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    fill(path, 20)
    async with start(path) as rig, visit(rig) as seen:
        page = seen.page
        await page.goto(f"{seen.url}/task?id=task-000007")
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.locator("#main")).to_be_focused()
        for _ in range(2):
            await page.keyboard.press("Tab")
        await expect(page.get_by_role("button", name="Cancel task")).to_be_focused()
        await page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog", name="Cancel this task?")
        await expect(dialog).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(dialog).to_be_hidden()
        await expect(page.get_by_role("button", name="Cancel task")).to_be_focused()
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("Why here:").first).to_be_visible()
        theme = page.get_by_role("button", name="Light, dark or as the system")
        await theme.focus()
        for wanted in ("light", "dark"):
            await page.keyboard.press("Enter")
            await expect(page.locator("html")).to_have_attribute("data-theme", wanted)
        await page.reload()
        await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        assert seen.wrong == []


async def test_an_open_page_follows_what_happens(start: Start, tmp_path: Path) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    async with start(tmp_path / "log.db") as rig, visit(rig) as seen:
        page = seen.page
        await page.goto(f"{seen.url}/tasks")
        await expect(page.get_by_text("No task is like that.")).to_be_visible()
        event = TaskSubmitted(t_s=1.0, task_id="t", agent=hostile, arguments={"q": hostile})
        await asyncio.wrap_future(rig.store.submit(Submission(event=event)))
        await expect(page.get_by_role("link", name="t", exact=True)).to_be_visible()
        await page.get_by_role("link", name="t", exact=True).click()
        await expect(page.get_by_text("queued")).to_be_visible()
        rig.store.append(
            TaskFinished(t_s=2.0, task_id="t", status="failed", error=hostile, result=hostile)
        )
        await expect(page.get_by_role("button", name="Retry task")).to_be_visible()
        await page.get_by_role("button", name="Retry task").click()
        await page.get_by_role("button", name="Retry the task").click()
        await expect(page.get_by_text("queued")).to_be_visible()
        assert seen.wrong == []
