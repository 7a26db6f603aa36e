"""A copy of a model with 8-bit weights of one scale per output channel, kept as OpenVINO's files.

A GGUF file scales its weights in groups of 32. With one scale per channel, and activations rounded
to 8 bits in large groups as they come, OpenVINO sums long rows of products of 8-bit integers
before it scales, which a processor with such instructions does several at a time. The copy is made
once per model and library, from the graph that the library builds of the GGUF; a copy that
predicts fixed texts worse than the original is refused, and the verdict kept in its place.
"""

import contextlib
import fcntl
import hashlib
import math
import os
import shutil
import struct
import tempfile
import time
from collections.abc import Generator
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from steelyard.errors import ConfigError
from steelyard.pools.engine.model import skip_entries
from steelyard.pools.engine.quality import pipeline_perplexity
from steelyard.pools.engine.requantized import write_without_q4_1

# Of the original's perplexity; two builds of one model differ by up to 2 % on the texts.
MAX_LOSS_FRAC = 0.03
# Activations are rounded in groups that divide every layer's width; larger ones lose precision.
_MAX_GROUP = 256
_MIN_GROUP = 32
# What a process that was killed has left half made is deleted after so long.
_STALE_S = 3600.0
_MAKING = "making-"
_GRAPH, _WEIGHTS = "openvino_model.xml", "openvino_model.bin"
_TOKENIZER, _VERDICT = "tokenizer.gguf", "verdict.json"

Floats = npt.NDArray[np.float32]
Int8 = npt.NDArray[np.int8]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a copy.

    Attributes:
        refused: Why it is not used; empty for one that is.
        perplexity: Of the fixed texts, under the copy.
        original_perplexity: The same under the original.
        group: Activations that share a scale.
        weights_bytes: Size of the weights' file.
    """

    refused: str = ""
    perplexity: float = 0.0
    original_perplexity: float = 0.0
    group: int = 0
    weights_bytes: int = 0


class PerChannelCopy:
    """The copy of one model, in its folder.

    Args:
        model_path: The GGUF file.
        cache: Folder in which copies are kept.
    """

    def __init__(self, model_path: Path, cache: Path) -> None:
        self._model_path = model_path
        # All of the file: models tuned from one base differ neither in header nor in size. About a
        # second per gigabyte.
        with model_path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        digest.update(metadata.version("openvino-genai").encode())
        self.folder = cache / "int8" / digest.hexdigest()[:32]

    @property
    def tokenizer(self) -> Path:
        """A GGUF file without tensors, of which the library reads the tokenizer."""
        return self.folder / _TOKENIZER

    def verdict(self) -> Verdict | None:
        """What became of the copy? None while there is none, or none that is whole."""
        try:
            known = msgspec.json.decode((self.folder / _VERDICT).read_bytes(), type=Verdict)
            if known.refused or (self.folder / _WEIGHTS).stat().st_size == known.weights_bytes:
                return known
        except (OSError, msgspec.DecodeError, msgspec.ValidationError):
            return None
        return None

    def made(self, threads: int = 1) -> Verdict:
        """The verdict; makes the copy where there is none, which takes some ten seconds.

        Args:
            threads: Threads of the library.

        Raises:
            ConfigError: The model cannot be copied, or the copy is refused.
            OSError: The folder cannot be written.
        """
        known = self.verdict()
        if known is None:
            known = self._make(threads)
        if known.refused:
            raise ConfigError(
                f"No 8-bit copy of {self._model_path.name}: {known.refused}. "
                'Set precision to "auto", "native" or "f32".'
            )
        return known

    def _make(self, threads: int) -> Verdict:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._delete_stale()
        with tempfile.TemporaryDirectory(dir=self.folder.parent, prefix=_MAKING) as name:
            new = Path(name) / "copy"
            new.mkdir()
            made = _convert(self._model_path, Path(name), new, threads)
            (new / _VERDICT).write_bytes(msgspec.json.encode(made))
            self._put(new)
        # Another replica's may be there by now, with a verdict of its own.
        return self.verdict() or made

    def _put(self, new: Path) -> None:
        """Move a copy to its place in one piece, unless another replica was faster."""
        with _locked(self.folder.parent):
            if self.verdict() is not None:
                return
            if self.folder.exists():
                # What is there is broken, and goes with the folder in which the new one was made.
                self.folder.rename(new.parent / "broken")
            new.rename(self.folder)

    def _delete_stale(self) -> None:
        for left in self.folder.parent.glob(f"{_MAKING}*"):
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > _STALE_S:
                    shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Generator[None, None, None]:
    """Let no other process into the block meanwhile; one that dies lets the next one in."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def options(threads: int, group: int) -> dict[str, Any]:
    """How does OpenVINO run a copy? Sums and attention in f32, products of 8-bit integers."""
    return {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": group,
    }


def load(copy: PerChannelCopy, scheduler: Any, threads: int) -> Any:  # noqa: ANN401 - no types
    """A ContinuousBatchingPipeline of the copy, which is made where there is none.

    Raises:
        ConfigError: The copy is refused.
        OSError: It cannot be written.
    """
    made = copy.made(threads)
    return _pipeline(copy.folder, copy.tokenizer, scheduler, options(threads, made.group))


def _pipeline(folder: Path, tokenizer: Path, scheduler: Any, properties: dict[str, Any]) -> Any:  # noqa: ANN401 - no types
    import openvino_genai  # noqa: PLC0415 - an optional extra

    genai: Any = openvino_genai
    return genai.ContinuousBatchingPipeline(
        str(folder), genai.Tokenizer(str(tokenizer)), scheduler, "CPU", **properties
    )


def _convert(source: Path, work: Path, new: Path, threads: int) -> Verdict:
    """Write the copy's files into `new`, unless it loses."""
    import openvino  # noqa: PLC0415 - an optional extra
    import openvino_genai  # noqa: PLC0415

    core: Any = openvino.Core()
    scheduler: Any = openvino_genai.SchedulerConfig()
    scheduler.cache_size = 1
    original = work / "model.gguf"
    if not write_without_q4_1(source, original):
        original.symlink_to(source.resolve())
    saving = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        # The library's own way to hand out the graph that it built: beside the file.
        "enable_save_ov_model": True,
    }
    pipeline: Any = openvino_genai.ContinuousBatchingPipeline(
        str(original), scheduler, "CPU", saving
    )
    expected = pipeline_perplexity(pipeline)
    del pipeline
    graph: Any = core.read_model(str(work / _GRAPH))
    widths = rewrite(graph)
    if not widths:
        return Verdict(refused="it has no weights in groups of 8-bit numbers")
    group = activation_group(widths)
    if group < _MIN_GROUP:
        return Verdict(refused=f"its layers are {sorted(set(widths))} wide, with no common group")
    openvino.save_model(graph, str(new / _GRAPH), compress_to_fp16=False)
    write_tokenizer(source, new / _TOKENIZER)
    found = pipeline_perplexity(
        _pipeline(new, new / _TOKENIZER, scheduler, options(threads, group))
    )
    refused = refusal(found, expected)
    if refused:
        (new / _WEIGHTS).unlink()
    return Verdict(
        refused=refused,
        perplexity=found,
        original_perplexity=expected,
        group=group,
        weights_bytes=0 if refused else (new / _WEIGHTS).stat().st_size,
    )


def refusal(found: float, expected: float) -> str:
    """Why must a copy not be used, from its perplexity and the original's? Empty if it may.

    >>> refusal(58.7, 59.1)
    ''
    >>> refusal(78.3, 59.7)
    'its perplexity is 78.3 against 59.7 of the original, more than 3 % worse'
    """
    # Not `found > limit`: what cannot be computed must be refused.
    if found <= expected * (1 + MAX_LOSS_FRAC):
        return ""
    return (
        f"its perplexity is {found:.1f} against {expected:.1f} of the original, more than "
        f"{MAX_LOSS_FRAC:.0%} worse".replace("%", " %")
    )


def activation_group(widths: list[int]) -> int:
    """How many activations share a scale, in layers of these widths?

    The largest divisor of all widths, up to 256; SmolLM2-135M's are 576 and 1,536.

    >>> activation_group([576, 1536]), activation_group([2048, 8192])
    (192, 256)
    """
    common = math.gcd(*widths)
    return max(group for group in range(1, _MAX_GROUP + 1) if common % group == 0)


def write_tokenizer(source: Path, target: Path) -> None:
    """Write a copy of a GGUF file without its tensors: the tokenizer's part is all that is read."""
    with source.open("rb") as file:
        file.seek(16)
        (entries,) = struct.unpack("<Q", file.read(8))
        skip_entries(file, entries)
        end = file.tell()
        file.seek(0)
        head = file.read(end)
    target.write_bytes(head[:8] + struct.pack("<Q", 0) + head[16:])


def rewrite(graph: Any) -> list[int]:  # noqa: ANN401 - the library has no types
    """Give every weight of a graph that has scales per group one scale per channel, in place.

    The GGUF reader writes a weight as Reshape(Multiply(Subtract(Convert(u8), zero), scale)).

    Returns:
        Widths of the weights' rows; empty if there are none of that kind.
    """
    import openvino.opset13  # noqa: PLC0415 - an optional extra

    ops: Any = openvino.opset13
    widths: list[int] = []
    for node in list(graph.get_ordered_ops()):
        weights = _grouped_weights(node)
        if weights is None:
            continue
        numbers, scales = per_channel(weights)
        kind = node.output(0).get_element_type()
        converted = ops.convert(ops.constant(numbers), kind.get_type_name())
        scale = ops.constant(scales.astype(kind.to_dtype()))
        new: Any = ops.multiply(converted, scale)
        new.set_friendly_name(node.get_friendly_name())
        for target in node.output(0).get_target_inputs():
            target.replace_source_output(new.output(0))
        widths.append(weights.shape[1])
    return widths


def _grouped_weights(node: Any) -> Floats | None:  # noqa: ANN401 - the library has no types
    chain: list[Any] = [node]
    for expected in ("Reshape", "Multiply", "Subtract", "Convert"):
        if chain[-1].get_type_name() != expected:
            return None
        chain.append(chain[-1].input_value(0).get_node())
    _, multiply, subtract, _, numbers = chain
    # By the library's type: the bytes of two packed 4-bit numbers are uint8 to NumPy, too.
    if numbers.get_type_name() != "Constant" or numbers.get_element_type().get_type_name() != "u8":
        return None
    zero, scale = _constant(subtract), _constant(multiply)
    rows: Floats = (numbers.data.astype(np.float32) - zero) * scale
    return rows.reshape(len(rows), -1)


def _constant(node: Any) -> Floats:  # noqa: ANN401 - the library has no types
    """The second operand, behind any conversion of its type."""
    operand = node.input_value(1).get_node()
    while operand.get_type_name() != "Constant":
        operand = operand.input_value(0).get_node()
    values: Floats = operand.data.astype(np.float32)
    return values


def per_channel(weights: Floats) -> tuple[Int8, Floats]:
    """Round weights to 8 bits with one scale per row.

    Args:
        weights: Shape (rows, width).

    Returns:
        Numbers from -127 to 127, shape (rows, width), and scales, shape (rows, 1), which a 16-bit
        float holds; their product is within half a scale of the weights, and the scale's own
        rounding.
    """
    scales = (np.abs(weights).max(axis=1, keepdims=True) / 127).astype(np.float16)
    wide: Floats = np.where(scales == 0, 1, scales).astype(np.float32)
    numbers: Int8 = np.clip(np.rint(weights / wide), -127, 127).astype(np.int8)
    return numbers, wide
