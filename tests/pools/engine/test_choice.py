"""Which library serves? The measurement itself is replaced where it would need both engines."""

import functools
import importlib.machinery
import importlib.metadata
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from steelyard.config.choices import EngineChoice, PrecisionChoice
from steelyard.errors import MissingExtraError
from steelyard.pools.engine import choice, comparison
from steelyard.pools.engine.choice import ChosenEngine, choose_engine, installed_engines
from steelyard.pools.engine.comparison import Comparison, Variant, compare
from steelyard.pools.engine.model import ModelFile, find_model
from steelyard.pools.engine.per_channel import PerChannelCopy, Verdict


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
        self.compared: list[str] = []
        self.wall_s = {"openvino": 1.0, "openvino in f32": 1.5, "llamacpp": 2.0}
        self.wall_s["openvino in int8"] = 0.9
        self.failed: dict[str, str] = {}
        monkeypatch.setattr(choice, "compare", self._compare)

        def version(_: str) -> str:
            return "1.0"

        monkeypatch.setattr(importlib.metadata, "version", version)

    async def _compare(
        self, variants: Sequence[Variant], model_path: Path, cache: Path
    ) -> Comparison:
        assert (model_path, cache) == (Path(self.model.path), self.memory.parent)
        self.compared = [str(variant) for variant in variants]
        self.measured += 1
        names = [str(variant) for variant in variants]
        return Comparison(
            wall_s={name: self.wall_s[name] for name in names if name not in self.failed},
            failed={name: self.failed[name] for name in names if name in self.failed},
        )

    def install(self, *modules: str) -> None:
        def find(name: str) -> importlib.machinery.ModuleSpec | None:
            return importlib.machinery.ModuleSpec(name, None) if name in modules else None

        self._monkeypatch.setattr(importlib.util, "find_spec", find)

    async def choose(
        self,
        asked: EngineChoice = "auto",
        processor: str = "cpu",
        precision: PrecisionChoice = "auto",
    ) -> ChosenEngine:
        return await choose_engine(asked, self.model, processor, self.memory, precision)


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


async def test_measures_each_of_two_models_that_were_tuned_from_one_base(host: Host) -> None:
    for tuned in (b"1", b"2"):
        # Of one size, and with the same first megabytes.
        Path(host.model.path).write_bytes(b"GGUF" + bytes(2 << 20) + tuned)
        await host.choose()
    assert host.measured == 2


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


async def test_takes_the_faster_precision_where_the_processor_has_two(host: Host) -> None:
    processor = "flags: avx512f amx_bf16"
    assert (await host.choose("openvino", processor)).precision == "native"
    host.wall_s["openvino in f32"] = 0.7
    host.memory.unlink()
    chosen = await host.choose("auto", processor)
    assert (chosen.engine, chosen.precision) == ("openvino", "f32")
    assert str(chosen) == "openvino in f32"
    assert "openvino 1.00 s" in chosen.reason


async def test_takes_an_8_bit_copy_where_the_processor_multiplies_integers(host: Host) -> None:
    assert (await host.choose("openvino", "flags: avx512_vnni")).precision == "int8"
    assert host.compared == ["openvino", "openvino in int8"]
    assert (await host.choose("openvino", "flags: amx_bf16 amx_int8")).precision == "int8"
    assert host.compared == ["openvino", "openvino in f32", "openvino in int8"]
    assert (await host.choose("openvino", "flags: amx_bf16")).precision == "native"


def keep_verdict(host: Host, verdict: Verdict) -> None:
    folder = PerChannelCopy(Path(host.model.path), host.memory.parent).folder
    folder.mkdir(parents=True)
    (folder / "verdict.json").write_bytes(msgspec.json.encode(verdict))


async def test_offers_no_copy_that_is_known_to_predict_worse(host: Host) -> None:
    processor = "flags: avx512_vnni"
    keep_verdict(host, Verdict(refused="its perplexity is 78.3"))
    chosen = await host.choose("auto", processor)
    assert host.compared == ["openvino", "llamacpp"]
    assert (chosen.engine, chosen.precision) == ("openvino", "native")
    assert "openvino in int8 is not taken (its perplexity is 78.3)" in chosen.reason
    assert (await host.choose("auto", processor)).precision == "native"
    assert host.measured == 1


async def test_remembers_the_rest_when_a_copy_is_refused_while_it_is_measured(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def compare_and_refuse(
        variants: Sequence[Variant], model_path: Path, cache: Path
    ) -> Comparison:
        assert variants
        assert model_path.exists()
        host.measured += 1
        assert cache == host.memory.parent
        keep_verdict(host, Verdict(refused="its perplexity is 78.3"))
        return Comparison(wall_s={"openvino": 1.0}, failed={"openvino in int8": "it loses"})

    monkeypatch.setattr(choice, "compare", compare_and_refuse)
    chosen = await host.choose("openvino", "flags: avx512_vnni")
    assert chosen.precision == "native"
    assert "is not taken (its perplexity is 78.3)" in chosen.reason
    assert "failed" not in chosen.reason
    assert (await host.choose("openvino", "flags: avx512_vnni")).precision == "native"
    assert host.measured == 1


async def test_measures_no_precision_that_is_configured_or_the_only_one(host: Host) -> None:
    assert (await host.choose("openvino", "bf16", "f32")).precision == "f32"
    assert (await host.choose("openvino", "bf16", "native")).precision == "native"
    assert (await host.choose("openvino", "bf16", "int8")).precision == "int8"
    assert (await host.choose("openvino", "avx2")).precision == "native"
    assert host.measured == 0


async def test_takes_the_other_one_when_one_fails_and_tries_again_next_time(host: Host) -> None:
    host.failed = {"openvino": "it died"}
    chosen = await host.choose()
    assert chosen.engine == "llamacpp"
    assert "openvino failed while it was measured (it died)" in chosen.reason
    host.failed = {}
    assert (await host.choose()).engine == "openvino"


async def test_takes_the_first_one_when_none_can_be_measured(host: Host) -> None:
    host.failed = {"openvino": "it died", "llamacpp": "too slow"}
    chosen = await host.choose()
    assert chosen.engine == "openvino"
    assert "too slow" in chosen.reason


@pytest.mark.engine
@pytest.mark.timeout(300)
async def test_measures_the_engines_that_are_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = installed_engines()
    if len(installed) < 2:
        pytest.skip("one engine alone is installed: nothing to measure")
    monkeypatch.setattr(comparison, "_ROUNDS", 1)
    # The machine that tests may be busy.
    monkeypatch.setattr(choice, "compare", functools.partial(compare, limit_s=240.0))
    chosen = await choose_engine("auto", find_model(), "cpu", tmp_path / "engines.json")
    assert chosen.engine in installed
    assert "s for a small workload" in chosen.reason
