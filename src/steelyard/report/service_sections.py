"""Promises, hardware, energy, providers and predictions of a recorded run, as sections."""

from steelyard.ledger.accuracy import RatioQuantiles, prediction_ratios
from steelyard.ledger.ledger import Ledger
from steelyard.ledger.run_figures import RunFigures
from steelyard.ledger.shares import EnergyRange, attainment_range
from steelyard.report.compare_grids import latency_grid, use_grid
from steelyard.report.format import NONE, count, name, percent, ratio, significant, usd
from steelyard.report.grid import Grid, columns
from steelyard.report.inputs import Origin
from steelyard.report.page import Figure, Section, Source, plot, table
from steelyard.report.run_grids import prediction_grid, refusal_grid, task_grid
from steelyard.report.run_plots import latency_plot, prediction_plot, timeline_plot

_MAX_TASK_ROWS = 20


def slo_section(ledger: Ledger, run: RunFigures, where: Source) -> Section:
    """Were the promises kept?

    Args:
        ledger: The books of a run.
        run: Its figures.
        where: The log.

    Returns:
        The section.
    """
    agents: dict[str, list[bool]] = {}
    for task in ledger.tasks:
        agents.setdefault(task.agent, []).append(task.met_slo)
    figures = [
        Figure(name="SLO attainment", about=agent, value=sum(met) / len(met), unit="frac",
               where=where)
        for agent, met in sorted(agents.items())
    ]  # fmt: skip
    for one in run.steps:
        about = f"{one.step} of {one.agent}"
        ttft_s = None if one.ttft is None else one.ttft.p95_s
        for what, value in (("TTFT p95", ttft_s), ("latency p95", one.e2e.p95_s)):
            figures.append(Figure(name=what, about=about, value=value, unit="s", where=where))
    return Section(
        key="slo",
        title="SLO attainment and latency",
        figures=tuple(figures),
        blocks=(
            table(_attainment_grid(agents), where),
            table(latency_grid(run, "measured"), where),
            plot(
                latency_plot(ledger),
                "Latency of each kind of step by pool, in seconds. Boxes span the quartiles,"
                " whiskers the 5th to the 95th percentile; every point is a step.",
                where,
            ),
            plot(
                timeline_plot(ledger),
                "Steps of the first 40 tasks over time, in seconds, coloured by pool; thin bars"
                " wait, pale bars failed, a cross marks a task that missed an SLO.",
                where,
            ),
            table(task_grid(ledger, _MAX_TASK_ROWS), where),
            table(refusal_grid(ledger), where),
        ),
    )


def _attainment_grid(agents: dict[str, list[bool]]) -> Grid:
    rows: list[tuple[str, ...]] = []
    every = [met for some in agents.values() for met in some]
    for agent, met in [*sorted(agents.items()), ("all agents", every)]:
        bounds = attainment_range(sum(met), len(met))
        told = NONE if bounds is None else f"{percent(bounds[0])} to {percent(bounds[1])}"
        cells = (count(len(met)), count(sum(met)), percent(sum(met) / len(met) if met else None))
        rows.append((name(agent) or "no agent", *cells, told))
    return Grid(
        title="Tasks that met every SLO",
        origin="measured",
        columns=columns(("agent",), ("ended", "met", "attainment", "95 % interval")),
        rows=tuple(rows),
        note="The interval (Wilson's) takes tasks as independent; bursts make it too narrow.",
    )


def use_section(
    run: RunFigures, energy: EnergyRange | None, freed: float | None, where: Source
) -> Section:
    """What hardware and energy did a run use, and how many GPU-hours were freed?

    Args:
        run: Its figures.
        energy: With its bounds; None without any source.
        freed: GPU-hours against all GPU; None where that fleet does not exist.
        where: The log.

    Returns:
        The section.
    """
    predicted = where.as_origin("predicted")
    figures = [
        Figure(name="GPU-hours rented", value=run.gpu_hours, unit="GPU-hours", where=where),
        Figure(name="GPU-hours freed against all GPU", value=freed, unit="GPU-hours",
               where=predicted),
        *(
            Figure(name="paid", about=one.pool, value=one.paid_usd, unit="USD", where=where)
            for one in run.pools
        ),
        *energy_figures(energy, predicted),
    ]  # fmt: skip
    return Section(
        key="use",
        title="Hardware, GPU-hours and energy",
        lead=(_freed_lead(freed), *energy_lead(energy)),
        figures=tuple(figures),
        blocks=(
            table(use_grid(run, where.origin), where),
            table(energy_grid(energy, run.tasks), predicted),
        ),
    )


def _freed_lead(freed: float | None) -> str:
    if freed is None:
        return "GPU-hours freed are not known: there is no all-GPU fleet at the run's own rate."
    words = f"{significant(abs(freed))} GPU-hours {'fewer' if freed >= 0.0 else 'more'}"
    return (
        f"The run held {words} than the all-GPU fleet that the planner would rent for the same"
        " demand and time (predicted)."
    )


def energy_figures(energy: EnergyRange | None, where: Source) -> tuple[Figure, ...]:
    """The three numbers of a range."""
    if energy is None:
        return ()
    told = (
        ("energy, at idle power", energy.idle_kwh),
        ("energy, estimate", energy.estimate_kwh),
        ("energy, at full power", energy.full_kwh),
    )
    return tuple(Figure(name=what, value=kwh, unit="kWh", where=where) for what, kwh in told)


def energy_lead(energy: EnergyRange | None) -> tuple[str, ...]:
    """What is missing of the energy, in sentences."""
    if energy is None:
        return ("Energy is not known: no pool's offering has a source of its power.",)
    if energy.unknown:
        pools = ", ".join(name(one) for one in energy.unknown)
        return (f"Energy leaves out pools without a source of their power: {pools}.",)
    return ()


def energy_grid(energy: EnergyRange | None, tasks: int) -> Grid:
    """How much energy at the least, probably, and at the most?

    Args:
        energy: The range; None gives a table without rows.
        tasks: Tasks that ended.

    Returns:
        One row for the run, one per task.
    """
    rows: list[tuple[str, ...]] = []
    if energy is not None:
        three = (energy.idle_kwh, energy.estimate_kwh, energy.full_kwh)
        rows.append(("all", *(f"{significant(kwh)} kWh" for kwh in three)))
        if tasks:
            rows.append(
                ("per 1,000 tasks", *(f"{significant(1000.0 * k / tasks)} kWh" for k in three))
            )
    return Grid(
        title="Energy of the machines",
        origin="predicted",
        columns=columns(("",), ("at least", "estimate", "at most")),
        rows=tuple(rows),
        note=(
            "At least: all rented time at idle power; at most: at full power; the estimate is full"
            " power while anything ran. The watts themselves are the catalogue's estimates, and the"
            " data centre around the machines is left out."
        ),
    )


def provider_section(
    shares: dict[str, tuple[float, float]], cap: float | None, where: Source
) -> Section:
    """Which share does each provider get, and is that under its cap?

    Args:
        shares: Provider to (USD, share).
        cap: Largest allowed share; None where none is declared.
        where: Log or plan.

    Returns:
        The section.
    """
    rows = [
        (
            name(provider) or "none",
            usd(paid),
            percent(share),
            percent(cap),
            "no cap declared" if cap is None else "within" if share <= cap + 1e-9 else "over",
        )
        for provider, (paid, share) in shares.items()
    ]
    figures = [
        Figure(name="share of everything paid", about=one, value=share, unit="frac", where=where)
        for one, (_, share) in shares.items()
    ]
    figures.append(
        Figure(name="provider share cap", value=cap, unit="frac",
               where=where.as_origin("declared"))
    )  # fmt: skip
    each = "per hour" if where.origin == "planned" else "paid"
    grid = Grid(
        title="Providers",
        origin=where.origin,
        columns=columns(("provider",), (each, "share", "cap (declared)", "")),
        rows=tuple(rows),
    )
    return Section(
        key="providers",
        title="Provider shares against caps",
        figures=tuple(figures),
        blocks=(table(grid, where),),
    )


def prediction_section(ledger: Ledger, where: Source) -> Section:
    """How good were the predictions of a run?

    Args:
        ledger: The books.
        where: The log.

    Returns:
        The section.
    """
    ratios = prediction_ratios(ledger)
    figures = [
        Figure(
            name=f"measured over predicted {one.quantity}, {which}",
            about=f"{one.step} of {one.agent}" if one.step else "",
            value=value, unit="ratio", where=where,
        )
        for one in ratios
        for which, value in (("p10", one.p10), ("p50", one.p50), ("p90", one.p90), ("p99", one.p99))
    ]  # fmt: skip
    return Section(
        key="predictions",
        title="Predicted against measured",
        figures=tuple(figures),
        blocks=(
            table(_ratio_grid(ratios), where),
            plot(
                prediction_plot(ledger),
                "Predicted against measured latency of every step, in seconds; the dashed line is a"
                " perfect prediction, points above it took longer.",
                where,
            ),
            table(prediction_grid(ledger), where),
        ),
    )


def _ratio_grid(ratios: tuple[RatioQuantiles, ...]) -> Grid:
    origin: Origin = "measured"
    return Grid(
        title="Measured over predicted",
        origin=origin,
        columns=columns(("quantity", "step", "agent"), ("steps", "p10", "p50", "p90", "p99")),
        rows=tuple(
            (
                one.quantity,
                name(one.step) or "all steps",
                name(one.agent) or NONE,
                count(one.count),
                *(ratio(value) for value in (one.p10, one.p50, one.p90, one.p99)),
            )
            for one in ratios
        ),
        note=(
            "1.00x is a perfect prediction, above it took longer or cost more. Steps with nothing"
            " predicted (a tool never seen before) are left out."
        ),
    )
