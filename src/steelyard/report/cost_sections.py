"""Cost of a recorded run beside fleets of one class of hardware, and where Arm won or lost."""

import math

import msgspec

from steelyard.domain.units import SECONDS_PER_HOUR
from steelyard.ledger.margins import StepMargin
from steelyard.ledger.run_figures import RunFigures
from steelyard.planner.kinds import KindCost, usd_per_task
from steelyard.planner.plan import FleetPlan
from steelyard.report.format import NONE, count, name, percent, ratio, short_offering, usd
from steelyard.report.grid import Grid, columns
from steelyard.report.inputs import FleetOption, PlanInputs
from steelyard.report.kind_plot import kind_plot
from steelyard.report.page import Figure, Section, Source, plot, table
from steelyard.report.plan_plots import cost_plot

HARDWARE_LABELS = {"arm": "Arm", "gpu": "GPU", "x86": "x86", "vendor": "vendor"}


class PricedDemand(msgspec.Struct, frozen=True, kw_only=True):
    """The demand of a run, priced by the planner.

    Attributes:
        plan: The cheapest mix for it, with baselines.
        inputs: The same in the words of a report.
        kinds: Each step class on the cheapest offering of each class of hardware.
    """

    plan: FleetPlan
    inputs: PlanInputs
    kinds: tuple[KindCost, ...]


def cost_section(
    run: RunFigures, priced: PricedDemand | None, why_not: str, where: Source
) -> Section:
    """What did a task cost, and what would it have cost elsewhere?

    Args:
        run: The run's figures.
        priced: Its demand on other fleets; None where it cannot be priced.
        why_not: Why it cannot; empty if it can.
        where: The log.

    Returns:
        The section.
    """
    predicted = where.as_origin("predicted")
    figures = [
        Figure(name="paid per task", value=run.usd_per_task, unit="USD", where=where),
        Figure(name="used per task", value=run.used_usd_per_task, unit="USD", where=where),
    ]
    if priced is None:
        return Section(
            key="cost", title="Cost per task", figures=tuple(figures),
            lead=(f"No baselines: {why_not}.",),
            blocks=(table(_run_cost_grid(run), where),),
        )  # fmt: skip
    for one in (priced.inputs.plan, *priced.inputs.baselines):
        each = None if one.usd_per_1000_tasks is None else one.usd_per_1000_tasks / 1000.0
        figures.append(
            Figure(
                name="rent per task, whole machines", about=one.label, value=each, unit="USD",
                where=predicted,
            )
        )  # fmt: skip
    figures.extend(
        Figure(
            name="cost per task on full machines", about=f"all {label}",
            value=usd_per_task(priced.kinds, hardware), unit="USD", where=predicted,
        )
        for hardware, label in HARDWARE_LABELS.items()
        if hardware != "vendor"
    )  # fmt: skip
    return Section(
        key="cost",
        title="Cost per task against baselines",
        lead=(_rate_lead(priced, run),),
        figures=tuple(figures),
        blocks=(
            table(_baseline_grid(run, priced), predicted),
            plot(
                cost_plot(priced.inputs),
                "The run's own demand on other fleets: rent of whole machines in USD per 1,000"
                " tasks, split by hardware.",
                predicted,
            ),
        ),
    )


def _rate_lead(priced: PricedDemand, run: RunFigures) -> str:
    plan = priced.plan
    return (
        f"The demand of the run ({count(run.tasks)} tasks in {run.span_s:,.0f} s) at"
        f" {plan.options.growth_factor:g} times its rate, {plan.tasks_per_s:.4g} tasks/s, priced by"
        " the planner on fleets of one class of hardware. Whole machines must be rented there; at"
        " a small rate most of that is idle time, which full machines leave out."
    )


def _run_cost_grid(run: RunFigures) -> Grid:
    return Grid(
        title="Cost per task of the run",
        origin="measured",
        columns=columns(("", ), ("per task", "per 1,000 tasks")),
        rows=(
            ("paid, idle time included", usd(run.usd_per_task), usd(1000.0 * run.usd_per_task)),
            ("used", usd(run.used_usd_per_task), usd(1000.0 * run.used_usd_per_task)),
        ),
    )  # fmt: skip


def _baseline_grid(run: RunFigures, priced: PricedDemand) -> Grid:
    mine = ("this run", "measured", usd(run.usd_per_task), "1.00x" if run.usd_per_task else NONE)
    rows: list[tuple[str, ...]] = [
        (*mine, usd(run.used_usd_per_task), "1.00x" if run.used_usd_per_task else NONE, "")
    ]
    fleets = (priced.inputs.plan, *priced.inputs.baselines)
    rows.extend(_fleet_row(one, run, priced) for one in fleets)
    heads = ("rent per task", "against the run", "full machines, per task", "against use")
    return Grid(
        title="Cost per task beside other fleets",
        origin=None,
        columns=columns(("fleet", "source"), heads, ("machines",)),
        rows=tuple(rows),
        note=(
            "Rent per task counts idle time: of the run's pools from the first arrival to the last"
            " end, of the others' whole machines at list prices. Full machines: each step on the"
            " cheapest offering of the class that is in time, headroom included, idle time not;"
            " for the run, what its steps used."
        ),
    )


def _fleet_row(one: FleetOption, run: RunFigures, priced: PricedDemand) -> tuple[str, ...]:
    full_usd = usd_per_task(priced.kinds, one.name.removeprefix("all-"))
    full_cells = (
        usd(full_usd),
        ratio(full_usd / run.used_usd_per_task if full_usd and run.used_usd_per_task else None),
    )
    if one.usd_per_1000_tasks is None:
        why = f"infeasible: {name(one.infeasible, 300)}"
        return (name(one.label), "predicted", NONE, NONE, *full_cells, why)
    each_usd = one.usd_per_1000_tasks / 1000.0
    against = ratio(each_usd / run.usd_per_task) if run.usd_per_task else NONE
    bought = [f"{count(p.machines)} x {short_offering(p.offering)}" for p in one.pools]
    machines = ", ".join(bought) or "none"
    return (name(one.label), "predicted", usd(each_usd), against, *full_cells, machines)


def arm_section(
    margins: tuple[StepMargin, ...], priced: PricedDemand | None, where: Source
) -> Section:
    """Where did Arm win and where did it lose, and by how much?

    Args:
        margins: Of the run's own pools.
        priced: The demand on the catalogue's machines; None where it cannot be priced.
        where: The log.

    Returns:
        The section.
    """
    predicted = where.as_origin("predicted")
    kinds = () if priced is None else priced.kinds
    steps = _by_step(kinds)
    figures = [
        *(
            Figure(
                name="saved per step against the cheapest other hardware in time",
                about=f"{one.step} of {one.agent} on {one.hardware}",
                value=one.saved_usd, unit="USD", where=predicted,
            )
            for one in margins
        ),
        *(
            Figure(
                name="cost per step on a full machine",
                about=f"{one.name} on {one.offering}",
                value=one.usd_per_step, unit="USD", where=predicted,
            )
            for one in kinds
        ),
    ]  # fmt: skip
    return Section(
        key="arm",
        title="Where Arm won and where it lost",
        lead=_arm_lead(margins, steps),
        figures=tuple(figures),
        blocks=(
            table(_margin_grid(margins), predicted),
            table(_kind_grid(steps), predicted),
            plot(
                kind_plot(kinds),
                "Cost of a step in USD on a full machine of the cheapest offering of each class of"
                " hardware that is in time; a missing bar could not keep the limits.",
                predicted,
            ),
        ),
    )


def _by_step(kinds: tuple[KindCost, ...]) -> dict[str, dict[str, KindCost]]:
    steps: dict[str, dict[str, KindCost]] = {}
    for one in kinds:
        steps.setdefault(one.name, {})[one.hardware] = one
    return steps


def _arm_lead(
    margins: tuple[StepMargin, ...], steps: dict[str, dict[str, KindCost]]
) -> tuple[str, ...]:
    told: list[str] = []
    if margins and not any("arm" in (one.hardware, one.rival_hardware) for one in margins):
        told.append("The run had no Arm pool that was ever in the choice.")
    won = sorted(key for key, kinds in steps.items() if (_arm_saves_frac(kinds) or 0.0) > 0.0)
    lost = sorted(key for key, kinds in steps.items() if (_arm_saves_frac(kinds) or 0.0) < 0.0)
    unable = sorted(key for key, kinds in steps.items() if "arm" not in kinds)
    if steps:
        told.append(
            f"On the catalogue's machines Arm is cheapest for {count(len(won))} of"
            f" {count(len(steps))} kinds of step, dearer for {count(len(lost))}, and cannot keep"
            f" the limits of {count(len(unable))}."
        )
    return tuple(told)


def _arm_saves_frac(kinds: dict[str, KindCost]) -> float | None:
    """Share of the cheapest other class's cost that Arm saves; negative where it is dearer."""
    others = [one.usd_per_step for key, one in kinds.items() if key != "arm"]
    if "arm" not in kinds or not others or min(others) <= 0.0:
        return None
    return 1.0 - kinds["arm"].usd_per_step / min(others)


def _margin_grid(margins: tuple[StepMargin, ...]) -> Grid:
    rows = [
        (
            name(one.step),
            name(one.agent),
            HARDWARE_LABELS.get(one.hardware, one.hardware),
            count(one.steps),
            usd(one.measured_usd),
            usd(one.predicted_usd),
            HARDWARE_LABELS.get(one.rival_hardware, one.rival_hardware) or NONE,
            usd(one.rival_usd),
            usd(one.saved_usd),
            _verdict(one),
        )
        for one in margins
    ]
    heads = ("steps", "cost, measured", "cost, predicted")
    rival = ("cheapest other in time", "its cost, predicted", "saved per step, predicted")
    return Grid(
        title="The run's own choices: cost per step against the cheapest other hardware in time",
        origin=None,
        columns=columns(("step", "agent", "ran on"), heads + rival, ("in words",)),
        rows=tuple(rows),
        note=(
            "Of the pools of the run, as the policy predicted them when it placed each step;"
            " costs are means per step. Other hardware counts where it could have met the deadline."
            " Policies compare bid prices and slack too, so the cheaper one need not be chosen."
        ),
    )


def _verdict(one: StepMargin) -> str:
    label = HARDWARE_LABELS.get(one.hardware, one.hardware)
    saved_usd = one.saved_usd
    if saved_usd is None or one.rival_usd is None or one.compared_usd is None:
        return f"no other hardware was there in time for any of {count(one.steps)} steps"
    if saved_usd == 0.0 or min(one.rival_usd, one.compared_usd) <= 0.0:
        return f"{label} by {usd(saved_usd)}"
    won = saved_usd > 0.0
    factor = one.rival_usd / one.compared_usd if won else one.compared_usd / one.rival_usd
    how = f"{label} {'won' if won else 'lost'}: {factor:.3g} times cheaper"
    if not won:
        how = f"{label} lost: {factor:.3g} times as dear"
    return f"{how} ({percent(one.compared / one.steps)} of the steps had another choice)"


def _kind_grid(steps: dict[str, dict[str, KindCost]]) -> Grid:
    rows: list[tuple[str, ...]] = []
    for key, kinds in sorted(steps.items()):
        saves = _arm_saves_frac(kinds)
        cells = [usd(kinds[one].usd_per_step) if one in kinds else NONE for one in _KINDS]
        offerings = ", ".join(short_offering(kinds[one].offering) for one in _KINDS if one in kinds)
        origins = ", ".join(sorted({one.origin for one in kinds.values()}))
        rows.append((name(key), *cells, _arm_words(kinds, saves), offerings, origins))
    return Grid(
        title="Any machine of the catalogue: cost per step on a full machine",
        origin="predicted",
        columns=columns(
            ("step",), ("Arm", "GPU", "x86"), ("Arm against the others", "offerings", "figures")
        ),
        rows=tuple(rows),
        note=(
            "The cheapest offering of each class that keeps limits and deadlines, headroom"
            " included. Figures: how the speeds behind a price are known."
        ),
    )


_KINDS = ("arm", "gpu", "x86")


def _arm_words(kinds: dict[str, KindCost], saves: float | None) -> str:
    if "arm" not in kinds:
        return "cannot keep the limits"
    if saves is None:
        return "only Arm can run it" if len(kinds) == 1 else NONE
    others = [one for key, one in kinds.items() if key != "arm"]
    best = min(others, key=lambda one: (one.usd_per_step, one.hardware))
    gap_usd = abs(best.usd_per_step - kinds["arm"].usd_per_step)
    label = HARDWARE_LABELS[best.hardware]
    if saves >= 0.0:
        return f"won against {label}: saves {usd(gap_usd)} per step, {percent(saves)}"
    return f"lost to {label}: {usd(gap_usd)} per step dearer, {ratio(1.0 - saves)} the cost"


def gpu_hours_freed(run: RunFigures, priced: PricedDemand | None) -> float | None:
    """How many GPU-hours would the all-GPU fleet have held over the run's time beyond its own?

    Args:
        run: The run.
        priced: Its demand on other fleets.

    Returns:
        GPU-hours; None where GPUs alone cannot serve the demand, or where the demand was priced at
        another rate than the run's.
    """
    if priced is None or not math.isclose(priced.plan.options.growth_factor, 1.0):
        return None
    for one in priced.plan.hours:
        if one.fleet == "all-gpu":
            all_gpu = math.fsum(one.gpu_hours.values()) * run.span_s / SECONDS_PER_HOUR
            return all_gpu - run.gpu_hours
    return None
