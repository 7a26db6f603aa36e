"""`steelyard replan`: plan anew from what the ledger saw, again and again, and show the diff."""

import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

import msgspec
from rich.console import Console

from steelyard.cli.apply import ApplyRequest, apply_plan
from steelyard.cli.fleet_file import read_plan
from steelyard.cli.outputs import check_folder
from steelyard.config.catalog_table import Catalog
from steelyard.config.plan_catalog import planning_catalog
from steelyard.config.plan_settings import PlanSettings
from steelyard.domain.workload import Workload
from steelyard.errors import ConfigError, SteelyardError
from steelyard.ledger.ledger import Ledger
from steelyard.ledger.recording import workload_of
from steelyard.planner.changes import Replanned, replanned
from steelyard.planner.plan_options import plan_options
from steelyard.planner.workload_demand import demand_of
from steelyard.report.change_grids import change_grid
from steelyard.report.tables import print_grid
from steelyard.store.event_store import read_store
from steelyard.store.open_store import is_postgres, open_store
from steelyard.store.sqlite_log import read_events


class ReplanRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks for.

    Attributes:
        store: SQLite file or `postgresql://` URL of the ledger; its password is libpq's matter.
        plan: The plan in force; a file that is missing is none.
        every_s: Pause between two looks.
        window_s: How far back the demand is taken from.
        least_saving_frac: What a change must save.
        once: Whether to look once and end.
        yes: Whether to put a plan that is worth it in force.
        apply: How to make what is rented follow; None to write the plan alone.
        as_json: Whether to print a line of JSON per look.
    """

    store: str
    plan: Path
    every_s: float
    window_s: float
    least_saving_frac: float
    once: bool
    yes: bool
    apply: ApplyRequest | None
    as_json: bool


def run_replan(asked: ReplanRequest, settings: PlanSettings) -> None:
    """Look, show, and follow where that is asked for, until stopped.

    Args:
        asked: What the command line asks for.
        settings: How to plan.

    Raises:
        SteelyardError: Of the first look; later ones are told of, and looked again.
    """
    if not asked.once and not asked.every_s > 0.0:
        raise ConfigError(f"--every is {asked.every_s:g} s; it must be longer, or give --once")
    if asked.apply is not None:
        check_folder("--out", asked.apply.folder)
    catalog = planning_catalog(settings)
    stop = threading.Event()

    def ended(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    if not asked.once:
        for sign in (signal.SIGINT, signal.SIGTERM):
            signal.signal(sign, ended)
    _look(asked, settings, catalog)
    while not asked.once and not stop.wait(asked.every_s):
        try:
            _look(asked, settings, catalog)
        except SteelyardError as error:
            # A wave that no fleet serves, a store that is away or a tool that failed may pass.
            print(f"steelyard: {' '.join(str(error).split())}", file=sys.stderr, flush=True)


def _look(asked: ReplanRequest, settings: PlanSettings, catalog: Catalog) -> None:
    workload = recent(_ledger(asked), time.time(), asked.window_s)
    if not workload.tasks:
        print("no task came in the window; the plan in force stays", file=sys.stderr, flush=True)
        return
    options = plan_options(settings, catalog)
    if options.duration_s is None:
        # What came in the window came in all of it, also where the first task came late.
        options = msgspec.structs.replace(options, duration_s=asked.window_s)
    demand = demand_of(
        workload,
        options.growth_factor,
        options.quantile,
        options.duration_s,
        options.peak_window_s,
        options.arrivals,
    )
    in_force = read_plan(asked.plan).fleet() if asked.plan.exists() else {}
    found = replanned(in_force, demand, (catalog, settings.slo, options), asked.least_saving_frac)
    _show(found, asked, len(workload.tasks))
    if found.change and asked.yes:
        if asked.apply is not None:
            apply_plan(found.plan, asked.apply, catalog)
        _write(asked.plan, msgspec.json.encode(found.plan))
        print(f"{asked.plan} is in force now", file=sys.stderr, flush=True)


def recent(ledger: Ledger, now_s: float, window_s: float) -> Workload:
    """Which tasks of the ledger arrived lately?

    Args:
        ledger: The books.
        now_s: The end of the window, on the log's clock.
        window_s: Its length.

    Returns:
        The tasks, the first one at 0 s.
    """
    workload = workload_of(ledger, "the ledger", "the store")
    late = {one.task_id for one in ledger.tasks if now_s - one.submitted_s <= window_s}
    tasks = [one for one in workload.tasks if one.task_id in late]
    first_s = min((one.arrival_s for one in tasks), default=0.0)
    moved = tuple(msgspec.structs.replace(one, arrival_s=one.arrival_s - first_s) for one in tasks)
    return msgspec.structs.replace(workload, tasks=moved)


def _ledger(asked: ReplanRequest) -> Ledger:
    if is_postgres(asked.store):
        with open_store(asked.store) as store:
            return Ledger.of(read_store(store))
    return Ledger.of(read_events(Path(asked.store)))


def _show(found: Replanned, asked: ReplanRequest, tasks: int) -> None:
    if asked.as_json:
        told = {
            "tasks": tasks,
            "changes": msgspec.to_builtins(found.changes),
            "in_force_usd_per_hour": found.in_force_usd_per_hour,
            "planned_usd_per_hour": found.plan.rent_usd_per_hour,
            "saving_frac": found.saving_frac,
            "serves": found.serves,
            "change": found.change,
            "reason": found.reason,
        }
        print(msgspec.json.encode(told).decode(), flush=True)
        return
    print_grid(change_grid(found.changes), Console(file=sys.stdout))
    print(
        f"{tasks} tasks, {found.plan.tasks_per_s:.4g}/s provided for: "
        f"{found.plan.rent_usd_per_hour:.4g} USD/h planned, "
        f"{found.in_force_usd_per_hour:.4g} USD/h in force"
    )
    verdict = "worth a change" if found.change else "stays as it is"
    print(f"{verdict}: {found.reason}", flush=True)
    if found.change and not asked.yes:
        print("nothing was changed; --yes puts the plan in force", flush=True)


def _write(path: Path, text: bytes) -> None:
    try:
        new = path.with_suffix(".new")
        new.write_bytes(text + b"\n")
        new.replace(path)
    except OSError as error:
        raise ConfigError(f"--plan {path} cannot be written: {error.strerror}") from error
