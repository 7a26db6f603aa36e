"""Which library serves? The measurement itself is replaced where it would need both engines."""

import importlib.machinery
import importlib.metadata
import importlib.util
from pathlib import Path

import pytest

from steelyard.config.pool_settings import EngineChoice
from steelyard.errors import MissingExtraError
from steelyard.pools.engine import choice
from steelyard.pools.engine.adapter import EngineName
from steelyard.pools.engine.choice import ChosenEngine, choose_engine, installed_engines
from steelyard.pools.engine.model import ModelFile, find_model


@pytest.fixture
def model(tmp_path: Path) -> ModelFile:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")
    return ModelFile(path=str(path), architecture="llama", context_tokens=64)


class Host:
    """A host with some libraries, on which measuring takes no time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, memory: Path, model: ModelFile) -> None:
        self._monkeypatch = monkeypatch
        self.memory = memory
        self.model = model
        self.measured = 0
        self.wall_s: dict[EngineName, float] = {"openvino": 1.0, "llamacpp": 2.0}
        monkeypatch.setattr(choice, "_measured", self._measure)

        def version(_: str) -> str:
            return "1.0"

        monkeypatch.setattr(importlib.metadata, "version", version)

    async def _measure(
        self, engines: tuple[EngineName, ...], model_path: Path
    ) -> dict[EngineName, float]:
        assert model_path == Path(self.model.path)
        self.measured += 1
        return {engine: self.wall_s[engine] for engine in engines}

    def install(self, *modules: str) -> None:
        def find(name: str) -> importlib.machinery.ModuleSpec | None:
            return importlib.machinery.ModuleSpec(name, None) if name in modules else None

        self._monkeypatch.setattr(importlib.util, "find_spec", find)

    async def choose(self, asked: EngineChoice = "auto", processor: str = "cpu") -> ChosenEngine:
        return await choose_engine(asked, self.model, processor, self.memory)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: ModelFile) -> Host:
    host = Host(monkeypatch, tmp_path / "state" / "engines.json", model)
    host.install("openvino_genai", "xllamacpp")
    return host


async def test_takes_the_faster_one_and_says_why(host: Host) -> None:
    chosen = await host.choose()
    assert chosen.engine == "openvino"
    assert "1.00 s" in chosen.reason
    assert "llamacpp 2.00 s" in chosen.reason


async def test_measures_once_per_host_libraries_and_model(host: Host) -> None:
    first = await host.choose()
    assert await host.choose() == first
    assert host.measured == 1
    host.wall_s["llamacpp"] = 0.5
    assert (await host.choose(processor="another")).engine == "llamacpp"
    assert (await host.choose()).engine == "openvino"
    Path(host.model.path).write_bytes(b"GGUF, another")
    assert (await host.choose()).engine == "llamacpp"
    assert host.measured == 3


@pytest.mark.parametrize("content", ["", "no JSON", '[{"key": 1}]'])
async def test_measures_anew_when_what_is_kept_cannot_be_read(host: Host, content: str) -> None:
    host.memory.parent.mkdir()
    host.memory.write_text(content)
    assert (await host.choose()).engine == "openvino"
    assert (await host.choose()).engine == "openvino"
    assert host.measured == 1


async def test_works_where_nothing_can_be_kept(host: Host) -> None:
    host.memory.parent.write_text("a file where the folder should be")
    assert (await host.choose()).engine == "openvino"


async def test_takes_what_is_configured_or_the_only_one_without_measuring(host: Host) -> None:
    assert await host.choose("llamacpp") == ChosenEngine(engine="llamacpp", reason="as configured")
    host.install("xllamacpp")
    assert installed_engines() == ("llamacpp",)
    assert (await host.choose()).engine == "llamacpp"
    assert host.measured == 0


async def test_says_how_to_install_what_is_missing(host: Host) -> None:
    host.install("xllamacpp")
    with pytest.raises(MissingExtraError, match=r"pip install 'steelyard\[engine\]'"):
        await host.choose("openvino")
    host.install("openvino_genai")
    with pytest.raises(MissingExtraError, match=r"pip install 'steelyard\[engine-llamacpp\]'"):
        await host.choose("llamacpp")
    host.install()
    with pytest.raises(MissingExtraError, match=r"pip install 'steelyard\[engine\]'"):
        await host.choose()


@pytest.mark.engine
@pytest.mark.timeout(300)
async def test_measures_the_engines_that_are_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = installed_engines()
    if len(installed) < 2:
        pytest.skip("one engine alone is installed: nothing to measure")
    monkeypatch.setattr(choice, "_ROUNDS", 1)
    chosen = await choose_engine("auto", find_model(), "cpu", tmp_path / "engines.json")
    assert chosen.engine in installed
    assert "s for a small workload" in chosen.reason
