"""What the code says of itself: Google docstrings, taken apart."""

import inspect
import re

_SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields|Source):$")
_ENTRY = re.compile(r"^ {4}(\*{0,2}\w+): +(.*)$")
# An entry of a list in prose: "- `Name`: what it is".
_ITEM = re.compile(r"^- (`.*)$")


def prose(thing: object) -> str:
    """What does a docstring say before its first section and its first doctest?

    Args:
        thing: A module, class or function.

    Returns:
        Its paragraphs; empty where nothing is said.
    """
    kept: list[str] = []
    for line in (inspect.getdoc(thing) or "").splitlines():
        if _SECTION.match(line) or line.startswith(">>>"):
            break
        kept.append(line)
    return "\n".join(kept).strip()


def entries(thing: object, section: str = "Attributes") -> dict[str, str]:
    """What does a docstring say of each attribute or argument?

    Args:
        thing: A class or function.
        section: Heading of the section.

    Returns:
        Text by name, on one line.
    """
    found: dict[str, list[str]] = {}
    inside, name = False, ""
    for line in (inspect.getdoc(thing) or "").splitlines():
        if _SECTION.match(line):
            inside = line == f"{section}:"
            continue
        entry = _ENTRY.match(line) if inside else None
        if entry:
            name = entry.group(1)
            found[name] = [entry.group(2)]
        elif inside and name and line.startswith(" " * 8):
            found[name].append(line.strip())
    return {name: " ".join(lines) for name, lines in found.items()}


def items(thing: object, heading: str) -> list[str]:
    """Which items stand in a docstring's list below a line?

    Args:
        thing: A module, class or function.
        heading: The line before the list, with its colon.

    Returns:
        The items without their dashes, each on one line.
    """
    found: list[str] = []
    inside = False
    for line in (inspect.getdoc(thing) or "").splitlines():
        if line == heading:
            inside = True
        elif inside and line and not line.startswith(("- ", "  ")):
            break
        elif inside and (item := _ITEM.match(line)):
            found.append(item.group(1))
        elif inside and found and line.strip():
            found[-1] += f" {line.strip()}"
    return found
