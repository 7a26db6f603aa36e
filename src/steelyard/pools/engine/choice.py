"""Which library serves on this host, in which precision? Measured once, and remembered."""

import asyncio
import hashlib
import importlib.util
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

import msgspec

from steelyard.config.choices import EngineChoice, PrecisionChoice
from steelyard.errors import MissingExtraError
from steelyard.pools.engine.adapter import EngineName, Precision
from steelyard.pools.engine.comparison import Variant, compare
from steelyard.pools.engine.model import ModelFile
from steelyard.pools.engine.per_channel import PerChannelCopy

# Import name and distribution of each library, and the extra that brings it; the order breaks ties.
_LIBRARIES: Mapping[EngineName, tuple[str, str, str]] = MappingProxyType(
    {
        "openvino": ("openvino_genai", "openvino-genai", "engine"),
        "llamacpp": ("xllamacpp", "xllamacpp", "engine-llamacpp"),
    }
)
# What a processor says that computes in 16 bits; elsewhere the native precision is f32.
_HALF_PRECISION = ("bf16", "fp16", "asimdhp")
# And what one says that multiplies 8-bit integers several at a time.
_INTEGERS = ("avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")


class ChosenEngine(msgspec.Struct, frozen=True, kw_only=True):
    """The library that is used, and why."""

    engine: EngineName
    reason: str
    precision: Precision = "native"

    def __str__(self) -> str:
        """Its name for people."""
        return str(Variant(engine=self.engine, precision=self.precision))


class _Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured, by library, on a host of which `key` says all that matters."""

    key: str
    date: str
    wall_s: dict[str, float]


def installed_engines() -> tuple[EngineName, ...]:
    """Which libraries can be imported?"""
    return tuple(
        engine
        for engine, (module, _, _) in _LIBRARIES.items()
        if importlib.util.find_spec(module) is not None
    )


def engine_version(engine: EngineName) -> str:
    """Which library, in which version, is the engine? For reports."""
    distribution = _LIBRARIES[engine][1]
    return f"{distribution}-{metadata.version(distribution)}"


async def choose_engine(
    asked: EngineChoice,
    model: ModelFile,
    processor: str,
    memory: Path,
    precision: PrecisionChoice = "auto",
) -> ChosenEngine:
    """Which library serves the model on this host, and in which precision?

    Args:
        asked: What the configuration says; `auto` takes what is installed, and of several the
            fastest.
        model: The model's file.
        processor: What tells this host's processor from others.
        memory: File in which the outcome is kept; copies of the model lie beside it.
        precision: What the configuration says; `auto` takes the fastest one of a library that has
            several on this processor, and no 8-bit copy that predicts texts worse than its
            original.

    Returns:
        The choice. One that fails while it is measured is not taken while another one runs.

    Raises:
        MissingExtraError: The library, or every library, is not installed.
    """
    installed = installed_engines()
    if asked != "auto" and asked not in installed:
        raise _missing(asked)
    if not installed:
        raise _missing("openvino")
    engines = installed if asked == "auto" else (asked,)
    variants = _variants(engines, precision, processor)
    if len(variants) == 1:
        reason = "the only one installed" if asked == "auto" else "as configured"
        (only,) = variants
        return ChosenEngine(engine=only.engine, precision=only.precision, reason=reason)
    key = await asyncio.to_thread(_key, variants, model, processor)
    known = _recall(memory, key)
    if known is not None:
        return _fastest(variants, known, {})
    # A copy that an earlier measurement refused is not made again.
    offered = [one for one in variants if not _refusal(one, model, memory.parent)]
    measured = await compare(offered, Path(model.path), memory.parent)
    known = _Remembered(key=key, date=time.strftime("%Y-%m-%d"), wall_s=measured.wall_s)
    told = {f"{one} is not taken": _refusal(one, model, memory.parent) for one in variants}
    told = {name: why for name, why in told.items() if why}
    failed = {
        f"{name} failed while it was measured": why
        for name, why in measured.failed.items()
        if f"{name} is not taken" not in told
    }
    if not failed:
        # Else the next start tries again: the machine may only have been busy.
        _remember(memory, known)
    return _fastest(variants, known, told | failed)


def _variants(
    engines: tuple[EngineName, ...], precision: PrecisionChoice, processor: str
) -> tuple[Variant, ...]:
    """What is compared; the order breaks ties."""
    found: list[Variant] = []
    for engine in engines:
        if engine != "openvino":
            found.append(Variant(engine=engine))
        elif precision != "auto":
            found.append(Variant(engine=engine, precision=precision))
        else:
            found.append(Variant(engine=engine))
            if any(mark in processor for mark in _HALF_PRECISION):
                found.append(Variant(engine=engine, precision="f32"))
            if any(mark in processor for mark in _INTEGERS):
                found.append(Variant(engine=engine, precision="int8"))
    return tuple(found)


def _refusal(variant: Variant, model: ModelFile, cache: Path) -> str:
    """Why must the copy of the variant not be used? Empty while nothing is known against it."""
    if variant.precision != "int8":
        return ""
    verdict = PerChannelCopy(Path(model.path), cache).verdict()
    return verdict.refused if verdict is not None else ""


def _missing(engine: EngineName) -> MissingExtraError:
    _, distribution, extra = _LIBRARIES[engine]
    return MissingExtraError(
        f"The embedded engine needs {distribution}, which is not installed. "
        f"Install it: pip install 'steelyard[{extra}]'."
    )


def _fastest(
    variants: tuple[Variant, ...], known: _Remembered, against: dict[str, str]
) -> ChosenEngine:
    told = [f"{what} ({why})" for what, why in against.items()]
    ran = [variant for variant in variants if str(variant) in known.wall_s]
    if not ran:
        first = variants[0]
        reason = "; ".join(["none could be measured", *told])
        return ChosenEngine(engine=first.engine, precision=first.precision, reason=reason)
    # Sorting is stable: the order of the variants breaks ties.
    first, *rest = sorted(ran, key=lambda variant: known.wall_s[str(variant)])
    others = "".join(f", {other} {known.wall_s[str(other)]:.2f} s" for other in rest)
    took = f"{known.wall_s[str(first)]:.2f} s for a small workload{others}; measured {known.date}"
    reason = "; ".join([took, *told])
    return ChosenEngine(engine=first.engine, precision=first.precision, reason=reason)


def _key(variants: tuple[Variant, ...], model: ModelFile, processor: str) -> str:
    """The choice holds while host, libraries and model stay the same."""
    digest = hashlib.blake2b(processor.encode(), digest_size=16)
    for variant in variants:
        distribution = _LIBRARIES[variant.engine][1]
        digest.update(f"\0{distribution} {metadata.version(distribution)} {variant}".encode())
    # All of it: of models tuned from one base, which differ in nothing else, one may bear 8 bits
    # and the other may not. About a second per gigabyte.
    with Path(model.path).open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _recall(memory: Path, key: str) -> _Remembered | None:
    try:
        kept = msgspec.json.decode(memory.read_bytes(), type=list[_Remembered])
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return None
    return next((one for one in kept if one.key == key), None)


def _remember(memory: Path, known: _Remembered) -> None:
    """Keep it; where that fails, the next start measures again."""
    try:
        kept = msgspec.json.decode(memory.read_bytes(), type=list[_Remembered])
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        kept = []
    kept = [one for one in kept if one.key != known.key][-15:]
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        new = memory.with_suffix(".new")
        new.write_bytes(msgspec.json.encode([*kept, known]))
        new.replace(memory)
    except OSError:
        return
