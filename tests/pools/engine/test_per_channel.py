"""The 8-bit copy of a model: its numbers, its folder, and the guard of its quality."""

import importlib.util
import math
import multiprocessing
import os
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.errors import ConfigError
from steelyard.pools.engine import per_channel
from steelyard.pools.engine.adapter import EngineSettings
from steelyard.pools.engine.model import find_model, read_header
from steelyard.pools.engine.per_channel import (
    PerChannelCopy,
    Verdict,
    activation_group,
    refusal,
    write_tokenizer,
)

_ROWS = st.lists(
    st.lists(st.floats(-8, 8, width=32), min_size=6, max_size=6), min_size=1, max_size=4
)


@given(_ROWS)
def test_weights_stay_within_half_a_step_of_their_row(rows: list[list[float]]) -> None:
    weights = np.array(rows, np.float32)
    numbers, scales = per_channel.per_channel(weights)
    assert numbers.dtype == np.int8
    assert scales.shape == (len(rows), 1)
    largest = np.abs(weights).max(axis=1, keepdims=True)
    # The scale has 11 bits, and fewer among the smallest numbers.
    apart = np.abs(numbers * scales - weights)
    assert bool((apart <= largest * (0.5 / 127 + 2**-10) + 1e-5).all())


@given(st.lists(st.integers(1, 64).map(lambda n: 32 * n), min_size=1, max_size=5))
def test_the_group_divides_every_layer(widths: list[int]) -> None:
    group = activation_group(widths)
    assert 32 <= group <= 256
    assert all(width % group == 0 for width in widths)


@given(st.floats(1, 1e6))
def test_a_copy_is_refused_from_three_percent_of_loss_on(expected: float) -> None:
    assert not refusal(expected * 1.029, expected)
    assert refusal(expected * 1.031, expected)
    assert refusal(math.nan, expected)


@pytest.fixture
def copy(tmp_path: Path) -> PerChannelCopy:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")
    return PerChannelCopy(path, tmp_path / "cache")


def write(copy: PerChannelCopy, verdict: Verdict, weights: bytes = b"") -> None:
    copy.folder.mkdir(parents=True)
    (copy.folder / "verdict.json").write_bytes(msgspec.json.encode(verdict))
    (copy.folder / "openvino_model.bin").write_bytes(weights)


def test_a_refused_copy_says_why_and_what_to_do(copy: PerChannelCopy) -> None:
    write(copy, Verdict(refused="its perplexity is 78.3 against 59.7"))
    with pytest.raises(ConfigError, match=r'78\.3 against 59\.7.*Set precision to "auto"'):
        copy.made()


def test_knows_no_copy_that_is_absent_or_cut_off(copy: PerChannelCopy) -> None:
    assert copy.verdict() is None
    whole = Verdict(group=192, weights_bytes=4)
    write(copy, whole, b"123")
    assert copy.verdict() is None
    (copy.folder / "openvino_model.bin").write_bytes(b"1234")
    assert copy.verdict() == whole
    assert copy.made() == whole
    (copy.folder / "verdict.json").write_bytes(b"{")
    assert copy.verdict() is None


def test_a_copy_that_loses_is_tried_once(
    copy: PerChannelCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Path] = []

    def convert(source: Path, work: Path, new: Path, threads: int) -> Verdict:
        assert (work.exists(), threads) == (True, 1)
        tried.append(source)
        (new / "openvino_model.xml").write_bytes(b"")
        return Verdict(refused=refusal(78.3, 59.7))

    monkeypatch.setattr(per_channel, "_convert", convert)
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"78\.3 against 59\.7 of the original"):
            copy.made()
    assert len(tried) == 1
    assert [one.name for one in copy.folder.parent.iterdir()] == [copy.folder.name]


_ROUNDS = 30


def _make_copies(folder: Path, number: int, barrier: Barrier) -> None:
    """Make copies at the same moments as another process, where a broken one is in the way."""

    def convert(source: Path, work: Path, new: Path, threads: int) -> Verdict:
        assert (source.exists(), work.exists(), threads) == (True, True, 1)
        (new / "openvino_model.bin").write_bytes(b"1234")
        return Verdict(group=number, weights_bytes=4)

    # This process is the test's own, so that nothing is to be undone.
    pytest.MonkeyPatch().setattr(per_channel, "_convert", convert)
    path = folder / "m.gguf"
    for one in range(_ROUNDS):
        copy = PerChannelCopy(path, folder / str(one))
        barrier.wait(30.0)
        made = copy.made()
        # Whichever it is, it stays.
        assert copy.verdict() == made
        barrier.wait(30.0)
        assert copy.verdict() == made


def test_processes_that_replace_a_broken_copy_at_once_leave_one_that_is_whole(
    tmp_path: Path,
) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    for one in range(_ROUNDS):
        write(PerChannelCopy(tmp_path / "m.gguf", tmp_path / str(one)), Verdict(weights_bytes=9))
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    started = [
        context.Process(target=_make_copies, args=(tmp_path, number, barrier)) for number in (1, 2)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(50.0)
    assert [process.exitcode for process in started] == [0, 0]
    for one in range(_ROUNDS):
        copy = PerChannelCopy(tmp_path / "m.gguf", tmp_path / str(one))
        assert [left.name for left in copy.folder.parent.iterdir()] == [copy.folder.name]


def test_replicas_that_make_it_together_end_with_one(
    copy: PerChannelCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Verdict(group=192, weights_bytes=4)

    def convert(source: Path, work: Path, new: Path, threads: int) -> Verdict:
        assert (source.exists(), work.exists(), threads) == (True, True, 1)
        (new / "openvino_model.bin").write_bytes(b"1234")
        write(copy, mine, b"1234")
        return mine

    monkeypatch.setattr(per_channel, "_convert", convert)
    assert copy.made() == mine
    assert copy.verdict() == mine
    assert [one.name for one in copy.folder.parent.iterdir()] == [copy.folder.name]


def test_another_model_has_another_folder(copy: PerChannelCopy, tmp_path: Path) -> None:
    other = tmp_path / "n.gguf"
    other.write_bytes(b"GGUF, another")
    assert PerChannelCopy(other, tmp_path / "cache").folder != copy.folder


def test_models_tuned_from_one_base_share_no_copy(copy: PerChannelCopy, tmp_path: Path) -> None:
    # The header of the packaged model alone, mostly its tokenizer, has 1.8 MB.
    base = b"GGUF" + bytes(2 << 20)
    folders: set[Path] = set()
    for name, tuned in (("a.gguf", b"1"), ("b.gguf", b"2"), ("c.gguf", b"2")):
        (tmp_path / name).write_bytes(base + tuned)
        folders.add(PerChannelCopy(tmp_path / name, tmp_path / "cache").folder)
    assert len(folders) == 2
    assert copy.folder not in folders


def test_what_a_killed_process_left_is_deleted_in_time(
    copy: PerChannelCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (copy.folder.parent / name for name in ("making-old", "making-new"))
    for left in (old, new):
        left.mkdir(parents=True)
        (left / "openvino_model.bin").write_bytes(b"1234")
    os.utime(old, (0, 0))

    def broken(*_: object) -> Verdict:
        return Verdict(refused="it is broken")

    monkeypatch.setattr(per_channel, "_convert", broken)
    with pytest.raises(ConfigError, match="it is broken"):
        copy.made()
    assert not old.exists()
    assert new.exists()


def test_a_broken_copy_is_replaced(copy: PerChannelCopy, monkeypatch: pytest.MonkeyPatch) -> None:
    write(copy, Verdict(group=192, weights_bytes=4), b"123")
    mine = Verdict(group=64, weights_bytes=2)

    def convert(source: Path, work: Path, new: Path, threads: int) -> Verdict:
        assert (source.exists(), work.exists(), threads) == (True, True, 1)
        (new / "openvino_model.bin").write_bytes(b"12")
        return mine

    monkeypatch.setattr(per_channel, "_convert", convert)
    assert copy.made() == mine
    assert copy.verdict() == mine


def grouped_model(weights: npt.NDArray[np.uint8]) -> Any:
    """One layer, as the GGUF reader writes it: groups of 32, zero at 128, a scale of 1/64."""
    pytest.importorskip("openvino", exc_type=ImportError)
    import openvino.opset13  # noqa: PLC0415 - an extra

    library: Any = openvino
    ops: Any = openvino.opset13
    rows, width = weights.shape
    grouped = ops.constant(weights.reshape(rows, width // 32, 32))
    numbers = ops.subtract(ops.convert(grouped, "f16"), ops.constant(np.float16(128)))
    scaled = ops.multiply(numbers, ops.constant(np.full((rows, 1, 1), 1 / 64, np.float16)))
    layer = ops.reshape(scaled, ops.constant(np.array([rows, width])), special_zero=False)
    inputs = ops.parameter([1, width], np.float32)
    product = ops.matmul(inputs, ops.convert(layer, "f32"), transpose_a=False, transpose_b=True)
    return library.Model([product], [inputs], "m")


def outputs(model: Any, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    import openvino  # noqa: PLC0415 - an extra

    core: Any = openvino.Core()
    precise = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
    computed: npt.NDArray[np.float32] = core.compile_model(model, "CPU", precise)(inputs)[0]
    return computed


def test_a_rewritten_graph_computes_the_same_but_for_rounding() -> None:
    chance = np.random.default_rng(1)
    model = grouped_model(chance.integers(0, 256, (8, 64), np.uint8))
    inputs = chance.normal(size=(1, 64)).astype(np.float32)
    before = outputs(model, inputs)
    assert per_channel.rewrite(model) == [64]
    after = outputs(model, inputs)
    assert np.allclose(before, after, atol=0.15)
    assert not np.array_equal(before, after)
    # Nothing is left to rewrite.
    assert per_channel.rewrite(model) == []


def test_packed_weights_of_four_bits_are_left_alone() -> None:
    pytest.importorskip("openvino", exc_type=ImportError)
    import openvino.opset13  # noqa: PLC0415 - an extra

    library: Any = openvino
    ops: Any = openvino.opset13
    packed = library.Tensor(np.zeros(8 * 64 // 2, np.uint8), [8, 2, 32], library.Type.u4)
    numbers = ops.subtract(ops.convert(ops.constant(packed), "f16"), ops.constant(np.float16(8)))
    scaled = ops.multiply(numbers, ops.constant(np.ones((8, 2, 1), np.float16)))
    layer = ops.reshape(scaled, ops.constant(np.array([8, 64])), special_zero=False)
    assert per_channel.rewrite(library.Model([layer], [], "m")) == []


@pytest.mark.engine
@pytest.mark.timeout(300)
def test_the_packaged_model_is_copied_without_loss(copies: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("openvino_genai") is None:
        pytest.skip("openvino_genai is not installed")
    from steelyard.pools.engine.openvino import OpenVinoAdapter  # noqa: PLC0415 - an extra

    model = find_model()
    settings = EngineSettings(precision="int8", cache_folder=str(copies))
    adapter = OpenVinoAdapter(Path(model.path), settings, model.context_tokens)
    assert adapter.encode("Once upon a time")
    copy = PerChannelCopy(Path(model.path), copies)
    made = copy.made()
    assert made.group == 192
    assert made.perplexity <= made.original_perplexity * 1.03
    tokens_only = tmp_path / "t.gguf"
    write_tokenizer(Path(model.path), tokens_only)
    assert tokens_only.read_bytes() == copy.tokenizer.read_bytes()
    assert read_header(tokens_only).context_tokens == model.context_tokens
