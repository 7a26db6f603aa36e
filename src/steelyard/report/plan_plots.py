# Matplotlib leaves **kwargs without types.
# pyright: reportUnknownMemberType=false
"""Plots of a plan: its cost beside the baselines', and what the simulation made of it."""

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from steelyard.report.canvas import HARDWARE_HUES, HUES, axes, drawing
from steelyard.report.format import name, percent, usd
from steelyard.report.inputs import FleetOption, PlanInputs, SimulationInputs

_NEUTRAL = HUES[6]
_PLANNED, _SIMULATED = HUES[0], HUES[4]


def cost_plot(plan: PlanInputs) -> str:
    """What does the plan cost beside the baselines? A bar per fleet, split by hardware.

    Args:
        plan: The plan and its baselines.

    Returns:
        SVG; a fleet that cannot exist has no bar and the word `infeasible`.
    """
    fleets = (plan.plan, *plan.baselines)
    with drawing("cost", 1.1 + 0.42 * len(fleets)) as drawn:
        plot = axes(drawn)
        highest = max((one.usd_per_1000_tasks or 0.0 for one in fleets), default=0.0) or 1.0
        seen: dict[str, str] = {}
        for row, fleet in enumerate(fleets):
            if fleet.usd_per_1000_tasks is None:
                _beside(plot, 0.0, row, "infeasible", "normal")
                continue
            _split_bar(plot, row, fleet, seen)
            weight = "bold" if row == 0 else "normal"
            _beside(plot, fleet.usd_per_1000_tasks, row, usd(fleet.usd_per_1000_tasks), weight)
        plot.set_yticks(range(len(fleets)), [name(one.label, 28) for one in fleets])
        plot.set_ylim(len(fleets) - 0.4, -0.6)
        plot.set_xlim(0.0, highest * 1.2)
        plot.set_xlabel("planned cost, USD per 1,000 tasks")
        for hardware, colour in sorted(seen.items()):
            plot.bar(0.0, 0.0, color=colour, label=hardware)
        drawn.figure.legend(loc="outside upper left", ncols=5)
    return drawn.svg


def _split_bar(plot: Axes, row: int, fleet: FleetOption, seen: dict[str, str]) -> None:
    """Split a fleet's bar by the rent of its hardware classes."""
    total = fleet.usd_per_1000_tasks or 0.0
    rent: dict[str, float] = {}
    for pool in fleet.pools:
        rent[pool.hardware] = rent.get(pool.hardware, 0.0) + pool.usd_per_hour
    rent_sum = sum(rent.values())
    if rent_sum <= 0.0:
        rent, rent_sum = {"all hardware": 1.0}, 1.0
    left = 0.0
    for hardware in sorted(rent):
        colour = HARDWARE_HUES.get(hardware, _NEUTRAL)
        seen[hardware] = colour
        width = total * rent[hardware] / rent_sum
        plot.barh(row, width, left=left, height=0.62, color=colour)
        left += width


def simulation_plot(plan: PlanInputs, simulation: SimulationInputs) -> str:
    """Does the simulated fleet do what the plan says? Cost and SLO attainment side by side.

    Args:
        plan: The plan.
        simulation: The plan's simulated run.

    Returns:
        SVG.
    """
    attained = simulation.ledger.slo_attainment_frac
    with drawing("simulation", 1.9) as drawn:
        cost, slo = drawn.figure.subplots(1, 2, sharey=True)
        planned_usd, simulated_usd = (
            plan.plan.usd_per_1000_tasks or 0.0,
            simulation.usd_per_1000_tasks,
        )
        _pair(cost, (planned_usd, simulated_usd), (usd(planned_usd), usd(simulated_usd)))
        cost.xaxis.set_major_locator(MaxNLocator(4))
        cost.set_xlabel("USD per 1,000 tasks")
        told = (f"aim: {percent(plan.slo_attainment_frac)}", percent(attained))
        _pair(slo, (plan.slo_attainment_frac * 100.0, attained * 100.0), told)
        slo.set_xticks(range(0, 101, 25))
        slo.set_xlabel("SLO attainment, % of tasks")
    return drawn.svg


def _pair(plot: Axes, values: tuple[float, float], told: tuple[str, str]) -> None:
    """A bar for what was planned above one for what was simulated."""
    for row, colour in enumerate((_PLANNED, _SIMULATED)):
        plot.barh(row, values[row], height=0.6, color=colour)
        _beside(plot, values[row], row, told[row], "normal")
    plot.set_yticks([0, 1], ["planned", "simulated"])
    plot.set_ylim(1.6, -0.6)
    plot.set_xlim(0.0, (max(values) or 1.0) * 1.45)


def _beside(plot: Axes, value: float, row: int, text: str, weight: str) -> None:
    """Write at the end of a bar."""
    plot.annotate(
        text, (value, row), (4, 0), textcoords="offset points", va="center", weight=weight
    )
