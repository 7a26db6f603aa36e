"""Real gateways in processes of their own: one with a scripted upstream, one that wants keys."""

import importlib.util
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

HERE = Path(__file__).parent
STEELYARD = HERE.parent / ".venv" / "bin" / "steelyard"
CONFIGURATION = """
[gateway]
port = 0
[pools.local]
kind = "embedded"
# Texts differ between precisions, and `auto` chooses by the machine: the small model ends its
# answers here, and rambles to the limit elsewhere.
precision = "f32"
[pools.vectors]
kind = "embedded"
task = "embeddings"
[pools.upstream]
kind = "endpoint"
base_urls = ["{url}"]
models = ["mock"]
engine = "openai"
usd_per_hour = 1.0
[[aliases.either.candidates]]
model = "mock"
"""

KEYED = """
[gateway]
port = 0
require_key = true
[store]
path = "{store}"
[pools.local]
kind = "embedded"
# Texts differ between precisions, and `auto` chooses by the machine: the small model ends its
# answers here, and rambles to the limit elsewhere.
precision = "f32"
"""


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the gateway, with /v1."""
    folder = tmp_path_factory.mktemp("gateway")
    with (
        _load("scripted_upstream").scripted_upstream() as upstream,
        _running(folder, CONFIGURATION.format(url=upstream)) as address,
    ):
        yield address


class Keyed(NamedTuple):
    """A gateway that takes no request without a key.

    Attributes:
        base_url: What clients are given, with /v1.
        store: Its store.
    """

    base_url: str
    store: Path

    def key(self, name: str, *options: str) -> str:
        """A new key, as a user makes one."""
        command = [str(STEELYARD), "keys", "create", name, "--store", str(self.store), *options]
        return subprocess.run(  # noqa: S603 - our own program
            command, check=True, capture_output=True, text=True
        ).stdout.strip()


@pytest.fixture(scope="session")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    """A gateway with the embedded model that wants keys."""
    folder = tmp_path_factory.mktemp("keyed")
    store = folder / "tasks.db"
    with _running(folder, KEYED.format(store=store)) as address:
        yield Keyed(address, store)


@contextmanager
def _running(folder: Path, configuration: str) -> Iterator[str]:
    """`steelyard up`; yields its address with /v1, and ends it."""
    config = folder / "steelyard.toml"
    config.write_text(configuration, encoding="utf-8")
    command = [str(STEELYARD), "up", "--config", str(config)]
    with subprocess.Popen(  # noqa: S603 - our own program
        command, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield _address(process)
        finally:
            process.send_signal(signal.SIGTERM)
            told = process.communicate(timeout=30)[1]
            sys.stderr.write(told)
            assert "Traceback" not in told


def _address(process: "subprocess.Popen[str]") -> str:
    """Wait until the gateway tells its address; its end closes the pipe."""
    told: list[str] = []
    for line in process.stderr or ():
        told.append(line)
        found = re.search(r"http://\S+/v1", line)
        if "serving" in line and found:
            return found.group(0)
    raise AssertionError("".join(told))
