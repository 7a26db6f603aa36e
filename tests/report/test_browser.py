"""Reports in a real browser, by size and scheme: nothing keeps people out, nothing is too wide."""

import shutil
from pathlib import Path
from typing import Literal

import pytest
from tests.ledger.test_health import attempt, failures, pool

from steelyard.domain.events import Event
from steelyard.ledger.health import Health
from steelyard.ledger.ledger import Ledger
from steelyard.ledger.providers_over_time import providers_over_time
from steelyard.report.html import demo_report
from steelyard.report.inputs import DemoInputs
from steelyard.report.page import Figure, Page, Source
from steelyard.report.provider_plots import Mark
from steelyard.report.provider_sections import providers_over_time_section
from steelyard.report.writing import page_html

playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.base", reason="axe is not installed")
from playwright.async_api import async_playwright  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run"),
)


def _providers() -> str:
    log: list[Event] = [pool("p"), pool("q"), *failures("p", 1.0, 4), *attempt(9, "q", 6.0)]
    told = providers_over_time(Ledger.of(log), Health.of(log).spans())
    where = Source(origin="measured", source="a.db", command="steelyard report a.db -o r.html")
    marks = (Mark(t_s=1.0, label="p: cut", pool="p"),)
    tile = Figure(name="steps", about="", value=1.0, unit="count", where=where)
    page = Page(
        title="Report",
        made="2026-11-23",
        about="Made from a.db.",
        command=where.command,
        tiles=(tile, tile),
        sections=(providers_over_time_section(told, marks, (), where),),
    )
    html = page_html(page)
    # The tiles tell their source, too, and each source once.
    assert html.split("<h2")[0].count("from a.db; again by") == 1
    return html


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
async def test_reports_are_sound_at_this_size_and_in_this_scheme(
    inputs: DemoInputs, tmp_path: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    wrong: list[str] = []
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=[*_FLAGS])
        context = await browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        page = await context.new_page()
        page.on("console", lambda one: wrong.append(one.text))
        page.on("pageerror", lambda one: wrong.append(str(one)))
        for name, html in (("demo", demo_report(inputs)), ("providers", _providers())):
            file = tmp_path / f"{name}.html"
            file.write_text(html, encoding="utf-8")
            await page.goto(file.as_uri())
            await page.evaluate(axe.AXE_FILE_PATH.read_text(encoding="utf-8"))
            found = await page.evaluate("axe.run()")
            told = [(one["id"], [n["target"] for n in one["nodes"]]) for one in found["violations"]]
            assert told == [], name
            wide = await page.evaluate("document.documentElement.scrollWidth > innerWidth")
            assert not wide, name
        await browser.close()
    assert wrong == []
