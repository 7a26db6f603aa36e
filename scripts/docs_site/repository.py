"""Links that leave docs/: files of the repository become pages of the site; no link is dead."""

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

# [text](target#anchor), and images; not what has a scheme, and not anchors alone.
_LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?(\))")
_FENCE = re.compile(r"^\s*(`{3,}|~{3,})")
_LANGUAGES = {".py": "python", ".toml": "toml", ".sh": "sh", ".csv": "text", ".css": "css"}
FOLDER = PurePosixPath("repository")
DOCS = PurePosixPath("docs")


def site_path(root: Path, target: PurePosixPath) -> PurePosixPath | None:
    """Which page of the site shows a file of the repository?

    Args:
        root: The repository.
        target: Path of the file in it.

    Returns:
        Path below the site's sources; None for what is no file, which the site does not show.
    """
    if target.is_relative_to(DOCS):
        return target.relative_to(DOCS)
    if not (root / target).is_file():
        return None
    shown = FOLDER / target
    return shown if target.suffix == ".md" else shown.with_name(f"{shown.name}.md")


def rewritten(text: str, root: Path, source: PurePosixPath, page: PurePosixPath) -> str:
    """Markdown with its links pointing to pages of the site.

    Args:
        text: The Markdown.
        root: The repository.
        source: The file it stands in, from which its links are meant.
        page: The page that shows it.

    Returns:
        The same with other targets. Links to folders lose their target, code stays as it is.
    """

    def replace(found: re.Match[str]) -> str:
        opened, target, anchor, closed = found.groups()
        shown = site_path(root, _resolved(source, target))
        if shown is None:
            return found.group(0)
        relative = os.path.relpath(shown, page.parent)
        return f"{opened}{relative}{anchor or ''}{closed}"

    return "\n".join(
        _LINK.sub(replace, line) if prose else line for prose, line in _lines(text)
    ) + ("\n" if text.endswith("\n") else "")


def linked(text: str, root: Path, source: PurePosixPath) -> set[PurePosixPath]:
    """Which files of the repository outside of docs/ does Markdown link to?"""
    found: set[PurePosixPath] = set()
    for prose, line in _lines(text):
        for link in _LINK.finditer(line) if prose else ():
            target = _resolved(source, link.group(2))
            if not target.is_relative_to(DOCS) and (root / target).is_file():
                found.add(target)
    return found


def shown_files(root: Path, first: Iterable[PurePosixPath]) -> dict[PurePosixPath, str]:
    """Pages of all files that are linked to, and that those link to.

    Args:
        root: The repository.
        first: Files of the repository to begin with; those of docs/ are only read.

    Returns:
        Markdown by path of the page.
    """
    pages: dict[PurePosixPath, str] = {}
    waiting, seen = sorted(first), set[PurePosixPath]()
    while waiting:
        source = waiting.pop(0)
        if source in seen:
            continue
        seen.add(source)
        text = (root / source).read_text(encoding="utf-8")
        if source.suffix == ".md":
            waiting += sorted(linked(text, root, source) - seen)
        page = site_path(root, source)
        if page is not None and not source.is_relative_to(DOCS):
            markdown = source.suffix == ".md"
            pages[page] = rewritten(text, root, source, page) if markdown else _code(source, text)
    return pages


def _resolved(source: PurePosixPath, target: str) -> PurePosixPath:
    return PurePosixPath(os.path.normpath(source.parent / target))


def _lines(text: str) -> Iterable[tuple[bool, str]]:
    """Each line, and whether it is prose rather than inside of a fence."""
    fence = ""
    for line in text.splitlines():
        mark = _FENCE.match(line)
        inside = bool(fence)
        if mark and not fence:
            fence = mark.group(1)
        elif mark and mark.group(1).startswith(fence):
            fence = ""
        yield not (inside or mark), line


def _code(source: PurePosixPath, text: str) -> str:
    language = _LANGUAGES.get(source.suffix, "text")
    # The search index is for people's questions, not for code.
    head = "---\nsearch:\n  exclude: true\n---\n"
    return f"{head}# {source}\n\n`````{language}\n{text.rstrip()}\n`````\n"
