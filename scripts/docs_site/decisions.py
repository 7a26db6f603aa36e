"""The index of decisions, docs/adr, from their own first lines."""

import re
from pathlib import Path

from docs_site.tables import table

_TITLE = re.compile(r"^# (\d+)\. (.+)$")


def page(folder: Path) -> str:
    """The whole page.

    Args:
        folder: Where the decisions are.

    Returns:
        Markdown.

    Raises:
        ValueError: A decision does not begin as the others do.
    """
    rows: list[tuple[str, str, str]] = []
    for file in sorted(folder.glob("[0-9]*.md")):
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        title = _TITLE.match(lines[0])
        if title is None:
            raise ValueError(f"{file}: the first line is {lines[0]!r}; write '# NUMBER. Title'")
        rows.append((title.group(1), f"[{title.group(2)}]({file.name})", lines[1]))
    intro = "Decisions that somebody could question later. They are dated, and not rewritten.\n"
    return f"# Decisions\n\n{intro}\n{table(('number', 'decision', 'state'), rows)}"
