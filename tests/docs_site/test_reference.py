"""The reference is written from the code, and leaves nothing out."""

import asyncio
import importlib
import pkgutil
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from docs_site.docstrings import entries
from docs_site.types import numeric, structs_in
from docs_site.units import unit
from starlette.routing import Route

import steelyard.config
import steelyard.errors
from docs_site import (
    configuration,
    decisions,
    errors_page,
    events_page,
    http_page,
    metrics_page,
    python_page,
)
from steelyard.domain.workload import Workload
from steelyard.errors import SteelyardError
from steelyard.gateway.control_plane import control_plane
from steelyard.gateway.metrics import Metrics
from steelyard.gateway.settings import GatewayLimits
from steelyard.runtime.context import TaskContext
from steelyard.store.workload_file import write_workload

ROOT = Path(__file__).parents[2]
PAGE = configuration.page()


def _settings_structs() -> list[type[msgspec.Struct]]:
    """Structs of `steelyard.config` that parse what a user writes: they refuse unknown fields."""
    found: dict[str, type[msgspec.Struct]] = {}
    for info in pkgutil.iter_modules(steelyard.config.__path__):
        module = importlib.import_module(f"steelyard.config.{info.name}")
        for name, value in vars(module).items():
            if isinstance(value, type) and issubclass(value, msgspec.Struct):
                struct: type[msgspec.Struct] = value
                if struct.__struct_config__.forbid_unknown_fields:
                    found[name] = struct
    return [found[name] for name in sorted(found)]


def test_every_struct_that_parses_settings_has_its_table() -> None:
    shown = {section.struct for file in configuration.files() for section in file.sections}
    top = {"Settings", "PlanSettings"}
    missing = [one.__name__ for one in _settings_structs() if one not in shown]
    assert set(missing) <= top, missing


@pytest.mark.parametrize(
    "section",
    [section for file in configuration.files() for section in file.sections],
    ids=lambda section: f"{section.place}{section.kind}",
)
def test_every_key_has_a_meaning_and_every_number_a_unit(section: configuration.Section) -> None:
    told = entries(section.struct)
    for field in msgspec.structs.fields(section.struct):
        assert told.get(field.name), f"{section.struct.__name__}.{field.name} says nothing"
        if numeric(field.type) and not structs_in(field.type):
            assert unit(field.encode_name), f"{section.place} {field.name}: write its unit down"


@pytest.mark.parametrize("name", ["steelyard.example.toml", "plan.example.toml"])
def test_every_key_of_the_example_files_is_in_the_reference(name: str) -> None:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    text = "\n".join(re.sub(r"^#(?=[\w\[\"])", "", line) for line in lines)
    keys = set(re.findall(r"^(\w+) = ", text, flags=re.MULTILINE))
    assert len(keys) > 20
    assert {key for key in keys if f"`{key}`" not in PAGE and f'"{key}' not in PAGE} <= {"kind"}


def test_every_error_is_listed_with_code_and_status() -> None:
    page = errors_page.page()
    drawn = page.split("```")[1]
    waiting: list[type[SteelyardError]] = [SteelyardError]
    while waiting:
        one = waiting.pop()
        own = steelyard.errors.__name__
        waiting += [kind for kind in one.__subclasses__() if kind.__module__ == own]
        row = rf"^\| `{one.__name__}` .* `{one.code}` \| [45]\d\d \|"
        assert re.search(row, page, re.MULTILINE), one.__name__
        assert re.search(rf"\b{one.__name__}\b", drawn), f"draw {one.__name__} in the tree"


def test_every_metric_that_is_shown_is_listed_and_every_label_of_it() -> None:
    shown = re.findall(r"^# HELP (\S+)", Metrics().render().decode(), flags=re.MULTILINE)
    assert [one.name for one in metrics_page.found()] == shown
    page = metrics_page.page()
    assert all(f"| `{name}` |" in page for name in shown)
    labels = {one.name: one.labels for one in metrics_page.found()}
    assert labels["steelyard_http_requests_total"] == ("path", "status")
    unlabelled = {name for name, keys in labels.items() if not keys}
    assert unlabelled == {"steelyard_tasks_open"}


def test_every_path_is_listed() -> None:
    page = http_page.page()
    # Routes are made without asking anybody.
    nobody: Any = object()
    app = control_plane(nobody, Metrics(), nobody, GatewayLimits(), asyncio.Event())
    known = {str(route.path) for route in app.routes if isinstance(route, Route)}
    folder = ROOT / "src" / "steelyard" / "gateway"
    for file in sorted(folder.glob("*.py")):
        known |= set(re.findall(r'"(/v1/[a-z/]+)"', file.read_text(encoding="utf-8")))
    known = {path.replace(":int", "") for path in known}
    assert {"/healthz", "/v1/chat/completions", "/v1/rerank", "/api/tasks"} <= known
    assert {path for path in known if f"`{path}`" not in page} == set()
    assert all(one.told for one in http_page.task_operations())


def test_every_header_that_the_gateway_reads_or_sends_is_listed() -> None:
    page = http_page.headers_page().lower()
    folder = ROOT / "src" / "steelyard" / "gateway"
    text = "\n".join(file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.py")))
    names = set(
        re.findall(r"\b[bf]?\"(?:\\r\\n)?(steelyard-[a-z-]+|x-should-retry|retry-after)", text)
    )
    assert {"steelyard-task", "steelyard-pool", "steelyard-cost-usd"} <= names
    assert {name for name in names if f"`{name}" not in page} == set()


def test_every_event_and_every_field_of_it_is_listed() -> None:
    page = events_page.page()
    for kind in (*events_page.kinds(), *events_page.parts()):
        part = page.split(f"{kind.__name__}\n", 1)[1].split("###")[0]
        for field in msgspec.structs.fields(kind):
            row = re.search(rf"^\| `{field.encode_name}` \|.*\| (.*) \|$", part, re.MULTILINE)
            assert row, f"{kind.__name__}.{field.encode_name} is not listed"
            assert row.group(1), f"{kind.__name__}.{field.encode_name} has no meaning"


def test_every_public_name_and_every_step_of_a_task_is_listed() -> None:
    page = python_page.page()
    names = [f"steelyard.{name}" for name in python_page.exported()]
    names += [f"ctx.{name}" for name in python_page.members(TaskContext)]
    assert "ctx.llm" in names
    assert [name for name in names if f"### `{name}" not in page] == []
    assert "Create a new string object" not in page


def test_every_column_of_a_workload_is_in_the_glossary(tmp_path: Path) -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    file = tmp_path / "none.parquet"
    write_workload(Workload(name="none", tasks=(), source="a test"), file)
    columns = pl.read_parquet(file).columns
    assert len(columns) > 15
    assert [name for name in columns if f"`{name}`" not in glossary] == []


def test_every_decision_is_in_the_index() -> None:
    page = decisions.page(ROOT / "docs" / "adr")
    files = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
    assert len(files) > 20
    assert [file.name for file in files if f"({file.name})" not in page] == []


def test_the_example_files_are_toml() -> None:
    for name in ("steelyard.example.toml", "plan.example.toml"):
        assert tomllib.loads((ROOT / name).read_text(encoding="utf-8"))
