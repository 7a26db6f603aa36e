"""Takes a picture of every page, at two sizes, light and dark, in a real Chromium.

    python scripts/screenshots [--out screenshots] [--demo demo] [--drill drill] [--docs]

Runs the demo unless --demo is there, `steelyard up` over a copy of its store with a plan in force,
agents of a support desk (and those of examples/frameworks, where `make test-frameworks` has
installed them), a second `steelyard up` that wants a key, `steelyard report` for each kind of
report, and `make site`. With --docs, the pictures of docs/gallery.md are written anew. Status 1
where a page told the console of an error.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from screenshots.album import Shot, dashboard, pages, shown, take
from screenshots.stage import (
    CODING_TASK,
    ROOT,
    STEELYARD,
    first_listed,
    framework_examples,
    gateway,
    keyed_gateway,
    run,
    served,
    support_desk,
)

_SITE = (
    "index",
    "tutorial/first-plan",
    "planning",
    "explanation/policy",
    "explanation/peers",
    "reference/configuration",
    "reference/http",
    "cli",
    "adr/index",
)


def _reports(demo: Path, drill: Path, folder: Path) -> list[Shot]:
    """One of each kind, from what the demo wrote."""
    for name in ("events.db", "plan.json", "workload.parquet", "report.html"):
        shutil.copy(demo / name, folder / ("demo.html" if name == "report.html" else name))
    simulate = ("simulate", "--workload", "workload.parquet", "--fleet", "plan.json")
    said = run(str(STEELYARD), *simulate, "--tasks", "500", "--json", cwd=folder)
    (folder / "simulation.json").write_text(said, encoding="utf-8")
    kinds = {
        "run": ("events.db", "--growth", "100"),
        "plan": ("plan.json",),
        "simulation": ("simulation.json",),
        "comparison": ("events.db", "--plan", "plan.json", "--simulation", "simulation.json"),
    }
    if (drill / "marks.json").is_file():
        (folder / "drill").mkdir()
        for name in ("events.db", "marks.json"):
            shutil.copy(drill / name, folder / "drill" / name)
        kinds["providers"] = ("drill/events.db", "--marks", "drill/marks.json")
    for kind, arguments in kinds.items():
        run(str(STEELYARD), "report", *arguments, "-o", f"{kind}.html", cwd=folder)
    return pages("report", folder.as_uri(), (*kinds, "demo"))


def _live(demo: Path, out: Path, docs: Path | None, folder: Path) -> list[str]:
    """Pictures of the dashboard while agents are at work."""
    with gateway(demo, folder) as address:
        names = support_desk(address, 0)
        tasks = {"support": names[0], "in-a-hurry": names[2], "durable": CODING_TASK}
        tasks["demo"] = first_listed(address, "librarian")
        examples = framework_examples(address, folder)
        tasks |= {name: task for name, task in examples.items() if name == "langgraph_agent"}
        end = threading.Event()

        def go_on() -> None:
            number = 1
            while not end.is_set():
                support_desk(address, number)
                number += 1

        desk = threading.Thread(target=go_on, daemon=True)
        desk.start()
        try:
            return asyncio.run(take(dashboard(address, tasks), out, docs))
        finally:
            end.set()


def _login(out: Path, docs: Path | None, folder: Path) -> list[str]:
    """Pictures of what a browser sees that has not signed in, where keys are needed."""
    with keyed_gateway(folder) as address:
        return asyncio.run(take([Shot("login", f"{address}/", shown(".login"))], out, docs))


def _documents(demo: Path, drill: Path, to: tuple[Path, Path | None], folder: Path) -> list[str]:
    """Pictures of the reports and of the documentation."""
    (folder / "reports").mkdir()
    shots = _reports(demo, drill, folder / "reports")
    # Not strictly: the gallery's pictures may not be there yet.
    site = ("mkdocs", "build", "--site-dir", str(folder / "site"))
    run(sys.executable, "-m", *site, cwd=ROOT)
    with served(folder / "site") as base:
        return asyncio.run(take([*shots, *pages("site", base, _SITE)], *to))


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "screenshots")
    parser.add_argument("--demo", type=Path, default=ROOT / "demo")
    parser.add_argument("--drill", type=Path, default=ROOT / "drill")
    parser.add_argument("--docs", action="store_true")
    parser.add_argument("--part", choices=("all", "dashboard", "documents"), default="all")
    asked = parser.parse_args()
    out, demo, drill = asked.out.resolve(), asked.demo.resolve(), asked.drill.resolve()
    out.mkdir(parents=True, exist_ok=True)
    docs = ROOT / "docs" / "images" / "gallery" if asked.docs else None
    if docs is not None:
        docs.mkdir(parents=True, exist_ok=True)
    if not (demo / "plan.json").is_file():
        run(str(STEELYARD), "demo", "--out", str(demo), cwd=ROOT)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wrong: list[str] = []
        if asked.part != "documents":
            wrong += _live(demo, out, docs, folder)
            wrong += _login(out, docs, folder)
        if asked.part != "dashboard":
            wrong += _documents(demo, drill, (out, docs), folder)
    print("\n".join(wrong), file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
