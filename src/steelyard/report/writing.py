"""A report as a self-contained HTML page, as Markdown, and as one JSON object."""

from typing import Any

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined

from steelyard.report.grid import Grid
from steelyard.report.page import Block, Figure, Page, Section

# What Markdown would take for markup in a name that a user gave.
_SPECIAL = str.maketrans({one: f"\\{one}" for one in "\\`*_[]|#~$"} | {"<": "&lt;", ">": "&gt;"})


def page_html(page: Page) -> str:
    """The report as one file that loads nothing, for light and dark screens.

    Args:
        page: The report.

    Returns:
        HTML; every name that a user gave is escaped.
    """
    environment = Environment(
        autoescape=True,
        loader=PackageLoader("steelyard.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(page=page)


def page_markdown(page: Page) -> str:
    """The report as Markdown: tables with their sources; plots are named, and in the HTML alone.

    Args:
        page: The report.

    Returns:
        Markdown with tables as GitHub reads them; names that a user gave are escaped.
    """
    parts = [
        f"# {_text(page.title)}",
        f"{_text(page.made)}. {_text(page.about)} Again by {_code(page.command)}.",
    ]
    tiles = ["| figure | value | source |", "|---|---:|---|"]
    for one in page.tiles:
        about = f": {one.about}" if one.about else ""
        cells = (f"{one.name}{about}", one.told(), one.where.origin)
        tiles.append(f"| {' | '.join(_text(cell) for cell in cells)} |")
    parts.append("\n".join(tiles))
    for section in page.sections:
        parts += _section(section)
    parts.append("## How to read this")
    parts.append(
        "Measured: on real machines. Predicted: from curves and prices before the fact. Planned (by"
        " the planner) and simulated (on a virtual clock) are predictions, too. Declared: by a"
        " person. 1 µ\\$ is a millionth of a US dollar."
    )
    if page.assumptions:
        parts.append("\n".join(f"- {_text(one)}" for one in page.assumptions))
    return "\n\n".join(parts) + "\n"


def _section(section: Section) -> list[str]:
    parts = [f"## {_text(section.title)}", *(_text(line) for line in section.lead)]
    for block in section.blocks:
        parts += _block(block)
    return parts


def _block(block: Block) -> list[str]:
    if block.grid is not None and block.grid.rows:
        return [*_table(block.grid), _source(block)]
    if block.svg:
        return [f"*Plot, in the HTML form: {_text(block.caption)}*"]
    return []


def _source(block: Block) -> str:
    where = block.where
    told = f"{block.origin} from" if block.origin else "from"
    return f"{told} {_text(where.source)}; again by {_code(where.command)}"


def _code(words: str) -> str:
    fence = "``" if "`" in words else "`"
    return f"{fence}{words}{fence}"


def _table(grid: Grid) -> list[str]:
    origin = f" ({grid.origin})" if grid.origin else ""
    lines = [
        f"| {' | '.join(_text(column.head) for column in grid.columns)} |",
        f"|{'|'.join('---:' if column.number else '---' for column in grid.columns)}|",
        *(f"| {' | '.join(_text(cell) for cell in row)} |" for row in grid.rows),
    ]
    note = [_text(grid.note)] if grid.note else []
    return [f"### {_text(grid.title)}{origin}", "\n".join(lines), *note]


def _text(words: str) -> str:
    return words.translate(_SPECIAL).replace("\n", " ")


def page_json(page: Page) -> dict[str, Any]:
    """The report's numbers for machines.

    Args:
        page: The report.

    Returns:
        Keys `title`, `made`, `about`, `assumptions` and `figures`: objects with `section`, `name`,
        `about`, `value` (never rounded; null where there is none), `unit`, `origin`, `source` and
        `command`.
    """
    told = [("summary", one) for one in page.tiles]
    told += [(section.key, one) for section in page.sections for one in section.figures]
    return {
        "title": page.title,
        "made": page.made,
        "about": page.about,
        "assumptions": page.assumptions,
        "figures": [_figure_json(section, one) for section, one in told],
    }


def _figure_json(section: str, figure: Figure) -> dict[str, Any]:
    own = {"name": figure.name, "about": figure.about, "value": figure.value, "unit": figure.unit}
    return {"section": section, **own, **msgspec.to_builtins(figure.where)}
