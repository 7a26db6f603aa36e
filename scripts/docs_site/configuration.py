"""The reference of all configuration files, from the structs that parse them."""

from collections.abc import Iterator
from typing import Any, NamedTuple, get_origin

import msgspec

from docs_site.docstrings import entries, prose
from docs_site.tables import code, table
from docs_site.types import default, readable, structs_in
from docs_site.units import unit
from steelyard.cli.renting_file import RentingEntry
from steelyard.config.plan_settings import PlanSettings
from steelyard.config.settings import Settings
from steelyard.sim import Renting

_ELSEWHERE = "See `Renting`"


_INTRO = """# Configuration

Written from the code that reads the files. Unknown keys are refused with the nearest valid name.
Every setting says what is wanted, none says how.
"""


class Section(NamedTuple):
    """One table of a file.

    Attributes:
        place: How its head is written, such as `[gateway]`.
        kind: `kind = "..."` where that chooses it; empty elsewhere.
        struct: What it becomes.
    """

    place: str
    kind: str
    struct: type[msgspec.Struct]


class File(NamedTuple):
    """One sort of configuration file.

    Attributes:
        title: Heading of its part of the page.
        told: Who reads it.
        sections: Its tables.
    """

    title: str
    told: str
    sections: tuple[Section, ...]


def files() -> tuple[File, ...]:
    """Which configuration files are there?"""
    return (
        File(
            "steelyard.toml",
            "Read by `steelyard up`, `run`, `demo`, `reload` and `doctor` (`--config`). "
            "Relative paths are taken from the file's folder.",
            tuple(_sections("", Settings)),
        ),
        File(
            "The plan's file",
            "Read by `steelyard plan`, `simulate`, `report` and `export` (`--config`). "
            "`plan.example.toml` has every setting with a comment.",
            tuple(_sections("", PlanSettings)),
        ),
        File(
            "The renting file",
            "Read by `steelyard simulate --renting`. NAME is a pool's name or a pattern such as "
            '`"*/spot"`; see [simulating](../simulating.md).',
            (
                Section('[pools."NAME"]', "", RentingEntry),
                *_sections('pools."NAME".', RentingEntry),
            ),
        ),
    )


def page() -> str:
    """The whole page."""
    parts = [_INTRO]
    for file in files():
        parts += [f"## {file.title}\n", file.told + "\n"]
        parts += [_section(section) for section in file.sections]
    return "\n".join(parts)


def _sections(where: str, struct: type[msgspec.Struct]) -> Iterator[Section]:
    """The tables inside a table, each followed by its own."""
    for field in msgspec.structs.fields(struct):
        inner = structs_in(field.type)
        for one in inner:
            place = f"{where}{field.encode_name}"
            listed = _is_list(field.type)
            inside = f"{place}.NAME" if get_origin(field.type) is dict else place
            tag = one.__struct_config__.tag
            head = f"[[{inside}]]" if listed else f"[{inside}]"
            yield Section(head, f'kind = "{tag}"' if tag else "", one)
            yield from _sections(f"{inside}.", one)


def _is_list(kind: Any) -> bool:  # noqa: ANN401 - any annotation
    return get_origin(kind) is tuple


def _section(section: Section) -> str:
    told = entries(section.struct)
    if section.struct is RentingEntry:
        told = {
            key: entries(Renting)[key] if text.startswith(_ELSEWHERE) else text
            for key, text in told.items()
        }
    rows = [
        (
            code(field.encode_name),
            readable(field.type),
            default(field),
            unit(field.encode_name),
            told.get(field.name, ""),
        )
        for field in msgspec.structs.fields(section.struct)
        # Tables have sections of their own.
        if not structs_in(field.type)
    ]
    kind = f", {code(section.kind)}" if section.kind else ""
    shown = table(("key", "type", "default", "unit", "meaning"), rows) if rows else ""
    return f"### {code(section.place)}{kind}\n\n{prose(section.struct)}\n\n{shown}"
