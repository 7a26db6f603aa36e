"""What the environment says. No other module reads it."""

import os
import platform
from pathlib import Path

from steelyard.domain.offering import Arch
from steelyard.errors import ConfigError


def secret(variable: str, setting: str) -> str:
    """Which secret does an environment variable hold?

    Args:
        variable: Name of the variable.
        setting: The setting that names it, for the message.

    Returns:
        The secret, never to be logged.

    Raises:
        ConfigError: The variable is not set.
    """
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ConfigError(
            f"{setting} names the environment variable {variable}, which is not set; export it"
        )
    return value


def names_otlp_collector() -> bool:
    """Does the environment name a collector, and not turn OpenTelemetry off?"""
    is_off = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return not is_off and bool(os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip())


def read_keys(path: Path) -> tuple[str, ...]:
    """Which keys does a file hold, one per line?

    Args:
        path: The file; lines that are empty or start with `#` are skipped.

    Returns:
        The keys, never to be logged.

    Raises:
        ConfigError: The file is missing, unreadable or holds none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"gateway.api_keys_file {path} cannot be read: {error}") from error
    stripped = (line.strip() for line in lines)
    keys = tuple(line for line in stripped if line and not line.startswith("#"))
    if not keys:
        raise ConfigError(f"gateway.api_keys_file {path} holds no key; write one per line")
    return keys


def machine_arch() -> Arch:
    """Which instruction set does this machine have?

    Raises:
        ConfigError: One that Steelyard does not know.
    """
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64"):
        return "x86_64"
    if machine in ("aarch64", "arm64"):
        return "arm64"
    raise ConfigError(f"this machine is {machine}; Steelyard knows x86_64 and arm64")


def tool_environment() -> dict[str, str]:
    """Which variables may a tool see? What Python needs to run, and no secret."""
    allowed = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "PYTHONPATH")
    return {name: os.environ[name] for name in allowed if name in os.environ}


def cache_folder() -> Path:
    """Where may this program keep what it can get again? `$XDG_CACHE_HOME`, or `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME", "").strip()
    return (Path(base) if base else Path.home() / ".cache") / "steelyard"


def state_folder() -> Path:
    """Where may this program note what runs? `$XDG_STATE_HOME`, or `~/.local/state`."""
    base = os.environ.get("XDG_STATE_HOME", "").strip()
    return (Path(base) if base else Path.home() / ".local" / "state") / "steelyard"


def limit_price_download(timeout_s: int) -> None:
    """Let `sparecores-data` give up after this many seconds, unless the user set a limit."""
    os.environ.setdefault("SC_DATA_HTTP_TIMEOUT", str(timeout_s))


def usable_cores() -> int:
    """How many cores may this process use?"""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor_description() -> str:
    """What tells this machine's processor from others? Its name and what it can."""
    cpuinfo = _cpuinfo()
    # x86 has flags, Arm has features and a part number.
    keys = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    said = [f"{key}: {cpuinfo[key]}" for key in keys if key in cpuinfo]
    return "; ".join([platform.machine(), platform.processor(), *said])


def processor_features() -> frozenset[str]:
    """What can this machine's processor, in Linux's words? Empty where the system does not say.

    Names are those of /proc/cpuinfo: its flags on x86, its features on Arm.
    """
    cpuinfo = _cpuinfo()
    return frozenset((cpuinfo.get("flags") or cpuinfo.get("Features") or "").split())


def memory_bytes() -> int | None:
    """How much memory has this machine? None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None


def _cpuinfo() -> dict[str, str]:
    """Of the first core; empty where the system does not say."""
    file = Path("/proc/cpuinfo")
    if not file.is_file():
        return {}
    first = file.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def machine_description() -> str:
    """What is this machine? Cores, CPU and Python, for reports."""
    model = _cpuinfo().get("model name") or platform.processor() or platform.machine()
    return f"{usable_cores()} cores, {model}, Python {platform.python_version()}"
