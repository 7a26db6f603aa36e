"""A report put together: each source in full or beside the first of its sort."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from steelyard.cli.fleet_file import replica_facts
from steelyard.cli.progress import Stages
from steelyard.cli.report_sources import Simulated, Told, read_marks, shown
from steelyard.config.catalog_table import Catalog
from steelyard.config.plan_catalog import planning_catalog
from steelyard.config.plan_settings import PlanSettings
from steelyard.domain.slo import Slo
from steelyard.errors import PlanError
from steelyard.ledger.caps import caps_kept
from steelyard.ledger.health import HealthSpan
from steelyard.ledger.ledger import Ledger
from steelyard.ledger.margins import step_margins
from steelyard.ledger.providers_over_time import providers_over_time
from steelyard.ledger.recording import workload_of
from steelyard.ledger.run_figures import RunFigures, run_figures
from steelyard.ledger.shares import EnergyRange, energy_range, provider_shares
from steelyard.planner.kinds import kind_costs
from steelyard.planner.plan import FleetPlan, PlanOptions, plan_demand, planning_problem
from steelyard.planner.plan_options import plan_options
from steelyard.planner.workload_demand import demand_of
from steelyard.report.comparison_section import Compared, compared_plan, comparison_section
from steelyard.report.cost_sections import PricedDemand, arm_section, cost_section, gpu_hours_freed
from steelyard.report.format import seconds
from steelyard.report.from_plan import plan_inputs
from steelyard.report.page import Figure, Page, Section, Source
from steelyard.report.plan_sections import (
    plan_figures,
    plan_sections,
    run_figures_told,
    simulation_section,
)
from steelyard.report.provider_sections import has_trouble, providers_over_time_section
from steelyard.report.service_sections import (
    prediction_section,
    provider_section,
    slo_section,
    use_section,
)

# Clocks of simulations begin at 0; those of live logs at 1970.
_FIRST_DATE_S = 1e9


class ReportRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to report on.

    Attributes:
        source: Event log, plan or simulation.
        plan: A plan beside it; None for none.
        simulation: A simulation beside it; None for none.
        against: More of any sort, to compare with.
        growth_factor: Rate at which the run's demand is priced, over its own.
        out: File to write, `.html` or `.md`; None prints Markdown.
        as_json: Print one JSON object.
        command: The command line, for the page.
        marks: File of moments to be marked in the plot of providers; None for none.
    """

    source: str
    plan: Path | None = None
    simulation: Path | None = None
    against: tuple[str, ...] = ()
    growth_factor: float = 1.0
    out: Path | None = None
    as_json: bool = False
    command: str = "steelyard report"
    marks: Path | None = None


class _Report:
    """A report being put together.

    Args:
        asked: What to report on.
        settings: How the run's demand is priced, where no plan says so.
        plan: The first plan among the sources; None without one.
    """

    def __init__(
        self, asked: ReportRequest, settings: PlanSettings, plan: FleetPlan | None
    ) -> None:
        self._asked = asked
        self._catalog = planning_catalog(settings)
        self._slo = settings.slo if plan is None else plan.slo
        self._options = plan_options(settings, self._catalog) if plan is None else plan.options
        self.tiles: list[Figure] = []
        self.sections: list[Section] = []
        self.sides: list[Compared] = []
        self.assumptions: list[str] = []

    def add(self, one: Told, *, full: bool) -> None:
        """Tell of a source.

        Args:
            one: The source.
            full: In sections of its own, or in the comparison alone.
        """
        if one.ledger is not None:
            self._add_run(one.label, one.ledger, full=full)
            if full:
                self._add_providers(one.label, one.ledger, one.health)
        elif one.plan is not None:
            self._add_plan(one.label, one.plan, full=full)
        elif one.simulated is not None:
            self._add_simulated(one.label, one.simulated, full=full)

    def _where(self, label: str, kind: str) -> Source:
        told = Source(origin="measured", source=shown(label), command=self._asked.command)
        if kind == "plan":
            return told.as_origin("planned")
        return told if kind == "run" else told.as_origin("simulated")

    def _add_run(self, label: str, ledger: Ledger, *, full: bool) -> None:
        where = self._where(label, "run")
        facts = replica_facts(tuple(ledger.pools.values()), self._catalog)
        run = run_figures(ledger, facts)
        energy = energy_range(run, facts)
        self.sides.append(_run_side(label, run, where))
        if not full:
            return
        priced, why_not = priced_demand(
            ledger, self._catalog, self._slo, self._options, self._asked.growth_factor
        )
        freed = gpu_hours_freed(run, priced)
        cap = self._options.constraints.provider_share_cap
        self.tiles += _run_tiles(run, (freed, energy), where)
        self.sections += [
            cost_section(run, priced, why_not, where),
            arm_section(step_margins(ledger), priced, where),
            use_section(run, energy, freed, where),
            slo_section(ledger, run, where),
            provider_section(provider_shares(run, ledger.pools), cap, where),
            prediction_section(ledger, where),
        ]
        self.assumptions += _run_assumptions(priced, self._slo)

    def _add_providers(self, label: str, ledger: Ledger, health: tuple[HealthSpan, ...]) -> None:
        """Where something failed, or somebody says that something happened."""
        marks = () if self._asked.marks is None else read_marks(self._asked.marks)
        told, caps = providers_over_time(ledger, health), caps_kept(ledger)
        if marks or caps or has_trouble(told):
            where = self._where(label, "run")
            self.sections.append(providers_over_time_section(told, marks, caps, where))

    def _add_plan(self, label: str, plan: FleetPlan, *, full: bool) -> None:
        where = self._where(label, "plan")
        self.sides.append(compared_plan(plan, Path(label).name, where))
        if full:
            self.sections += plan_sections(plan, plan_inputs(plan, self._catalog), where)
            self.tiles += [
                one
                for one in plan_figures(plan, where)
                if one.about == "plan" and one.name.startswith(("planned cost per task", "gap"))
            ]

    def _add_simulated(self, label: str, simulated: Simulated, *, full: bool) -> None:
        where = self._where(label, "simulation")
        mine = simulated.runs[simulated.policy]
        if full:
            self.sections.append(simulation_section(simulated.runs, simulated.policy, where))
            self.tiles += run_figures_told(mine, simulated.policy, where)[1:4:2]
        for policy, run in simulated.runs.items():
            told = run_figures_told(run, policy, where)
            self.sides.append(Compared(label=f"{Path(label).name}, {policy}", figures=told))


def report_page(told: list[Told], asked: ReportRequest, settings: PlanSettings) -> Page:
    """Everything on the page.

    Args:
        told: The sources; the first of each sort in full, the others compared with it.
        asked: What to report on.
        settings: How the run's demand is priced, where no plan says so.

    Returns:
        The page.
    """
    plan = next((one.plan for one in told if one.plan is not None), None)
    report = _Report(asked, settings, plan)
    sorts: set[str] = set()
    with Stages(len(told)) as stages:
        for one in told:
            stages.stage(f"reporting on {shown(one.label)}")
            report.add(one, full=one.sort not in sorts)
            sorts.add(one.sort)
    if len(report.sides) > len(told) or len(told) > 1:
        report.sections.insert(0, comparison_section(tuple(report.sides)))
    names = ", ".join(f"{shown(one.label)}{_when(one.ledger)}" for one in told)
    return Page(
        title=f"Steelyard report: {', '.join(_short(one.label) for one in told)}",
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        about=f"Made from {names}.",
        command=asked.command,
        tiles=tuple(report.tiles),
        sections=tuple(report.sections),
        assumptions=tuple(report.assumptions),
    )


def _when(ledger: Ledger | None) -> str:
    """The time that the figures of a run are of; a log of a virtual clock has no date."""
    if ledger is None:
        return ""
    length = f"{seconds(ledger.span_s)} from the first arrival to the last end"
    if ledger.first_s < _FIRST_DATE_S:
        return f" ({length})"
    first, last = (datetime.fromtimestamp(t_s, UTC) for t_s in (ledger.first_s, ledger.last_s))
    return f" ({first:%Y-%m-%d %H:%M:%S} to {last:%Y-%m-%d %H:%M:%S} UTC, {length})"


def _short(label: str) -> str:
    return Path(shown(label)).name


def _run_side(label: str, run: RunFigures, where: Source) -> Compared:
    return Compared(label=_short(label), figures=run_figures_told(run, _short(label), where))


def _run_tiles(
    run: RunFigures, freed_and_energy: tuple[float | None, EnergyRange | None], where: Source
) -> list[Figure]:
    freed, energy = freed_and_energy
    predicted = where.as_origin("predicted")
    return [
        Figure(name="tasks ended", value=float(run.tasks), unit="count", where=where),
        Figure(name="SLO attainment", value=run.slo_attainment_frac, unit="frac", where=where),
        Figure(name="paid per task, idle included", value=run.usd_per_task, unit="USD",
               where=where),
        Figure(name="used per task", value=run.used_usd_per_task, unit="USD", where=where),
        Figure(name="goodput", value=run.goodput_per_s, unit="tasks/s", where=where),
        Figure(name="GPU-hours rented", value=run.gpu_hours, unit="GPU-hours", where=where),
        Figure(name="GPU-hours freed against all GPU", value=freed, unit="GPU-hours",
               where=predicted),
        Figure(name="energy, estimate", value=None if energy is None else energy.estimate_kwh,
               unit="kWh", where=predicted),
    ]  # fmt: skip


def priced_demand(
    ledger: Ledger, catalog: Catalog, slo: Slo, options: PlanOptions, growth_factor: float
) -> tuple[PricedDemand | None, str]:
    """What would the run's own demand cost on other fleets?

    Args:
        ledger: The books of the run.
        catalog: Prices and speeds.
        slo: Limits per step.
        options: Rules of the plan; its rate is replaced by that of the run.
        growth_factor: Over the run's rate.

    Returns:
        The priced demand, or None and the reason: a model that the catalogue does not know, or
        limits that no machine keeps.
    """
    workload = workload_of(ledger, "the run", "")
    chosen = msgspec.structs.replace(
        options, growth_factor=growth_factor, duration_s=ledger.span_s, arrivals="mean",
        budget_usd_per_hour=None, with_baselines=True,
    )  # fmt: skip
    try:
        demand = demand_of(
            workload, growth_factor, chosen.quantile, chosen.duration_s, arrivals="mean"
        )
        plan = plan_demand(demand, catalog, slo, chosen)
        problem = planning_problem(demand, catalog, slo, chosen)
    except PlanError as error:
        return None, str(error)
    kinds = kind_costs(problem, demand.tasks_per_s)
    return PricedDemand(plan=plan, inputs=plan_inputs(plan, catalog), kinds=kinds), ""


def _run_assumptions(priced: PricedDemand | None, slo: Slo) -> list[str]:
    if priced is None:
        return []
    limits = f"time to first token {slo.ttft_s:g} s, gap between tokens {slo.itl_s:g} s"
    return [
        f"Other fleets keep these limits (declared): {limits}, and the deadlines of the tasks.",
        "Other fleets are priced at list prices of the packaged catalogue.",
        "The speeds behind them are of published benchmarks, or of `steelyard measure`.",
        "The mean rate of the run is priced, from its first arrival to its last end.",
    ]
