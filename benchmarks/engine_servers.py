"""The servers that benchmarks/engines.py compares: our whole gateway, and llama.cpp's own."""

import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

MODEL = "smollm2"
_READY_S = 300.0
_OURS = """
[gateway]
port = 0
[store]
path = "log.db"
[pools.local]
kind = "embedded"
engine = "{engine}"
model = "{model}"
model_path = "{path}"
replicas = {replicas}
"""
# llama.cpp's server as the wheel of xllamacpp brings it, with llama.cpp's own defaults.
_WHEEL = """
import sys, time, xllamacpp
parameters = xllamacpp.CommonParams()
parameters.model.path, parameters.model_alias = sys.argv[1], {sys.argv[2]}
parameters.hostnames, parameters.port = ["127.0.0.1"], 0
parameters.n_parallel, parameters.n_ctx = int(sys.argv[3]), int(sys.argv[4])
parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = int(sys.argv[5])
parameters.verbosity = -1
server = xllamacpp.Server(parameters)
print("serving at", server.listening_address + "/v1", flush=True)
print("build:", xllamacpp.get_system_info(), flush=True)
time.sleep(100000)
"""


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """One that runs.

    Attributes:
        name: For tables.
        base_url: Up to `/v1`.
        build: What is known of it.
        pid: Of its first process.
    """

    name: str
    base_url: str
    build: str
    pid: int


@contextmanager
def ours(engine: str, model_path: str, cores: int) -> Iterator[Server]:
    """`steelyard up` with one single-thread engine process per core."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "steelyard.toml"
        config.write_text(_OURS.format(engine=engine, model=MODEL, path=model_path, replicas=cores))
        command = [sys.executable, "-m", "steelyard", "up", "--config", str(config)]
        with _running(command, Path(folder), r"serving .* at (http\S+)") as (pid, url, said):
            base_url = url if url.endswith("/v1") else url.rstrip("/") + "/v1"
            chosen = re.search(r"runs on (.*)", said)
            build = chosen.group(1) if chosen else ""
            yield Server(name=f"steelyard {engine}", base_url=base_url, build=build, pid=pid)


@contextmanager
def wheel(model_path: str, cores: int, slots: int, slot_tokens: int) -> Iterator[Server]:
    """llama.cpp's server out of the wheel, one process with a thread per core."""
    arguments = [model_path, MODEL, str(slots), str(slots * slot_tokens), str(cores)]
    command = [sys.executable, "-c", _WHEEL, *arguments]
    with (
        tempfile.TemporaryDirectory() as folder,
        _running(command, Path(folder), r"serving at (http\S+)") as (pid, url, said),
    ):
        yield Server(name="llama.cpp wheel", base_url=url, build=_after(said, "build:"), pid=pid)


@contextmanager
def binary(
    program: str, model_path: str, cores: int, slots: int, slot_tokens: int
) -> Iterator[Server]:
    """A `llama-server` of the user's own build, with arguments behind it if it needs any."""
    port = 18000 + os.getpid() % 2000
    command = [*program.split(), "-m", model_path, "-a", MODEL, "--host", "127.0.0.1"]
    command += ["--port", str(port), "-t", str(cores), "-np", str(slots)]
    command += ["-c", str(slots * slot_tokens), "--no-kv-unified"]
    with (
        tempfile.TemporaryDirectory() as folder,
        _running(command, Path(folder), r"listening on (http\S+)") as (pid, url, said),
    ):
        build = _after(said, "system_info:") or program
        yield Server(name="llama.cpp own build", base_url=url + "/v1", build=build, pid=pid)


def _after(text: str, mark: str) -> str:
    return text.partition(mark)[2].partition("\n")[0].strip()


@contextmanager
def _running(command: list[str], folder: Path, ready: str) -> Iterator[tuple[int, str, str]]:
    """Start a program and wait until it says that it serves, and answers."""
    log = folder / "said.txt"
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=file)  # noqa: S603
    try:
        yield process.pid, *_wait(process, log, ready)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], log: Path, ready: str) -> tuple[str, str]:
    until_s = time.monotonic() + _READY_S
    while time.monotonic() < until_s:
        said = log.read_text(encoding="utf-8", errors="replace")
        found = re.search(ready, said)
        if found:
            time.sleep(0.5)
            base = found.group(1).removesuffix("/v1")
            urllib.request.urlopen(f"{base}/v1/models", timeout=10).close()  # noqa: S310
            return found.group(1), log.read_text(encoding="utf-8", errors="replace")
        if process.poll() is not None:
            break
        time.sleep(0.2)
    raise SystemExit(f"{process.args!r} does not serve: {log.read_text(errors='replace')[-2000:]}")


def tree_cpu_s(pid: int) -> float:
    """User and system seconds of a process and of its children that run."""
    ticks = 0
    for one in [pid, *_children(pid)]:
        fields = Path(f"/proc/{one}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text(encoding="ascii").split():
            found += [int(child), *_children(int(child))]
    return found
