"""Does every locked dependency have a wheel for Linux on arm64, and which glibc do they need?

`make check-arm64-wheels` resolves requirements.lock and requirements-model.lock for aarch64,
CPython 3.11, with pip's own resolver and the locked hashes: a dependency that has no wheel there,
or whose hash is not in the lock, fails the check. Nothing is installed. The wheels' tags tell the
oldest glibc that they run on; the newest of these is what the platform needs.

`--install FOLDER` unpacks the same wheels into a folder, for `make test-arm64`.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

# What the oldest supported system has: Debian 12 (2.36) and Ubuntu 22.04 (2.35).
NEWEST_GLIBC = 35
LOCKS = ("requirements.lock", "requirements-model.lock")
_TRIES = 3
_PAUSE_S = 10.0
# PEP 600: manylinux_2_Y_ARCH runs on glibc 2.Y and newer; manylinux2014 is 2.17.
_GLIBC = re.compile(r"manylinux_2_(\d+)_aarch64")


def platform_options() -> list[str]:
    """The options with which pip takes wheels of another machine, the newest glibc first."""
    tags = [f"manylinux_2_{minor}_aarch64" for minor in range(NEWEST_GLIBC, 16, -1)]
    options = ["--implementation", "cp", "--python-version", "3.11"]
    for abi in ("cp311", "abi3", "none"):
        options += ["--abi", abi]
    for tag in [*tags, "manylinux2014_aarch64"]:
        options += ["--platform", tag]
    return options


def pip(lock: str, *options: str) -> None:
    """Let pip resolve a lock file for aarch64; tried again, for mirrors have bad minutes.

    Args:
        lock: The file.
        *options: What else pip is told.

    Raises:
        SystemExit: It failed each time.
    """
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--require-hashes", "--only-binary=:all:", "--requirement", lock),
        *(*platform_options(), *options),
    ]
    told = ""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE_S)
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode == 0:
            return
        told = "\n".join(line for line in done.stderr.splitlines() if "WARNING" not in line)
    raise SystemExit(f"{lock}: not to be had for aarch64 in {_TRIES} tries:\n{told}")


def glibc_minor(wheel: str) -> int | None:
    """Which glibc 2.Y does a wheel need?

    Args:
        wheel: Its file name.

    Returns:
        Y, or None for one that runs anywhere.

    >>> glibc_minor("openvino-2026.4.1-1-cp311-cp311-manylinux_2_35_aarch64.whl")
    35
    >>> glibc_minor("a-1-cp311-cp311-manylinux2014_aarch64.manylinux_2_17_aarch64.whl")
    17
    >>> glibc_minor("rich-15.0.0-py3-none-any.whl") is None
    True
    """
    needed = [int(minor) for minor in _GLIBC.findall(wheel)]
    if "manylinux2014_aarch64" in wheel:
        needed.append(17)
    return min(needed) if needed else None


def resolved(lock: str) -> list[str]:
    """The file names of the wheels that pip takes for a lock file."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        where = str(Path(folder) / "none")
        pip(lock, "--dry-run", "--ignore-installed", "--target", where, "--report", str(report))
        told: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return [one["download_info"]["url"].rsplit("/", 1)[1] for one in told["install"]]


def check() -> None:
    """Print what each glibc is needed by, and fail where a wheel is missing."""
    wheels = [wheel for lock in LOCKS for wheel in resolved(lock)]
    by_glibc: dict[int, list[str]] = defaultdict(list)
    for wheel in wheels:
        minor = glibc_minor(wheel)
        if minor is not None:
            by_glibc[minor].append("-".join(wheel.split("-")[:2]))
    anywhere = len(wheels) - sum(map(len, by_glibc.values()))
    print(f"{len(wheels)} locked packages have a wheel for aarch64 and CPython 3.11")
    print(f"  {anywhere} run on any machine")
    for minor in sorted(by_glibc):
        print(
            f"  {len(by_glibc[minor])} need glibc 2.{minor}: {', '.join(sorted(by_glibc[minor]))}"
        )
    print(f"glibc needed by all of them: 2.{max(by_glibc)}")


def main() -> None:
    """Check, or install."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--install", type=Path, help="unpack the wheels into this folder")
    folder: Path | None = parser.parse_args().install
    if folder is None:
        check()
        return
    for lock in LOCKS:
        pip(lock, "--upgrade", "--target", str(folder))


if __name__ == "__main__":
    main()
