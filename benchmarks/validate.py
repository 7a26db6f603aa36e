"""Does the simulator agree with the live system? The same arrivals, once for real and once not.

Run as `python benchmarks/validate.py [--config FILE] [--loads 0.3,0.6] [--tasks 40] [--repeat]`.

The live side is everything there is: engines, sandboxed tools, the gateway over HTTP, the event
log. Pools are those of `--config`, or else an embedded engine and tools on this machine. Tasks
arrive as a Poisson process at shares of what the fleet can serve, by the cost function. Then the
simulator gets the recorded arrivals with each step's tokens, CPU seconds and the time a tool waited
beside them, the same pools and policy, and no measured time of a model.

What it knows of the machine was measured outside of the runs that it predicts. A load is run in
`--pieces`; before, between and after them, while nothing else runs, the engine is profiled as by
`steelyard measure`, and the mean curve of all these rounds is simulated (engines with a figures
file keep theirs). The seconds that pass between two steps come from the tasks of the warm-up, which
run one after the other.

Printed per load, live and simulated: task latency (mean, p50, p95), step latency by kind, cost per
task, goodput; errors are relative to live. The distance is Wasserstein's of the task latencies,
over their mean. `--repeat` runs every piece twice and compares the second live run with the first:
no simulator can be expected to come closer than the live system comes to itself. `--add FILE` takes
results of earlier calls into the table of errors at the end, for machines that are lent by the
minute. `--again` simulates the log of an earlier call anew; `benchmarks/validation/variants.py`
shows what each part of what the simulator is told does to the error.
"""

import argparse
import asyncio
import datetime as dt
import os
import platform
import sys
import tempfile
from pathlib import Path

import msgspec
import uvloop

from steelyard.cli.demo.live import MODEL, local_pools
from steelyard.config.settings import Settings, load_settings

sys.path.insert(0, str(Path(__file__).with_name("validation")))

from comparison import Row, print_errors, print_row
from live_side import Live
from simulated_side import Recording


def main() -> None:
    """Measure, run, simulate, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, help="pools to run; an engine and tools by default")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--loads", default="0.3,0.6,0.9", help="shares of the fleet's capacity")
    parser.add_argument("--tasks", type=int, default=40, help="per load")
    parser.add_argument("--pieces", type=int, default=5, help="of each load, profiled in between")
    parser.add_argument("--words", type=int, default=60, help="mean length of a user's message")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--repeat", action="store_true", help="compare live with live as well")
    parser.add_argument("--add", type=Path, action="append", default=[], help="earlier results")
    parser.add_argument("--out", type=Path, help="folder for the log, profiles and result")
    parser.add_argument(
        "--again", action="store_true", help="simulate what --out holds; no live run"
    )
    asked = parser.parse_args()
    out = asked.out or Path(tempfile.mkdtemp(prefix="steelyard-validate-"))
    out.mkdir(parents=True, exist_ok=True)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; "
        f"{dt.datetime.now(dt.UTC):%Y-%m-%d}; seed {asked.seed}"
    )
    settings = load_settings(asked.config) if asked.config else Settings(pools=local_pools())
    if not asked.again:
        live = Live(asked, settings)
        log_path = out / "live.db"
        log_path.unlink(missing_ok=True)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(live.run(log_path))
        (out / "rounds.json").write_bytes(msgspec.json.encode(live.rounds))
    rows = Recording(out, settings, asked.seed).rows()
    result = out / "validation.json"
    result.write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=1))
    for earlier in asked.add:
        rows += msgspec.json.decode(earlier.read_bytes(), type=list[Row])
    _print_all(rows)
    print(f"\nlog and profiles: {out}; result: {result}")


def _print_all(rows: list[Row]) -> None:
    for row in rows:
        print_row(row)
    floor = [row for row in rows if "live again" in row.name]
    simulated = [row for row in rows if row not in floor]
    print_errors("simulated against live", simulated, floor)


if __name__ == "__main__":
    main()
