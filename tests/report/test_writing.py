import json

import msgspec

from steelyard.report.grid import Grid, columns
from steelyard.report.page import Figure, Page, Section, Source, table
from steelyard.report.writing import page_html, page_json, page_markdown

HOSTILE = "<script>alert('x')</script>|`*"
WHERE = Source(origin="measured", source=HOSTILE, command=f"steelyard report {HOSTILE}")
GRID = Grid(title="t", origin=None, columns=columns(("a", "b"), ()), rows=((HOSTILE, HOSTILE),))
PAGE = Page(
    title=HOSTILE,
    made="2026-11-23",
    about=HOSTILE,
    command=WHERE.command,
    tiles=(Figure(name=HOSTILE, value=1 / 3, unit="USD", where=WHERE),),
    sections=(Section(key="k", title=HOSTILE, lead=(HOSTILE,), blocks=(table(GRID, WHERE),)),),
)


def test_names_from_users_are_text_in_html() -> None:
    assert "<script" not in page_html(PAGE)


def test_names_from_users_break_no_table_in_markdown() -> None:
    rows = [line for line in page_markdown(PAGE).splitlines() if line.startswith("| &lt;script")]
    assert len(rows) == 2
    assert all("\\|" in row for row in rows)


def test_a_table_of_several_origins_is_not_shown_as_of_one() -> None:
    assert "measured from" not in page_markdown(PAGE)
    known = msgspec.structs.replace(GRID, origin="measured")
    section = Section(key="k", title="t", blocks=(table(known, WHERE),))
    page = msgspec.structs.replace(PAGE, sections=(section,))
    assert "measured from" in page_markdown(page)
    badges = [one.count('class="origin measured"') for one in (page_html(PAGE), page_html(page))]
    assert badges[1] == badges[0] + 2


def test_numbers_are_never_rounded_in_json() -> None:
    told = json.loads(msgspec.json.encode(page_json(PAGE)))
    assert told["figures"][0]["value"] == 1 / 3
    assert told["figures"][0]["unit"] == "USD"
