"""The site as people get it: built strictly, and looked at in a real browser."""

import functools
import importlib.util
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Generator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest

playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.base", reason="axe is not installed")
from playwright.async_api import ConsoleMessage, Page, Request, async_playwright  # noqa: E402

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run"),
)
_PAGES = (
    "index.html",
    "tutorial/first-plan.html",
    "explanation/policy.html",
    "explanation/peers.html",
    "reference/configuration.html",
    "cli.html",
    "adr/index.html",
    "repository/SCOPE.html",
)


def _build(root: Path, site: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-W", "default", "-m", "mkdocs", "build", "--strict"]
    return subprocess.run(  # noqa: S603 - the program of `make site`
        [*command, "--site-dir", str(site)], check=False, capture_output=True, text=True, cwd=root
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = _build(ROOT, folder)
    assert built.returncode == 0, built.stderr
    return folder


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        del format, args


@pytest.fixture(scope="module")
def address(site: Path) -> Generator[str]:
    handler = functools.partial(_Quiet, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_every_page_of_docs_is_in_the_site_and_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        made = (site / page.relative_to(ROOT / "docs")).with_suffix(".html")
        assert made.is_file(), page
        html = made.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe)[^>]* src="([^"]+)"', html)
        loaded += re.findall(r'<link[^>]* rel="stylesheet"[^>]* href="([^"]+)"', html)
        assert [one for one in loaded if "//" in one] == []


def test_a_dead_link_fails_the_build(tmp_path: Path) -> None:
    for name in ("docs", "scripts", "src", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("mkdocs.yml", "README.md", "SCOPE.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "docs").unlink()
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    with (tmp_path / "docs" / "keys.md").open("a", encoding="utf-8") as page:
        page.write("\n[gone](nowhere.md)\n")
    built = _build(tmp_path, tmp_path / "site")
    assert built.returncode == 1
    assert "nowhere.md" in built.stderr


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
async def test_pages_are_sound_at_this_size_and_in_this_scheme(
    address: str, tmp_path: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    wrong: list[str] = []

    def note(one: ConsoleMessage) -> None:
        wrong.append(f"{one.type}: {one.text}")

    def watch(one: Request) -> None:
        if not one.url.startswith((address, "data:", "blob:")):
            wrong.append(one.url)

    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=[*_FLAGS])
        context = await browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        page = await context.new_page()
        page.on("console", note)
        page.on("pageerror", lambda one: wrong.append(str(one)))
        page.on("request", watch)
        for name in _PAGES:
            await page.goto(f"{address}/{name}")
            await page.locator("h1").first.wait_for()
            shown = await page.evaluate("document.body.getAttribute('data-md-color-scheme')")
            assert shown == ("slate" if scheme == "dark" else "default")
            told = await _violations(page)
            assert told == [], name
            wide = await page.evaluate("document.documentElement.scrollWidth > innerWidth")
            assert not wide, name
            await page.screenshot(path=tmp_path / f"{name.replace('/', '-')}.png")
        await page.goto(f"{address}/explanation/policy.html")
        assert await page.locator("svg.drawn").count() == 2
        await browser.close()
    assert wrong == []


async def _violations(page: Page) -> list[tuple[str, list[str]]]:
    """What keeps people out, and where."""
    await page.evaluate(axe.AXE_FILE_PATH.read_text(encoding="utf-8"))
    found = await page.evaluate("axe.run()")
    return [(one["id"], [node["target"] for node in one["nodes"]]) for one in found["violations"]]


def test_the_pictures_are_those_that_the_policy_draws(tmp_path: Path) -> None:
    program = _program("draw_policy")
    drawn = {
        "policy-deadline": program.draw_deadlines(program.taught(program.fleet())),
        "policy-share": program.draw_shares(program.fleet()),
    }
    for name, svg in drawn.items():
        kept = (ROOT / "docs" / "images" / "drawn" / f"{name}.svg").read_text(encoding="utf-8")
        texts = re.compile(r"<text[^>]*>([^<]*)</text>")
        told = f"run: python scripts/draw_policy.py ({name})"
        assert texts.findall(svg) == texts.findall(kept) != [], told


def _program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
