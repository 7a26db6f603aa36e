"""The examples in the documents: fenced blocks, and commands in running text.

A comment before a block changes what is done with it: `<!-- example: parse -->` in front of Python
that cannot run by itself, `<!-- example: skip, REASON -->` in front of what is no example.
"""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
_MARK = re.compile(r"<!-- example: (parse|skip), .{10,} -->|<!-- example: parse -->")
_PROGRAM = re.compile(r"^(?:\$ )?(?:export \w+=\$\()?(?:\.venv/bin/)?steelyard ")
# Decisions are dated and not rewritten; the reference of commands is checked by its own test.
_LEFT_OUT = ("docs/adr/", "docs/cli.md")


class Block(NamedTuple):
    """One fenced block.

    Attributes:
        place: File and line.
        language: First word after the fence; empty without one.
        text: What is in it.
        mark: What a comment says about it: `parse`, `skip`, or empty.
    """

    place: str
    language: str
    text: str
    mark: str


def documents() -> list[Path]:
    """README and every page whose examples are to hold."""
    pages = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
    return [
        page
        for page in pages
        if not page.relative_to(ROOT).as_posix().startswith(_LEFT_OUT)
        and page.name != "CHANGELOG.md"
    ]


def blocks(language: str) -> list[Block]:
    """All blocks of a language, without those that are to be skipped."""
    return [
        block
        for page in documents()
        for block in blocks_of(page.relative_to(ROOT).as_posix(), page.read_text(encoding="utf-8"))
        if block.language == language and block.mark != "skip"
    ]


def blocks_of(name: str, text: str) -> list[Block]:
    """The fenced blocks of one document."""
    found: list[Block] = []
    mark = ""
    for token in MarkdownIt().parse(text):
        if token.type == "fence":
            language = (token.info.split() or [""])[0]
            place = f"{name}:{(token.map or [0])[0] + 1}"
            found.append(Block(place, language, token.content, mark))
        marked = _MARK.match(token.content.strip()) if token.type == "html_block" else None
        mark = (marked.group(1) or "parse") if marked else ""
    return found


def commands() -> list[tuple[str, str]]:
    """Every `steelyard` command in a fenced block: its place, and its line."""
    return [
        (block.place, line.strip())
        for language in ("", "sh", "console", "bash")
        for block in blocks(language)
        # A line that goes on is one with the next.
        for line in block.text.replace("\\\n", " ").splitlines()
        if _PROGRAM.match(line.strip())
    ]


def inline_commands() -> list[tuple[str, str]]:
    """Every `steelyard ...` in running text: its place, and the words."""
    parser = MarkdownIt().enable("table")
    return [
        (f"{page.relative_to(ROOT).as_posix()}:{(token.map or [0])[0] + 1}", child.content)
        for page in documents()
        for token in parser.parse(page.read_text(encoding="utf-8"))
        for child in token.children or ()
        if child.type == "code_inline" and child.content.startswith("steelyard ")
    ]


def words(line: str) -> list[str]:
    """The arguments of a command line, without prompt, pipe, redirection and comment.

    >>> words("$ steelyard plan --out p.json > log  # why")
    ['plan', '--out', 'p.json']
    """
    lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    told = [*lexer]
    begin = next(at for at, word in enumerate(told) if word.endswith("steelyard"))
    kept: list[str] = []
    for word in told[begin + 1 :]:
        if word[0] in "();<>|&":
            break
        kept.append(word)
    return kept
