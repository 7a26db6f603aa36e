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
minute.
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
from steelyard.config.pool_settings import EmbeddedPoolSettings
from steelyard.config.settings import Settings, load_settings
from steelyard.domain.events import Event, PoolAdded
from steelyard.domain.pool import PoolSpec
from steelyard.domain.workload import Workload
from steelyard.ledger.ledger import Ledger
from steelyard.ledger.recording import workload_of
from steelyard.placement.policy import CheapestFeasible
from steelyard.sim import simulate
from steelyard.sim.conditions import Conditions
from steelyard.sim.serving import Serving
from steelyard.store.sqlite_log import read_events

sys.path.insert(0, str(Path(__file__).with_name("validation")))

from comparison import Row, compare, print_errors, print_row
from live_side import WARM_UP, Live, between_steps_s, passes_of, shares_of
from profiles import Round, correction, fitted, swing_frac

# OpenVINO GenAI keeps prefixes in blocks on CPUs, and a first token takes a pass over the weights.
OPENVINO = Serving(cache_block_tokens=32, floor_stalls=True)


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
    parser.add_argument("--out", type=Path, help="folder for the log, figures and result")
    asked = parser.parse_args()
    out = asked.out or Path(tempfile.mkdtemp(prefix="steelyard-validate-"))
    out.mkdir(parents=True, exist_ok=True)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; "
        f"{dt.datetime.now(dt.UTC):%Y-%m-%d}; seed {asked.seed}"
    )
    settings = load_settings(asked.config) if asked.config else Settings(pools=local_pools())
    log_path = out / "live.db"
    log_path.unlink(missing_ok=True)
    live = Live(asked, settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(live.run(log_path))
    (out / "rounds.json").write_bytes(msgspec.json.encode(live.rounds))
    rows = rows_of(live, tuple(read_events(log_path)), str(log_path))
    result = out / "validation.json"
    result.write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=1))
    for earlier in asked.add:
        rows += msgspec.json.decode(earlier.read_bytes(), type=list[Row])
    _print_all(rows)
    print(f"\nlog and figures: {out}; result: {result}")


def rows_of(live: Live, events: tuple[Event, ...], source: str) -> list[Row]:
    """Simulate what the log holds, and compare."""
    ledger = Ledger.of(events)
    between_s = between_steps_s(ledger)
    print(f"between two steps, by the warm-up: {1000 * between_s:.1f} ms")
    conditions = Conditions(
        between_steps_s=between_s,
        serving={
            name: OPENVINO
            for name, pool in live.settings.pools.items()
            if isinstance(pool, EmbeddedPoolSettings) and pool.engine == "openvino"
        },
    )
    whole = workload_of(ledger, "live", source)
    specs = tuple(event.spec for event in events if isinstance(event, PoolAdded))
    rows: list[Row] = []
    for share in shares_of(live.asked):
        rounds = live.rounds[f"{share:g}"]
        measured = tuple(_as_measured(spec, rounds) for spec in specs)
        swing = max((swing_frac(part) for part in rounds.values()), default=0.0)
        title = f"load {share:g} seed {live.asked.seed}"
        for one in passes_of(live.asked):
            prefix = f"{one}{share:g}-"
            part = _part(whole, prefix)
            run = simulate(part, measured, CheapestFeasible(), live.asked.seed, conditions)
            name = f"{title}, simulated against live{', again' if one == 'q' else ''}"
            rows.append(compare(name, (ledger, prefix), (Ledger.of(run.events), prefix), swing))
        if live.asked.repeat:
            pair = ((ledger, f"p{share:g}-"), (ledger, f"q{share:g}-"))
            rows.append(compare(f"{title}, live again against live", *pair, swing))
        for spec in measured if share == shares_of(live.asked)[0] else ():
            if spec.name in rounds:
                curve = next(iter(spec.llm_curves.values()))
                factor = correction(ledger, spec.name, curve, WARM_UP)
                print(f"service time over the profile's, by the warm-up: {factor:.3f}")
    return rows


def _as_measured(spec: PoolSpec, rounds: dict[str, list[Round]]) -> PoolSpec:
    if spec.name not in rounds:
        return spec
    curves = {model: fitted(curve, rounds[spec.name]) for model, curve in spec.llm_curves.items()}
    return msgspec.structs.replace(spec, llm_curves=curves)


def _part(workload: Workload, prefix: str) -> Workload:
    """The tasks of one load, the first one at 0 s."""
    tasks = [task for task in workload.tasks if task.task_id.startswith(prefix)]
    start_s = tasks[0].arrival_s
    return msgspec.structs.replace(
        workload,
        tasks=tuple(
            msgspec.structs.replace(task, arrival_s=task.arrival_s - start_s) for task in tasks
        ),
    )


def _print_all(rows: list[Row]) -> None:
    for row in rows:
        print_row(row)
    floor = [row for row in rows if "live again" in row.name]
    simulated = [row for row in rows if row not in floor]
    print_errors("simulated against live", simulated, floor)


if __name__ == "__main__":
    main()
