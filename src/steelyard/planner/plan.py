"""What should be bought to serve a workload, why, and how does it compare?

`plan_fleet` turns a workload and the catalogue into a plain demand (`planner.demand`), solves it,
and says in the workload's own words what came out.
"""

import math

import msgspec

from steelyard.config.catalog_table import Catalog
from steelyard.domain.offering import Arch, Hardware
from steelyard.domain.slo import Slo
from steelyard.domain.units import SECONDS_PER_HOUR
from steelyard.domain.workload import Workload
from steelyard.errors import InfeasiblePlanError
from steelyard.planner.baselines import Baseline, cheapest_fleet, plan_baselines
from steelyard.planner.capacity import CapacityRules, check_models, check_slo
from steelyard.planner.choices import StepChoice, explain_choices
from steelyard.planner.conflicts import BindingRule, binding_rules
from steelyard.planner.deadlines import keep_deadlines
from steelyard.planner.demand import Constraints, Demand
from steelyard.planner.energy import EnergyPrice, MachineWatts, machine_watts
from steelyard.planner.fitness_table import FitnessTable, fitness_table
from steelyard.planner.hours import FleetHours, fleet_hours
from steelyard.planner.obstacles import main_obstacle
from steelyard.planner.plan_checks import MarginCheck, Sensitivity
from steelyard.planner.search_limits import SearchLimits, StopReason
from steelyard.planner.solve import Solution, solve
from steelyard.planner.workload_demand import Arrivals, StepClass, WorkloadDemand, demand_of


class PlanOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to plan.

    Attributes:
        growth_factor: Rate to provide for, over the workload's own.
        quantile: Quantile of prompt length and memory to provide for.
        duration_s: Seconds over which the tasks arrived; None takes the span of the arrivals.
        capacity: What may be used, and how much is kept free.
        constraints: Provider share cap, spot share cap, survival of a provider's or region's loss.
        providers: Providers to buy from; empty for all.
        regions: Regions to buy in; empty for all.
        archs: CPU architectures to buy; empty for all.
        stock: Offering's name to the largest number that can be had; others have no limit.
        budget_usd_per_hour: Highest cost of the fleet; None without a limit.
        peak_window_s: See `demand_of`.
        arrivals: See `demand_of`.
        energy: Price on energy; it counts as cost in bounds, caps, budget and comparisons.
        limits: How hard to look.
        with_baselines: Whether to plan the comparisons, too.
    """

    growth_factor: float = 1.0
    quantile: float = 0.95
    duration_s: float | None = None
    capacity: CapacityRules = CapacityRules()
    constraints: Constraints = Constraints()
    providers: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    archs: tuple[Arch, ...] = ()
    stock: dict[str, int] = {}
    budget_usd_per_hour: float | None = None
    peak_window_s: float | None = None
    arrivals: Arrivals = "peak"
    energy: EnergyPrice = EnergyPrice()
    limits: SearchLimits = SearchLimits()
    with_baselines: bool = True


class PlannedMachines(msgspec.Struct, frozen=True, kw_only=True):
    """Machines of one offering.

    Attributes:
        offering: Name of the offering.
        provider: Who sells it.
        region: Where.
        hardware: `gpu`, `arm` or `x86`.
        machines: How many.
        usd_per_hour: Price of one.
        price_date: Day of the price.
        used_frac: Planned share of their time that the steps use, headroom not counted.
        bid_usd_per_hour: Worth of one machine's time (dual of its capacity); 0 if idle.
        energy_usd_per_hour: What the energy of one is priced at, beside its price.
        watts: What one is taken to draw, all cores busy.
        watts_source: Where that was read, or how it was assumed.
    """

    offering: str
    provider: str
    region: str
    hardware: Hardware
    machines: int
    usd_per_hour: float
    price_date: str
    used_frac: float
    bid_usd_per_hour: float
    energy_usd_per_hour: float = 0.0
    watts: float = 0.0
    watts_source: str = ""


class FleetPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to buy. The same workload, catalogue and options give the same bytes.

    Attributes:
        workload: Name of the workload.
        tasks_per_s: Tasks per second that are provided for.
        slo: Limits per LLM step that were kept.
        options: How it was planned.
        classes: What is asked for.
        headroom: Factor on the load of each class: the larger of 1 / max_utilisation and the
            square-root rule.
        machines: What to buy, sorted by offering.
        choices: Where the steps go and why, one per class and offering used.
        usd_per_hour: Cost of the fleet: rent, and the price on its energy if there is one.
        usd_per_1000_tasks: The same per 1,000 tasks, idle machines included.
        lower_bound_usd_per_hour: No fleet keeps the rules for less, in this model.
        closed_form_usd_per_hour: The bound without whole machines, constraints or search.
        gap_frac: usd_per_hour / lower_bound_usd_per_hour - 1.
        growth: The fleet serves this many times the demand, headroom kept.
        stopped: Why the search ended.
        baselines: Other fleets under the same rules.
        peak_factor: How much more than the workload's mean rate is provided for, growth aside.
        deadlines_s: Agent to the deadline that its steps keep in the mean, seconds.
        peak_window_s: See `WorkloadDemand`.
        rent_usd_per_hour: What the machines are rented for.
        energy_usd_per_hour: What their energy is priced at.
        watts: What they are taken to draw, all cores busy, without the data centre around them.
        hours: Hours of hardware of the plan and of the baselines, GPU-hours freed.
        margin: What simulations of this plan and of those before it showed; empty without any.
        sensitivity: What would change the answer; None if not asked for.
        relaxed_usd_per_hour: Cost if parts of machines could be bought, rules kept.
        binding: Rules that make the fleet dearer, and by how much.
    """

    workload: str
    tasks_per_s: float
    slo: Slo
    options: PlanOptions
    classes: tuple[StepClass, ...]
    headroom: tuple[float, ...]
    machines: tuple[PlannedMachines, ...]
    choices: tuple[StepChoice, ...]
    usd_per_hour: float
    usd_per_1000_tasks: float
    lower_bound_usd_per_hour: float
    closed_form_usd_per_hour: float
    gap_frac: float
    growth: float
    stopped: StopReason
    baselines: tuple[Baseline, ...]
    peak_factor: float = 1.0
    deadlines_s: dict[str, float] = {}
    peak_window_s: float | None = None
    rent_usd_per_hour: float = 0.0
    energy_usd_per_hour: float = 0.0
    watts: float = 0.0
    hours: tuple[FleetHours, ...] = ()
    margin: tuple[MarginCheck, ...] = ()
    sensitivity: Sensitivity | None = None
    relaxed_usd_per_hour: float = 0.0
    binding: tuple[BindingRule, ...] = ()

    def fleet(self) -> dict[str, int]:
        """Machines per offering."""
        return {m.offering: m.machines for m in self.machines}

    def rent_by_hardware(self) -> dict[str, float]:
        """Rent by class of hardware, sorted, in USD per hour."""
        rents: dict[str, float] = {}
        for one in self.machines:
            rents[one.hardware] = rents.get(one.hardware, 0.0) + one.machines * one.usd_per_hour
        return dict(sorted(rents.items()))


def plan_fleet(
    workload: Workload, catalog: Catalog, slo: Slo, options: PlanOptions | None = None
) -> FleetPlan:
    """What is the cheapest fleet that serves the workload inside its SLOs?

    Args:
        workload: Tasks with their steps.
        catalog: Offerings with their curves.
        slo: Limits per LLM step.
        options: How to plan; None for the defaults.

    Returns:
        The plan.

    Raises:
        PlanError: The workload has no rate, or a model is unknown.
        InfeasiblePlanError: No fleet keeps the rules; the message names what is in the way.
    """
    chosen = options or PlanOptions()
    demand = demand_of(
        workload,
        chosen.growth_factor,
        chosen.quantile,
        chosen.duration_s,
        chosen.peak_window_s,
        chosen.arrivals,
    )
    return plan_demand(demand, catalog, slo, chosen)


def plan_demand(
    demand: WorkloadDemand, catalog: Catalog, slo: Slo, chosen: PlanOptions
) -> FleetPlan:
    """What is the cheapest fleet that serves a demand inside its SLOs and deadlines?

    Thin: list prices of one region per provider; a machine's time is split between models and
    tools as if they never disturbed one another, and the weights of several models are taken to
    fit into one machine's memory.

    Args:
        demand: Step classes with their rates.
        catalog: Offerings with their curves.
        slo: Limits per LLM step.
        chosen: How to plan; its growth and quantile are those of the demand.

    Returns:
        The plan.

    Raises:
        PlanError: A model is unknown.
        InfeasiblePlanError: No fleet keeps the rules; the message names what is in the way.
    """
    problem = planning_problem(demand, catalog, slo, chosen)
    table, allowed = problem.table, problem.allowed
    tasks_per_hour = demand.tasks_per_s * SECONDS_PER_HOUR
    baselines: tuple[Baseline, ...] = ()
    if chosen.with_baselines:
        baselines = plan_baselines(
            table, allowed, chosen.constraints, chosen.limits, tasks_per_hour
        )
    # A baseline is a fleet, too: the plan never costs more than the cheapest.
    found = solve(problem.plain, chosen.limits, cheapest_fleet(baselines))
    _check_budget(found, chosen.budget_usd_per_hour)
    machines = _machines(table, allowed, found, problem.watts)
    return FleetPlan(
        workload=demand.workload,
        tasks_per_s=demand.tasks_per_s,
        slo=slo,
        options=chosen,
        classes=demand.classes,
        headroom=table.headroom,
        machines=machines,
        choices=explain_choices(table, allowed, found),
        usd_per_hour=found.usd_per_hour,
        usd_per_1000_tasks=1000.0 * found.usd_per_hour / tasks_per_hour,
        lower_bound_usd_per_hour=found.lower_bound_usd_per_hour,
        closed_form_usd_per_hour=found.closed_form_usd_per_hour,
        gap_frac=found.gap_frac,
        growth=found.growth,
        stopped=found.stopped,
        baselines=baselines,
        peak_factor=demand.peak_factor,
        deadlines_s=demand.deadlines_s,
        peak_window_s=demand.peak_window_s,
        rent_usd_per_hour=math.fsum(m.machines * m.usd_per_hour for m in machines),
        energy_usd_per_hour=math.fsum(m.machines * m.energy_usd_per_hour for m in machines),
        watts=math.fsum(m.machines * m.watts for m in machines),
        hours=fleet_hours(found.fleet, baselines, catalog),
        relaxed_usd_per_hour=found.relaxed_usd_per_hour,
        # Each rule costs a linear program: not for every point of a curve.
        binding=binding_rules(problem.plain) if chosen.with_baselines else (),
    )


class PlanningProblem(msgspec.Struct, frozen=True, kw_only=True):
    """A demand against what may be bought.

    Attributes:
        table: How every offering does with every step class, deadlines and limits kept.
        allowed: Indices of the offerings that may be bought.
        plain: The problem over these.
        watts: What a machine of each offering draws, [offering].
    """

    table: FitnessTable
    allowed: list[int]
    plain: Demand
    watts: tuple[MachineWatts, ...]


def planning_problem(
    demand: WorkloadDemand, catalog: Catalog, slo: Slo, chosen: PlanOptions
) -> PlanningProblem:
    """Which offerings could serve which steps, at what cost, and under which rules?

    Args:
        demand: Step classes with their rates.
        catalog: Offerings with their curves.
        slo: Limits per step.
        chosen: How to plan.

    Returns:
        The problem.

    Raises:
        PlanError: A model is unknown, or limits are given for steps that are not there.
        InfeasiblePlanError: A step class or a deadline that nothing allowed can keep.
    """
    check_models(demand, catalog)
    check_slo(demand, slo)
    watts = machine_watts(catalog)
    table = msgspec.structs.replace(
        fitness_table(demand, catalog, slo, chosen.capacity),
        stock=chosen.stock,
        energy_usd_per_hour=tuple(chosen.energy.usd_per_hour(one.watts) for one in watts),
    )
    table = keep_deadlines(table, demand, _allowed(table, chosen))
    allowed = _allowed(table, chosen)
    _check_served(table, allowed)
    plain = table.plain(allowed, chosen.constraints)
    return PlanningProblem(table=table, allowed=allowed, plain=plain, watts=watts)


def _check_budget(found: Solution, budget_usd_per_hour: float | None) -> None:
    """Does the fleet cost no more than it may?

    Raises:
        InfeasiblePlanError: It costs more; the message says whether a cheaper one can exist.
    """
    if budget_usd_per_hour is None or found.usd_per_hour <= budget_usd_per_hour:
        return
    proven = found.lower_bound_usd_per_hour > budget_usd_per_hour
    raise InfeasiblePlanError(
        f"the budget of {budget_usd_per_hour:g} USD/h is too small: the cheapest fleet found costs"
        f" {found.usd_per_hour:.6g} USD/h and none costs less than"
        f" {found.lower_bound_usd_per_hour:.6g} USD/h"
        f" ({'proven' if proven else 'the budget lies between the two'}); raise the budget, loosen"
        " the SLO or the other rules, or plan for less"
    )


def _allowed(table: FitnessTable, options: PlanOptions) -> list[int]:
    """Offerings that the options admit and that can run something."""
    return [
        o
        for o, offering in enumerate(table.offerings)
        if table.useful(o)
        and (not options.providers or offering.provider in options.providers)
        and (not options.regions or offering.region in options.regions)
        and (not options.archs or offering.instance_type.arch in options.archs)
    ]


def _check_served(table: FitnessTable, allowed: list[int]) -> None:
    """Can every class run somewhere?

    Raises:
        InfeasiblePlanError: One cannot; the message holds the commonest obstacle.
    """
    for b, step in enumerate(table.classes):
        if any(table.cells[o][b].machine_s is not None for o in allowed):
            continue
        able = any(row[b].machine_s is not None for row in table.cells)
        obstacle = "filters" if able else main_obstacle(row[b] for row in table.cells)
        raise InfeasiblePlanError(
            f"no offering can run step {step.name!r} inside the SLO; most often: {obstacle};"
            " loosen the SLO or the filters, or use a smaller model"
        )


def _machines(
    table: FitnessTable,
    allowed: list[int],
    found: Solution,
    watts: tuple[MachineWatts, ...],
) -> tuple[PlannedMachines, ...]:
    planned: list[PlannedMachines] = []
    for row, o in enumerate(allowed):
        offering = table.offerings[o]
        count = found.fleet.get(offering.name, 0)
        if count == 0:
            continue
        busy = math.fsum(
            share * step.rate_per_s * (table.cells[o][b].machine_s or 0.0)
            for b, (share, step) in enumerate(zip(found.shares[row], table.classes, strict=True))
        )
        planned.append(
            PlannedMachines(
                offering=offering.name,
                provider=offering.provider,
                region=offering.region,
                hardware=offering.instance_type.hardware,
                machines=count,
                usd_per_hour=offering.usd_per_hour,
                price_date=offering.price_date,
                used_frac=busy / count,
                bid_usd_per_hour=found.bid_usd_per_hour[offering.name],
                energy_usd_per_hour=table.usd_per_hour(o) - offering.usd_per_hour,
                watts=watts[o].watts,
                watts_source=watts[o].source,
            )
        )
    return tuple(sorted(planned, key=lambda m: m.offering))
