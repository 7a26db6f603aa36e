"""`steelyard report`: one page about a recorded run, a plan, a simulation, or several of them."""

import sys
from pathlib import Path

import msgspec

from steelyard.cli.outputs import check_file
from steelyard.cli.report_parts import ReportRequest, report_page
from steelyard.cli.report_sources import Told, read_marks, read_source
from steelyard.config.plan_settings import PlanSettings
from steelyard.errors import ConfigError
from steelyard.planner.workload_demand import MOST_GROWTH
from steelyard.report.writing import page_html, page_json, page_markdown

_MOST_SOURCES = 8
_HTML = (".html", ".htm")


def run_report(asked: ReportRequest, settings: PlanSettings) -> None:
    """Read, put together, and write or print.

    Args:
        asked: What to report on.
        settings: How the run's demand is priced, where no plan says so.

    Raises:
        SteelyardError: A file is wrong or cannot be written.
    """
    _check_out(asked.out)
    if not 0.0 < asked.growth_factor <= MOST_GROWTH:
        raise ConfigError(
            f"--growth {asked.growth_factor} must be a number above 0, at most {MOST_GROWTH:g}"
        )
    if asked.marks is not None:
        read_marks(asked.marks)
    told = [read_source(one) for one in _sources(asked)]
    _check_sorts(asked, told)
    page = report_page(told, asked, settings)
    if asked.out is not None:
        html = asked.out.suffix.lower() in _HTML
        _write(asked.out, page_html(page) if html else page_markdown(page))
    if asked.as_json:
        print(msgspec.json.encode(page_json(page)).decode())
    elif asked.out is None:
        print(page_markdown(page), end="")
    else:
        print(f"steelyard: wrote {asked.out}", file=sys.stderr)


def _sources(asked: ReportRequest) -> list[str]:
    more = [str(one) for one in (asked.plan, asked.simulation) if one is not None]
    found = list(dict.fromkeys([asked.source, *more, *asked.against]))
    if len(found) > _MOST_SOURCES:
        raise ConfigError(
            f"{len(found)} runs, plans and simulations do not fit on one page; give at most"
            f" {_MOST_SOURCES}"
        )
    return found


def _check_sorts(asked: ReportRequest, told: list[Told]) -> None:
    """Is what an option names of that sort?"""
    for option, path, sort in (
        ("--plan", asked.plan, "plan"),
        ("--simulation", asked.simulation, "simulation"),
    ):
        found = next(
            (one.sort for one in told if path is not None and one.label == str(path)), sort
        )
        if found != sort:
            raise ConfigError(f"{option} {path} is a {found}; give a {sort}, or use --against")
    if asked.marks is not None and not any(one.sort == "run" for one in told):
        raise ConfigError(f"--marks {asked.marks} marks moments of a run; give its log, too")


def _check_out(out: Path | None) -> None:
    if out is not None and out.suffix.lower() not in (*_HTML, ".md"):
        raise ConfigError(f"--out {out} must end in .html or .md, which says how it is written")
    check_file("--out", out)


def _write(out: Path, text: str) -> None:
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be written: {error.strerror}") from error
