"""The plan in force, what a new one would change, and what other prices and loads would.

All of it runs in the analyst's process. Nothing here is measured: plans are planned, and what a
simulation says of them is simulated.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from steelyard.config.catalog_table import Catalog
from steelyard.config.plan_catalog import planning_catalog
from steelyard.config.plan_settings import PlanSettings, load_plan_settings
from steelyard.dashboard.messages import Change
from steelyard.dashboard.sheets import Sheet, Tile
from steelyard.domain.workload import Workload, WorkloadTask
from steelyard.errors import ConfigError, PlanError
from steelyard.ledger.ledger import Ledger
from steelyard.ledger.recording import workload_of
from steelyard.placement.policy import CheapestFeasible
from steelyard.planner.plan import FleetPlan, PlanOptions, plan_fleet
from steelyard.planner.plan_options import plan_options
from steelyard.planner.pools import pools_of
from steelyard.report.alike import per_second_alike, usd_alike
from steelyard.report.format import (
    count,
    name,
    per_second,
    percent,
    ratio,
    seconds,
    short_offering,
    usd,
)
from steelyard.report.from_plan import plan_inputs
from steelyard.report.grid import Grid, columns
from steelyard.report.plan_grids import choice_grid, fleet_grid, machine_grid
from steelyard.report.plan_notes import plan_notes
from steelyard.sim import Conditions, simulate
from steelyard.sim.synth import scale_workload

# (what is being done, share of it that is done)
Say = Callable[[str, float], None]

# A button should answer while somebody waits; `steelyard plan` looks as long as it likes.
_PLAN_LIMIT_S = 15.0
_WHAT_IF_LIMIT_S = 4.0
_BASE_S = 300.0
_SAMPLE_TASKS = 300
_SEED = 1
_PLANNED_TASKS = 3000
_HARDWARE = {"arm": "Arm machines", "x86": "x86 machines", "gpu": "GPU machines"}
_NO_PLAN = (
    "No plan is in force: give one with `steelyard up --plan FILE`, or as `plan` under [dashboard] "
    "in the configuration."
)


class _Base(NamedTuple):
    """Things as they are, for all positions of the sliders in the next minutes."""

    until_s: float
    workload: Workload
    catalog: Catalog
    plan: FleetPlan
    ledger: Ledger


class Planning:
    """Plans from the ledger's demand.

    Args:
        plan: The plan in force; None without one.
        settings: What new plans keep to; None for the defaults.
    """

    def __init__(self, plan: Path | None, settings: Path | None) -> None:
        self._plan = plan
        self._settings = settings
        self._base: _Base | None = None

    def in_force(self) -> Sheet:
        """The plan in force."""
        plan = self._read()
        if plan is None:
            return Sheet(notes=(_NO_PLAN,))
        return _plan_sheet(plan, self._catalog())

    def anew(self, ledger: Ledger, say: Say) -> Sheet:
        """A new plan from what the ledger saw, beside the one in force.

        Raises:
            PlanError: The ledger holds no demand, or no fleet serves it.
        """
        say("reading the demand", 0.2)
        workload = _demand(ledger)
        say("loading the catalogue", 0.3)
        catalog = self._catalog()
        say(f"planning, for at most {_PLAN_LIMIT_S:g} s per fleet", 0.4)
        options = self._options(catalog, _PLAN_LIMIT_S, with_baselines=True)
        plan = plan_fleet(workload, catalog, self._plan_settings().slo, options)
        say("comparing", 0.95)
        old = self._read()
        sheet = _plan_sheet(plan, catalog)
        changes = _change_grid(old, plan) if old is not None else None
        grids = sheet.grids if changes is None else (changes, *sheet.grids)
        demand = (
            f"Demand: {count(len(workload.tasks))} recorded tasks, open ones that are quiet "
            f"included, which arrived within {seconds(workload.tasks[-1].arrival_s)}."
        )
        return msgspec.structs.replace(sheet, grids=grids, notes=(demand, *sheet.notes))

    def what_if(self, ledger: Ledger, change: Change, say: Say) -> Sheet:
        """Plan and simulate a sample twice: as things are, and as they might be.

        Raises:
            PlanError: The ledger holds no demand, or no fleet serves it.
        """
        base = self._base
        if base is None or time.monotonic() > base.until_s:
            base = self._base = self._as_it_is(ledger, say)
        other = _priced(base.catalog, change.scope, change.price_factor)
        changed = _with_deadlines(base.workload, change.deadline_factor)
        say("planning as things might be", 0.55)
        then = self._planned(changed, other, change.load_factor)
        say("simulating that", 0.85)
        after = _simulated(then, other, changed)
        asked_for = (len(changed.tasks), changed.tasks[-1].arrival_s)
        return _what_if_sheet((base.plan, base.ledger), (then, after), asked_for)

    def _as_it_is(self, ledger: Ledger, say: Say) -> "_Base":
        say("reading the demand", 0.1)
        workload = _demand(ledger)
        catalog = self._catalog()
        say("planning as things are", 0.2)
        plan = self._planned(workload, catalog, 1.0)
        say("simulating that", 0.4)
        simulated = _simulated(plan, catalog, workload)
        return _Base(time.monotonic() + _BASE_S, workload, catalog, plan, simulated)

    def _planned(self, workload: Workload, catalog: Catalog, load_factor: float) -> FleetPlan:
        options = self._options(catalog, _WHAT_IF_LIMIT_S, with_baselines=False)
        grown = options.growth_factor * load_factor
        options = msgspec.structs.replace(options, growth_factor=grown)
        return plan_fleet(workload, catalog, self._plan_settings().slo, options)

    def _options(self, catalog: Catalog, limit_s: float, *, with_baselines: bool) -> PlanOptions:
        options = plan_options(self._plan_settings(), catalog)
        limits = msgspec.structs.replace(options.limits, time_limit_s=limit_s)
        return msgspec.structs.replace(options, limits=limits, with_baselines=with_baselines)

    def _plan_settings(self) -> PlanSettings:
        return PlanSettings() if self._settings is None else load_plan_settings(self._settings)

    def _catalog(self) -> Catalog:
        return planning_catalog(self._plan_settings())

    def _read(self) -> FleetPlan | None:
        if self._plan is None:
            return None
        try:
            return msgspec.json.decode(self._plan.read_bytes(), type=FleetPlan)
        except OSError as error:
            raise ConfigError(f"plan {self._plan} cannot be read: {error.strerror}") from error
        except msgspec.MsgspecError as error:
            raise ConfigError(
                f"plan {self._plan} is no plan: {error}; write one with `steelyard plan --out`"
            ) from error


def _demand(ledger: Ledger) -> Workload:
    workload = workload_of(ledger, "the ledger", "the store")
    if not workload.tasks:
        raise PlanError("no task has ended yet; let some run, then plan from what they used")
    # The newest ones say best what is asked for now.
    return msgspec.structs.replace(workload, tasks=_from_zero(workload.tasks[-_PLANNED_TASKS:]))


def _from_zero(tasks: tuple[WorkloadTask, ...]) -> tuple[WorkloadTask, ...]:
    first_s = tasks[0].arrival_s
    return tuple(
        msgspec.structs.replace(task, arrival_s=task.arrival_s - first_s) for task in tasks
    )


def _with_deadlines(workload: Workload, factor: float) -> Workload:
    tasks = tuple(
        msgspec.structs.replace(task, deadline_after_s=task.deadline_after_s * factor)
        if task.deadline_after_s is not None
        else task
        for task in workload.tasks
    )
    return msgspec.structs.replace(workload, tasks=tasks)


def _priced(catalog: Catalog, scope: str, factor: float) -> Catalog:
    """The catalogue with some prices changed."""
    what, _, who = scope.partition(":")
    offerings = tuple(
        msgspec.structs.replace(one, usd_per_hour=one.usd_per_hour * factor)
        if what == "all"
        or (what == "provider" and one.provider == who)
        or (what == "hardware" and one.instance_type.hardware == who)
        else one
        for one in catalog.offerings
    )
    return msgspec.structs.replace(catalog, offerings=offerings)


def _simulated(plan: FleetPlan, catalog: Catalog, workload: Workload) -> Ledger:
    sample = scale_workload(workload, 1.0, _SAMPLE_TASKS, _SEED, rate_per_s=plan.tasks_per_s)
    bids = {machines.offering: machines.bid_usd_per_hour for machines in plan.machines}
    run = simulate(
        sample,
        pools_of(plan, catalog),
        CheapestFeasible(),
        _SEED,
        conditions=Conditions(bids_usd_per_hour=bids),
    )
    return Ledger.of(run.events)


def _plan_sheet(plan: FleetPlan, catalog: Catalog) -> Sheet:
    inputs = plan_inputs(plan, catalog)
    return Sheet(
        tiles=(
            Tile(label="fleet", value=f"{usd(plan.usd_per_hour)}/h"),
            Tile(label="per 1,000 tasks", value=usd(plan.usd_per_1000_tasks)),
            Tile(label="provides for", value=per_second(plan.tasks_per_s, "tasks")),
            Tile(
                label="machines",
                value=count(sum(one.machines for one in plan.machines)),
                note="of " + ", ".join(sorted({one.provider for one in plan.machines})),
            ),
            Tile(label="gap at most", value=percent(plan.gap_frac), note="to the cheapest fleet"),
        ),
        grids=(machine_grid(inputs), fleet_grid(inputs), choice_grid(inputs)),
        notes=(f"Planned for: {plan.workload}.", f"Limits: {inputs.slo}.", *plan_notes(plan)),
    )


def _change_grid(old: FleetPlan, new: FleetPlan) -> Grid:
    """What would have to be bought and given back?"""
    before, after = old.fleet(), new.fleet()
    rents = {one.offering: one.usd_per_hour for one in (*old.machines, *new.machines)}
    offerings = [
        one for one in sorted({*before, *after}) if before.get(one, 0) or after.get(one, 0)
    ]
    changes = [after.get(one, 0) - before.get(one, 0) for one in offerings]
    rent_changes = [change * rents[one] for change, one in zip(changes, offerings, strict=True)]
    *told, whole = usd_alike([*rent_changes, new.usd_per_hour - old.usd_per_hour])
    rows = [
        (
            name(offering),
            count(before.get(offering, 0)),
            count(after.get(offering, 0)),
            f"{change:+,}",
            rent_told,
        )
        for offering, change, rent_told in zip(offerings, changes, told, strict=True)
    ]
    rows.append(
        (
            "whole fleet",
            count(sum(before.values())),
            count(sum(after.values())),
            f"{sum(after.values()) - sum(before.values()):+,}",
            whole,
        )
    )
    return Grid(
        title="What the new plan would change",
        origin="planned",
        columns=columns(
            ("offering",), ("machines now", "then", "change", "change of rent per hour")
        ),
        rows=tuple(rows),
    )


def _what_if_sheet(
    now: tuple[FleetPlan, Ledger], then: tuple[FleetPlan, Ledger], recorded: tuple[int, float]
) -> Sheet:
    (plan, base), (other, after) = now, then
    tasks, span_s = recorded
    rents = ((_rent(plan, hardware), _rent(other, hardware)) for hardware in _HARDWARE)
    rows = (
        ("fleet per hour", *usd_alike((plan.usd_per_hour, other.usd_per_hour))),
        ("per 1,000 tasks", *usd_alike((plan.usd_per_1000_tasks, other.usd_per_1000_tasks))),
        ("provides for", *per_second_alike((plan.tasks_per_s, other.tasks_per_s), "tasks")),
        (
            "SLO attainment, simulated",
            percent(base.slo_attainment_frac),
            percent(after.slo_attainment_frac),
        ),
        *(
            (f"rent of {words} per hour", *usd_alike(pair))
            for words, pair in zip(_HARDWARE.values(), rents, strict=True)
        ),
        ("machines", _machines(plan), _machines(other)),
    )
    against = other.usd_per_1000_tasks / plan.usd_per_1000_tasks
    return Sheet(
        tiles=(
            Tile(
                label="cost per task against now",
                value=ratio(against),
                note="predicted, by the planner",
            ),
            Tile(label="fleet per hour", value=usd(other.usd_per_hour), note="predicted"),
            Tile(
                label="SLO attainment",
                value=percent(after.slo_attainment_frac),
                note="predicted, by simulation",
            ),
        ),
        grids=(
            Grid(
                title="As things are, and as they might be",
                origin="predicted",
                columns=columns(("figure",), (), ("planned as it is", "planned for the change")),
                rows=rows,
                note=f"Both are planned from the newest {count(tasks)} recorded tasks, which "
                f"arrived within {seconds(span_s)}, at list prices of whole machines, and "
                f"simulated with {count(_SAMPLE_TASKS)} drawn from them, seed {_SEED}; nothing "
                "of it is measured.",
            ),
        ),
    )


def _rent(plan: FleetPlan, hardware: str) -> float:
    return plan.rent_by_hardware().get(hardware, 0.0)


def _machines(plan: FleetPlan) -> str:
    told = [f"{count(one.machines)} x {short_offering(one.offering)}" for one in plan.machines]
    return ", ".join(told) or "none"
