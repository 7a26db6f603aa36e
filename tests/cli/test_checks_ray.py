"""What doctor says of a pool on Ray, without a cluster and with something that listens."""

import importlib.util
import socket
from pathlib import Path

import pytest

from steelyard.cli.checks_ray import ray_check
from steelyard.config.ray_settings import RayPoolSettings


def _missing(_: str) -> None:
    return None


def _there(_: str) -> object:
    return object()


def _pool(address: str) -> RayPoolSettings:
    return RayPoolSettings(runs="tools", ray_address=address)


def test_without_ray_the_cure_is_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", _missing)
    found = ray_check("r", _pool("auto"))
    assert found.state == "failure"
    assert "steelyard[ray]" in found.cure


def test_a_head_that_listens_is_found_by_its_address_and_by_rays_note(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", _there)
    note = tmp_path / "ray_current_cluster"
    assert ray_check("r", _pool("auto"), note).state == "warning"
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        assert ray_check("r", _pool(address), note).state == "ok"
        note.write_text(f"{address}\n", encoding="utf-8")
        assert ray_check("r", _pool("auto"), note).state == "ok"
    assert ray_check("r", _pool(address), note).state == "failure"
