"""How fast are the dashboard's pages with 10,000 tasks in the store, in a real Chromium?

    python benchmarks/dashboard.py [--tasks 10000] [--rounds 10]

Needs Chromium and the development dependencies (playwright). Prints, for each page, the time from
the start of the navigation to the browser's load event and to the figures being there, and, for
pages that follow the log, the time from an event's commit to the changed page.
"""

import argparse
import asyncio
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from playwright.async_api import Page, async_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.dashboard.conftest import Rig, start_dashboard
from tests.dashboard.store_of_tasks import fill

from steelyard.domain.events import TaskSubmitted
from steelyard.store.tasks import Submission

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run"),
)
# Page to what must be visible on it.
_PAGES = {
    "/": "#fleet table",
    "/tasks": "#tasks table",
    "/tasks?text=report+4242": "#tasks",
    "/tasks?state=cancelled": "#tasks",
    "/task?id=task-000042": ".waterfall",
    "/ledger": "#ledger .tiles",
    "/plan": "#in-force .job",
    "/what-if": ".sliders",
}
_WAIT_MS = 120_000.0


async def _loads(page: Page, url: str, path: str, rounds: int) -> tuple[list[float], list[float]]:
    loads_ms: list[float] = []
    ready_ms: list[float] = []
    for _ in range(rounds):
        await page.goto("about:blank")
        started_s = time.perf_counter()
        await page.goto(url + path, wait_until="load")
        loads_ms.append(
            float(await page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"))
        )
        await page.locator(_PAGES[path]).first.wait_for(timeout=_WAIT_MS)
        ready_ms.append(1000.0 * (time.perf_counter() - started_s))
    return loads_ms, ready_ms


async def _updates(page: Page, rig: Rig, rounds: int) -> list[float]:
    """Milliseconds from a task's commit to its row in the open list."""
    await page.goto(f"{rig.server.url}/tasks")
    await page.evaluate(
        """() => {
            window.seen = {};
            new MutationObserver(() => {
                for (const link of document.querySelectorAll('#tasks a'))
                    window.seen[link.textContent] ??= Date.now();
            }).observe(document.body, {childList: true, subtree: true, characterData: true});
        }"""
    )
    took_ms: list[float] = []
    for number in range(rounds):
        # Longer than the pause between two pushes: each update is one of its own.
        await asyncio.sleep(1.0 + 0.037 * number)
        name = f"update-{number}"
        event = TaskSubmitted(t_s=time.time(), task_id=name, agent="bench")
        await asyncio.wrap_future(rig.store.submit(Submission(event=event)))
        committed_ms = 1000.0 * time.time()
        await page.get_by_role("link", name=name, exact=True).wait_for(timeout=_WAIT_MS)
        seen_ms = float(await page.evaluate(f"window.seen[{name!r}]"))
        took_ms.append(seen_ms - committed_ms)
    return took_ms


def _show(what: str, values_ms: list[float]) -> None:
    first, rest = values_ms[0], values_ms[1:]
    median, worst = statistics.median(rest), max(rest)
    print(f"{what:34} first {first:7.0f}   then median {median:6.0f}   worst {worst:6.0f}")


async def _measure(tasks: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.db"
        fill(path, tasks)
        async with start_dashboard(path) as rig, async_playwright() as driver:
            browser = await driver.chromium.launch(
                executable_path=shutil.which("chromium"), args=[*_FLAGS]
            )
            page = await browser.new_page(viewport={"width": 1280, "height": 900})
            for place in _PAGES:
                loads_ms, ready_ms = await _loads(page, rig.server.url, place, rounds)
                _show(f"load event {place}, ms", loads_ms)
                _show(f"figures there {place}, ms", ready_ms)
            _show("update of the open list, ms", await _updates(page, rig, rounds + 1))
            await _idle(page, rig)
            await browser.close()


async def _idle(page: Page, rig: Rig) -> None:
    """CPU of the gateway's process with one page open, and none."""
    for what, place in (("one page open", f"{rig.server.url}/"), ("no page open", "about:blank")):
        await page.goto(place)
        await asyncio.sleep(1.0)
        started_s, cpu_s = time.monotonic(), time.process_time()
        await asyncio.sleep(10.0)
        share = (time.process_time() - cpu_s) / (time.monotonic() - started_s)
        print(f"CPU of the gateway, {what}: {share:.2%} of a core")


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=10)
    asked = parser.parse_args()
    print(f"{time.strftime('%Y-%m-%d')}, {platform.processor() or platform.machine()}", end=", ")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {asked.tasks:,} tasks, seed 1")
    asyncio.run(_measure(asked.tasks, asked.rounds))


if __name__ == "__main__":
    main()
