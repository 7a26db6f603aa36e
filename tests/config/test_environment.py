from pathlib import Path

import pytest

from steelyard.config.environment import machine_arch, read_keys, secret, usable_cores
from steelyard.errors import ConfigError


def test_a_secret_is_read_without_white_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_KEY", " sk-1\n")
    assert secret("OUR_KEY", "pools.a.api_key_env") == "sk-1"


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_secret_that_is_not_set_is_named_with_its_setting(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OUR_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("OUR_KEY", value)
    with pytest.raises(ConfigError, match=r"pools\.a\.api_key_env .* OUR_KEY, which is not set"):
        secret("OUR_KEY", "pools.a.api_key_env")


def test_keys_stand_one_per_line(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# for the team\n\n  one  \n  # once three\ntwo\n", encoding="utf-8")
    assert read_keys(path) == ("one", "two")


@pytest.mark.parametrize("content", [b"", b"# nothing\n\n", b"\xff\xfe"])
def test_a_file_without_keys_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"gateway\.api_keys_file .*keys "):
        read_keys(path)


def test_a_missing_file_of_keys_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gateway\.api_keys_file .*gone cannot be read"):
        read_keys(tmp_path / "gone")


@pytest.mark.parametrize(
    ("machine", "arch"),
    [("x86_64", "x86_64"), ("AMD64", "x86_64"), ("aarch64", "arm64"), ("arm64", "arm64")],
)
def test_machines_are_known_by_several_names(
    machine: str, arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert machine_arch() == arch


def test_an_unknown_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(ConfigError, match="this machine is riscv64"):
        machine_arch()


def test_there_is_a_core() -> None:
    assert usable_cores() >= 1
