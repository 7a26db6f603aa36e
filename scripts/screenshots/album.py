"""Which pages there are, and how a browser is brought to show each of them."""

import io
import re
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image
from playwright.async_api import Browser, Page, async_playwright

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run", "--hide-scrollbars"),
)
_WAIT_MS = 120_000.0
# Longer pages are cut in the documents' copies, but for those whose last part counts most: they
# are shown whole, and smaller.
_DOCS_HEIGHT = 1500
_WHOLE = frozenset({"report-providers"})
_WHOLE_WIDTH = 800
_WEBP_QUALITY = 50
_BAD = frozenset({"error", "warning"})
Scheme = Literal["light", "dark"]
MISSING = "missing"
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
SCHEMES: tuple[Scheme, Scheme] = ("light", "dark")


async def _nothing(_: Page) -> None:
    """The page is ready when it is loaded."""


# What docs/gallery.md shows: names of pictures, by size and scheme.
_LIVE = ("fleet", "tasks", "task-durable", "ledger", "plan-anew", "what-if-outcome")
IN_DOCS: dict[tuple[str, Scheme], frozenset[str]] = {
    ("desktop", "light"): frozenset(
        {
            *(*_LIVE, "login", "task-langgraph-agent", "site-index"),
            *(f"report-{kind}" for kind in ("run", "plan", "simulation", "comparison")),
        }
    ),
    ("desktop", "dark"): frozenset(
        {"fleet", "task-durable", "report-providers", "site-tutorial-first-plan"}
    ),
    ("phone", "light"): frozenset(
        {"task-langgraph-agent", "site-explanation-policy", "site-reference-configuration"}
    ),
    ("phone", "dark"): frozenset({*_LIVE, "report-comparison"}),
}


class Shot(NamedTuple):
    """A page to take a picture of.

    Attributes:
        name: Of the picture.
        url: Where it is.
        ready: Waits until it shows what it has to, and opens what should be open.
    """

    name: str
    url: str
    ready: Callable[[Page], Awaitable[None]] = _nothing


def shown(selector: str) -> Callable[[Page], Awaitable[None]]:
    """Wait until something is there."""

    async def ready(page: Page) -> None:
        await page.locator(selector).first.wait_for(timeout=_WAIT_MS)

    return ready


async def _first_step_open(page: Page) -> None:
    await page.locator(".waterfall summary").first.click()
    await page.get_by_text("Why here:").first.wait_for(timeout=_WAIT_MS)


async def _planned_anew(page: Page) -> None:
    await page.get_by_role("button", name="Plan from the ledger").click()
    await page.locator("#anew .tiles, #anew .bad").first.wait_for(timeout=_WAIT_MS)


async def _slid(page: Page) -> None:
    await page.get_by_label("Load").fill("3")
    await page.get_by_label("Its price").fill("1.5")
    await page.locator("#outcome .tiles, #outcome .bad").first.wait_for(timeout=_WAIT_MS)


async def _cancelling(page: Page) -> None:
    await page.get_by_role("button", name="Cancel task").click()
    await page.get_by_role("dialog").wait_for(timeout=_WAIT_MS)


def dashboard(address: str, tasks: dict[str, str]) -> list[Shot]:
    """Every page of the dashboard.

    Args:
        address: The gateway's.
        tasks: What is special about a task, and its id.
    """
    return [
        Shot("fleet", f"{address}/", shown("#fleet table")),
        Shot("tasks", f"{address}/tasks", shown("#tasks table")),
        Shot("tasks-none", f"{address}/tasks?text=nothing+has+this", shown("#tasks .empty")),
        *(
            Shot(f"task-{what.replace('_', '-')}", f"{address}/task?id={task}", _first_step_open)
            for what, task in tasks.items()
        ),
        Shot("ledger", f"{address}/ledger", shown("#ledger .tiles")),
        Shot("plan", f"{address}/plan", shown("#in-force .tiles")),
        Shot("plan-anew", f"{address}/plan", _planned_anew),
        Shot("what-if", f"{address}/what-if", shown(".sliders")),
        Shot("what-if-outcome", f"{address}/what-if", _slid),
        Shot(MISSING, f"{address}/no-such-page"),
    ]


def pages(name: str, base: str, paths: tuple[str, ...]) -> list[Shot]:
    """Pages below an address."""
    return [
        Shot(f"{name}-{re.sub('[^a-z0-9]+', '-', path.lower())}", f"{base}/{path}.html")
        for path in paths
    ]


async def take(shots: list[Shot], out: Path, docs: Path | None) -> list[str]:
    """Take every picture at every size in both schemes.

    Args:
        shots: Of what.
        out: Folder for them: NAME-SIZE-SCHEME.png.
        docs: Folder for small copies of some of them; None for none.

    Returns:
        What went wrong on pages: console messages and errors.
    """
    wrong: list[str] = []
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=_chromium(), args=[*_FLAGS])
        for size in SIZES:
            for scheme in SCHEMES:
                wrong += await _series(browser, shots, (size, scheme), out, docs)
        await browser.close()
    return wrong


def _chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        raise SystemExit("screenshots: Chromium is not installed")
    return found


async def _series(
    browser: Browser, shots: list[Shot], how: tuple[str, Scheme], out: Path, docs: Path | None
) -> list[str]:
    size, scheme = how
    width, height = SIZES[size]
    wrong: list[str] = []
    context = await browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme
    )
    for shot in shots:
        page = await context.new_page()
        page.set_default_timeout(_WAIT_MS)
        label = f"{shot.name}-{size}-{scheme}"
        told: list[str] = []
        _listen(page, told)
        await page.goto(shot.url, wait_until="load")
        await shot.ready(page)
        picture = await page.screenshot(
            path=out / f"{label}.png", full_page=True, animations="disabled"
        )
        if docs is not None and shot.name in IN_DOCS[size, scheme]:
            _small(picture, docs / f"{label}.webp", whole=shot.name in _WHOLE)
        # A browser tells every status of 400 and more.
        wrong += [f"{label}: {one}" for one in told if shot.name != MISSING]
        await page.close()
    await context.close()
    return wrong


def _listen(page: Page, told: list[str]) -> None:
    page.on("pageerror", lambda one: told.append(str(one)))
    page.on("console", lambda one: told.append(one.text) if one.type in _BAD else None)


def _small(picture: bytes, path: Path, *, whole: bool) -> None:
    with Image.open(io.BytesIO(picture)) as page:
        if whole:
            shown = page.resize((_WHOLE_WIDTH, round(page.height * _WHOLE_WIDTH / page.width)))
        else:
            shown = page.crop((0, 0, page.width, min(page.height, _DOCS_HEIGHT)))
        shown.convert("RGB").save(path, "WEBP", quality=_WEBP_QUALITY, method=6)
