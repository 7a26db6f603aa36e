"""Importing the package costs nothing that a tool worker or a script does not need."""

import subprocess
import sys

import pytest

HEAVY = {
    "aiohttp",
    "highspy",
    "jinja2",
    "matplotlib",
    "msgspec",
    "numpy",
    "openvino",
    "openvino_genai",
    "polars",
    "ray",
    "starlette",
    "typer",
    "uvicorn",
    "xllamacpp",
}
# What the pure core and the event log may load.
LIGHT = {"msgspec", "numpy"}


def _loaded_by(statement: str) -> set[str]:
    ran = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", f"import sys; {statement}; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.partition(".")[0] for name in ran.stdout.split()}


def test_importing_the_package_loads_none_of_its_dependencies() -> None:
    assert _loaded_by("import steelyard") & HEAVY == set()


@pytest.mark.parametrize(
    "module",
    [
        "steelyard.ledger.summary",
        "steelyard.placement.policy",
        "steelyard.placement.replay",
        "steelyard.sim",
        "steelyard.store.sqlite_log",
    ],
)
def test_the_core_loads_arrays_and_structs_alone(module: str) -> None:
    assert _loaded_by(f"import {module}") & HEAVY <= LIGHT


def test_the_command_line_starts_without_the_heavy_parts() -> None:
    loaded = _loaded_by("import steelyard.cli.app")
    assert loaded & HEAVY == {"typer"}
