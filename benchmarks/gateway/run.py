"""How much does the gateway cost? Side by side with peers, against the same mock upstream.

Run as `python benchmarks/gateway/run.py [--rounds N] [--seconds S] [--peers DIR]`. Peers are taken
from environments of their own under DIR; those that are missing are reported as such:

    python -m venv DIR/routers && DIR/routers/bin/pip install vllm-router sglang-router
    python -m venv DIR/smg && DIR/smg/bin/pip install smg
    python -m venv DIR/litellm && DIR/litellm/bin/pip install 'litellm[proxy]'
    npm install --prefix DIR/portkey @portkey-ai/gateway

Steelyard runs as `steelyard up` with a key, the policy and the event log on disk. In every round
each gateway is started anew and measured, one after the other. Gateway, upstream and load
generator each have a core of their own where there are three or more; on two cores the gateway has
one to itself. CPU per request is user and system time of all the gateway's processes, from
/proc/PID/stat, over the requests answered: the figure that other programs on the machine disturb
least. Upstream and load generator are asyncio protocols on uvloop with httptools (upstream.py,
load.py). There is no chance in it, so there is no seed.
"""

import argparse
import datetime as dt
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from gateways import Gateway, cpu_s, peers, resident_mb, steelyard  # noqa: E402

_EVENTS = 64
_GAP_S = 0.01
_COLUMNS = (
    ("cpu us/request", "cpu_us", "{:.0f}"),
    ("requests/s", "rate", "{:.0f}"),
    ("cores used", "cores", "{:.2f}"),
    ("p50 ms at 1,000/s", "p50_ms", "{:.2f}"),
    ("p99 ms", "p99_ms", "{:.2f}"),
    ("cpu ms/stream", "stream_cpu_ms", "{:.2f}"),
    ("chunks/s", "chunks", "{:.0f}"),
    ("first chunk p50 ms", "first_ms", "{:.1f}"),
    ("idle MB", "idle_mb", "{:.0f}"),
    ("after load MB", "loaded_mb", "{:.0f}"),
    ("cold start s", "cold_s", "{:.2f}"),
    ("failed", "failed", "{:.0f}"),
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--only", default="", help="names, comma between; empty for all")
    parser.add_argument("--prompt-bytes", type=int, default=200)
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--python", default=sys.executable, help="that has steelyard")
    parser.add_argument("--also", help="another Python that has it: `steelyard-also`, in turns")
    asked = parser.parse_args()
    found, missing = peers(asked.peers)
    rivals = [steelyard(asked.python), *found]
    if asked.also is not None:
        rivals.insert(1, steelyard(asked.also, "steelyard-also"))
    if asked.only:
        rivals = [one for one in rivals if one.name in asked.only.split(",")]
    results: dict[str, list[dict[str, float]]] = {}
    print(_machine())
    with tempfile.TemporaryDirectory() as folder, _upstream() as upstream:
        for number in range(asked.rounds):
            target = {"port": upstream, "key": ""}
            results.setdefault("direct", []).append(_load_all(asked, target, None))
            for gateway in rivals:
                place = Path(folder) / f"{gateway.name}-{number}"
                try:
                    told = _measure(asked, gateway, place, upstream)
                except (RuntimeError, subprocess.CalledProcessError) as error:
                    output = place / "output.txt"
                    tail = output.read_text()[-500:] if output.exists() else ""
                    print(f"{gateway.name}: not measured ({error}) {tail}", file=sys.stderr)
                    continue
                results.setdefault(gateway.name, []).append(told)
                load = os.getloadavg()[0]
                print(f"# round {number} {gateway.name} load {load:.1f}: {_short(told)}")
    _print_table(results)
    for name in missing:
        print(f"{name}: not installed, not measured")


def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    now = dt.datetime.now(dt.UTC)
    return (
        f"# {model}, {os.cpu_count()} cores, Linux {platform.release()}, Python "
        f"{platform.python_version()}, {now:%Y-%m-%d %H:%M} UTC, load {os.getloadavg()[0]:.1f}"
    )


def _cores() -> tuple[int | None, int | None, int | None]:
    """Cores of gateway, upstream and load generator; None leaves it to the kernel."""
    there = sorted(os.sched_getaffinity(0))
    if len(there) >= 3:
        return there[0], there[1], there[2]
    return (there[0], there[1], there[1]) if len(there) == 2 else (None, None, None)


@contextmanager
def _upstream() -> Iterator[int]:
    port = _free_port()
    arguments = [str(port), str(_EVENTS), str(_GAP_S)]
    process = subprocess.Popen(_pinned(_cores()[1], [str(HERE / "upstream.py"), *arguments]))  # noqa: S603
    time.sleep(0.5)
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


def _pinned(core: int | None, command: list[str]) -> list[str]:
    there = [] if core is None else ["taskset", "-c", str(core)]
    return [*there, sys.executable, *command]


def _free_port() -> int:
    import socket  # noqa: PLC0415

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _measure(
    asked: argparse.Namespace, gateway: Gateway, folder: Path, upstream: int
) -> dict[str, float]:
    port = _free_port() % 20000 + 10000
    with gateway.running(folder, port, upstream, _cores()[0]) as (pid, cold_s):
        idle_mb = resident_mb(pid)
        target = {"port": port, "key": gateway.key, "headers": gateway.headers(upstream)}
        told = _load_all(asked, target, pid)
        return {**told, "cold_s": cold_s, "idle_mb": idle_mb, "loaded_mb": resident_mb(pid)}


def _load_all(
    asked: argparse.Namespace, target: dict[str, Any], pid: int | None
) -> dict[str, float]:
    target = {**target, "model": "mock", "prompt": "word " * (asked.prompt_bytes // 5)}
    _load({**target, "mode": "closed", "connections": 32, "seconds": 1.0}, None)  # warms up
    full, cpu = _load(
        {**target, "mode": "closed", "connections": 32, "seconds": asked.seconds}, pid
    )
    told = {
        "cpu_us": cpu / max(1, full["requests"]) * 1e6,
        "cores": cpu / full["seconds"],
        "rate": full["requests"] / full["seconds"],
        "failed": float(full["failed"]),
    }
    steady = {**target, "mode": "open", "rate": 1000, "connections": 256, "seconds": asked.seconds}
    paced, _ = _load(steady, pid)
    told |= {"p50_ms": paced.get("latency_p50_ms", 0.0), "p99_ms": paced.get("latency_p99_ms", 0.0)}
    told["failed"] += paced["failed"]
    many = {**target, "mode": "streams", "connections": asked.streams, "seconds": asked.seconds}
    streams, cpu = _load(many, pid)
    told |= {
        "stream_cpu_ms": cpu / max(1, streams["requests"]) * 1e3,
        "chunks": streams["events"] / streams["seconds"],
        "first_ms": streams.get("first_p50_ms", 0.0),
    }
    told["failed"] += streams["failed"]
    if pid is None:
        told |= {"cpu_us": 0.0, "stream_cpu_ms": 0.0, "cores": 0.0}
    return told


def _load(target: dict[str, Any], pid: int | None) -> tuple[dict[str, Any], float]:
    before_s = 0.0 if pid is None else cpu_s(pid)
    command = _pinned(_cores()[2], [str(HERE / "load.py"), json.dumps(target)])
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout  # noqa: S603
    after_s = 0.0 if pid is None else cpu_s(pid)
    told: dict[str, Any] = json.loads(output)
    return told, after_s - before_s


def _short(told: dict[str, float]) -> str:
    return ", ".join(
        f"{name} {form.format(told[key])}" for name, key, form in _COLUMNS if key in told
    )


def _print_table(results: dict[str, list[dict[str, float]]]) -> None:
    direct = results["direct"]
    print("\n| gateway | " + " | ".join(name for name, _, _ in _COLUMNS) + " | added p50 ms |")
    print("|---" * (len(_COLUMNS) + 2) + "|")
    for name, rounds in results.items():
        cells: list[str] = []
        for _, key, form in _COLUMNS:
            values = [told[key] for told in rounds if key in told]
            cells.append(form.format(statistics.median(values)) if values else "-")
        pairs = zip(rounds, direct, strict=False)
        added = statistics.median([told["p50_ms"] - base["p50_ms"] for told, base in pairs])
        print(f"| {name} | " + " | ".join(cells) + f" | {added:.2f} |")
    print("(medians of the rounds)")


if __name__ == "__main__":
    main()
