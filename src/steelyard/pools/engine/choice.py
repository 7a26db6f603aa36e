"""Which inference library serves on this host? Measured once for a few seconds, and remembered."""

import asyncio
import hashlib
import importlib.util
import time
from collections.abc import Mapping
from contextlib import aclosing
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

import msgspec

from steelyard.config.pool_settings import EngineChoice
from steelyard.errors import MissingExtraError
from steelyard.pools.backend import LlmRequest
from steelyard.pools.engine.adapter import EngineName, EngineSettings
from steelyard.pools.engine.model import ModelFile
from steelyard.pools.engine.pool import EmbeddedEnginePool

# Import name and distribution of each library, and the extra that brings it; the order breaks ties.
_LIBRARIES: Mapping[EngineName, tuple[str, str, str]] = MappingProxyType(
    {
        "openvino": ("openvino_genai", "openvino-genai", "engine"),
        "llamacpp": ("xllamacpp", "xllamacpp", "engine-llamacpp"),
    }
)
_ROUNDS = 2
_PROMPT_WORDS = 50
_STREAMS = 4
_OUTPUT_TOKENS = 12
_HASHED_BYTES = 1 << 20


class ChosenEngine(msgspec.Struct, frozen=True, kw_only=True):
    """The library that is used, and why."""

    engine: EngineName
    reason: str


class _Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured, by library, on a host of which `key` says all that matters."""

    key: str
    date: str
    wall_s: dict[EngineName, float]


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
    asked: EngineChoice, model: ModelFile, processor: str, memory: Path
) -> ChosenEngine:
    """Which library serves the model on this host?

    Args:
        asked: What the configuration says; `auto` takes what is installed, and of several the
            fastest.
        model: The model's file.
        processor: What tells this host's processor from others.
        memory: File in which the outcome is kept.

    Returns:
        The choice.

    Raises:
        MissingExtraError: The library, or every library, is not installed.
        PoolError: One of them failed while it was measured.
    """
    installed = installed_engines()
    if asked != "auto":
        if asked not in installed:
            raise _missing(asked)
        return ChosenEngine(engine=asked, reason="as configured")
    if not installed:
        raise _missing("openvino")
    if len(installed) == 1:
        return ChosenEngine(engine=installed[0], reason="the only one installed")
    key = _key(installed, model, processor)
    known = _recall(memory, key)
    if known is None:
        wall_s = await _measured(installed, Path(model.path))
        known = _Remembered(key=key, date=time.strftime("%Y-%m-%d"), wall_s=wall_s)
        _remember(memory, known)
    return _fastest(known)


def _missing(engine: EngineName) -> MissingExtraError:
    _, distribution, extra = _LIBRARIES[engine]
    return MissingExtraError(
        f"The embedded engine needs {distribution}, which is not installed. "
        f"Install it: pip install 'steelyard[{extra}]'."
    )


def _fastest(known: _Remembered) -> ChosenEngine:
    order = {engine: position for position, engine in enumerate(_LIBRARIES)}
    first, *rest = sorted(known.wall_s, key=lambda engine: (known.wall_s[engine], order[engine]))
    others = ", ".join(f"{other} {known.wall_s[other]:.2f} s" for other in rest)
    reason = f"{known.wall_s[first]:.2f} s for a small workload, {others}; measured {known.date}"
    return ChosenEngine(engine=first, reason=reason)


def _key(installed: tuple[EngineName, ...], model: ModelFile, processor: str) -> str:
    """The choice holds while host, libraries and model stay the same."""
    digest = hashlib.blake2b(processor.encode(), digest_size=16)
    for engine in installed:
        distribution = _LIBRARIES[engine][1]
        digest.update(f"\0{distribution} {metadata.version(distribution)}".encode())
    # The header and the size: reading a whole model of gigabytes would take longer than measuring.
    with Path(model.path).open("rb") as file:
        digest.update(f"\0{Path(model.path).stat().st_size}\0".encode())
        digest.update(file.read(_HASHED_BYTES))
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


async def _measured(engines: tuple[EngineName, ...], model_path: Path) -> dict[EngineName, float]:
    """Seconds of each for the same small workload: the best of interleaved rounds."""
    pools: dict[EngineName, EmbeddedEnginePool] = {
        engine: EmbeddedEnginePool(
            model_path=model_path, settings=EngineSettings(adapter=engine, max_streams=_STREAMS)
        )
        for engine in engines
    }
    wall_s: dict[EngineName, float] = {}
    try:
        for pool in pools.values():
            await pool.start()
        for number in range(_ROUNDS):
            for engine, pool in pools.items():
                took_s = await _workload(pool, number)
                wall_s[engine] = min(took_s, wall_s.get(engine, took_s))
    finally:
        await asyncio.gather(*(pool.close() for pool in pools.values()))
    return wall_s


async def _workload(pool: EmbeddedEnginePool, number: int) -> float:
    """Agents in small: a prompt that they share, then several answers at once."""
    prefix = f"round {number}: " + " ".join(str(word * 7919 % 997) for word in range(_PROMPT_WORDS))

    async def ask(text: str) -> None:
        request = LlmRequest(
            kind="completion",
            model=pool.models()[0],
            prompt=text,
            max_output_tokens=_OUTPUT_TOKENS,
            temperature=0.0,
        )
        async with aclosing(pool.complete(request, 0)) as chunks:
            async for _ in chunks:
                pass

    start_s = time.perf_counter()
    await asyncio.gather(*(ask(f"{prefix} {stream}") for stream in range(_STREAMS)))
    return time.perf_counter() - start_s
