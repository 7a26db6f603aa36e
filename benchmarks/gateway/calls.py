"""Where does the CPU of a request go? Calls of functions per request, by part of the gateway.

Run as `python benchmarks/gateway/calls.py [--seconds S] [--top N]`. Steelyard runs as in run.py,
its event loop under cProfile, which makes every call dearer: its times say what is much beside
what, not how much it is. What a gateway does that answers one request is taken off, so that
starting up does not count. The writer's thread is not seen. There is no chance in it, so there is
no seed.
"""

import argparse
import json
import pstats
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from gateways import KEY, Gateway, steelyard  # noqa: E402
from run import _cores, _free_port, _machine, _pinned, _upstream  # noqa: E402

# What a path has in it, and what that is for; the first that fits.
_PARTS = (
    ("gateway/prefix", "parse, check and hash the prompt"),
    ("gateway/chat", "parse, check and hash the prompt"),
    ("gateway/wire", "parse, check and hash the prompt"),
    ("gateway/hints", "parse, check and hash the prompt"),
    ("gateway/generation", "parse, check and hash the prompt"),
    ("gateway/metrics", "metrics"),
    ("gateway/prometheus", "metrics"),
    ("steelyard/gateway", "the client's connection and its answer"),
    ("steelyard/placement", "place"),
    ("perf/predict", "place"),
    ("fleet/view", "place"),
    ("fleet/snapshots", "place"),
    ("steelyard/perf", "cost"),
    ("steelyard/fleet", "the fleet's books"),
    ("steelyard/pools", "the upstream's connection and its answer"),
    ("steelyard/runtime", "between them: admission, meter, recorder"),
    ("steelyard/store", "the log's queue"),
    ("steelyard/domain", "the log's queue"),
    ("steelyard", "other"),
)
_BUILT_IN = "in C, called by all of these"
_LIBRARY = "libraries in Python"


def part_of(file: str) -> str:
    """Which part of the gateway is a source file of?"""
    if file == "~":
        return _BUILT_IN
    path = file.replace("\\", "/")
    if "/steelyard/" not in path:
        return _LIBRARY
    return next(part for mark, part in _PARTS if mark in path)


Profile = dict[tuple[str, int, str], tuple[int, float]]


def profiled(seconds: float) -> tuple[Profile, int]:
    """Calls and their own seconds on a gateway's event loop, and how many requests it answered."""
    usual = steelyard()

    def command(folder: Path, port: int, upstream: int) -> list[str]:
        line = usual.command(folder, port, upstream)
        return [line[0], "-m", "cProfile", "-o", str(folder / "profile"), *line[1:]]

    gateway = Gateway("steelyard", command, KEY)
    with tempfile.TemporaryDirectory() as folder, _upstream() as upstream:
        port, place = _free_port() % 20000 + 10000, Path(folder) / "gateway"
        target = {"port": port, "key": KEY, "model": "mock", "prompt": "word " * 40}
        target |= {"mode": "closed", "connections": 32, "seconds": seconds}
        with gateway.running(place, port, upstream, _cores()[0]):
            requests = 0
            if seconds:
                load = _pinned(_cores()[2], [str(HERE / "load.py"), json.dumps(target)])
                output = subprocess.run(load, check=True, stdout=subprocess.PIPE).stdout  # noqa: S603
                requests = int(json.loads(output)["requests"])
        stats = pstats.Stats(str(place / "profile")).stats  # type: ignore[attr-defined]
    return {where: (told[1], told[2]) for where, told in stats.items()}, requests


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--top", type=int, default=15, help="functions to show")
    asked = parser.parse_args()
    print(_machine())
    idle, _ = profiled(0.0)
    loaded, requests = profiled(asked.seconds)
    calls: dict[str, float] = defaultdict(float)
    own_s: dict[str, float] = defaultdict(float)
    rows: list[tuple[float, float, str]] = []
    for (file, line, name), (count, self_s) in loaded.items():
        count_idle, idle_s = idle.get((file, line, name), (0, 0.0))
        per_request = (count - count_idle) / requests
        # The loop itself waits in one call.
        if per_request < 0.01 or name.startswith("<method 'run"):
            continue
        part = part_of(file)
        calls[part] += per_request
        own_s[part] += self_s - idle_s
        where = name if file == "~" else f"{Path(file).name}:{line} {name}"
        rows.append((self_s - idle_s, per_request, where))
    whole_s = sum(own_s.values())
    print(f"{requests} requests\n\n| part | calls per request | share of the time |\n|---|---|---|")
    for part in sorted(own_s, key=lambda one: -own_s[one]):
        print(f"| {part} | {calls[part]:.0f} | {own_s[part] / whole_s:.0%} |")
    print("\n| function | calls per request | share of the time |\n|---|---|---|")
    for self_s, per_request, where in sorted(rows, reverse=True)[: asked.top]:
        print(f"| {where} | {per_request:.1f} | {self_s / whole_s:.1%} |")


if __name__ == "__main__":
    main()
