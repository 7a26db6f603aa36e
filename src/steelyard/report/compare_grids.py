"""Tables of one simulated run, and of several policies side by side with the best marked."""

import math
from collections.abc import Callable, Sequence

from steelyard.ledger.latencies import Percentiles
from steelyard.ledger.run_figures import PoolFigures, RunFigures
from steelyard.report.alike import seconds_alike, usd_alike
from steelyard.report.format import (
    NONE,
    count,
    name,
    percent,
    short_offering,
    significant,
)
from steelyard.report.grid import Grid, columns
from steelyard.report.inputs import Origin

# A best value carries this; colour would be lost in a pipe.
_MARK = " *"
# A mean that is this close to the whole number is called the whole number.
_ALL_THE_TIME = 1e-6


def policy_grid(runs: dict[str, RunFigures]) -> Grid:
    """Which policy is the best at what?

    Args:
        runs: Policy's name to its figures, on the same fleet and workload.

    Returns:
        One row per policy; the best of each column is marked where policies differ.
    """
    figures = list(runs.values())
    cells = [
        _marked([one.usd_per_task for one in figures], usd_alike, low=True),
        _marked([one.used_usd_per_task for one in figures], usd_alike, low=True),
        _marked([one.slo_attainment_frac for one in figures], _percents, low=False),
        _marked([one.goodput_per_s for one in figures], _numbers, low=False),
        _marked([_worst(one, "ttft") for one in figures], seconds_alike, low=True),
        _marked([_worst(one, "e2e") for one in figures], seconds_alike, low=True),
        _marked([_cached(one) for one in figures], _percents, low=False),
        _marked([one.gpu_hours for one in figures], _numbers, low=True),
        _marked([one.energy_kwh for one in figures], _numbers, low=True),
        [count(one.refused) for one in figures],
    ]
    heads = (
        "paid per task", "used per task", "SLO attainment", "tasks/s in SLO", "TTFT p95",
        "latency p95", "cached", "GPU-hours", "energy, kWh, estimate", "refused",
    )  # fmt: skip
    return Grid(
        title="Policies",
        origin="simulated",
        columns=columns(("policy",), heads),
        rows=tuple(
            (name(policy), *(column[at] for column in cells)) for at, policy in enumerate(runs)
        ),
        note=(
            "* is the best of its column. Paid counts idle time, used does not. TTFT and latency "
            "are the 95th percentile of the slowest kind of LLM step. Energy is an estimate from "
            "idle and full power."
        ),
    )


def _marked(
    values: Sequence[float | None],
    told: Callable[[Sequence[float | None]], Sequence[str]],
    *,
    low: bool,
) -> list[str]:
    """Cells of a column; those that equal the best, unless all are the same, carry a mark."""
    shown = [*told(values)]
    known = [value for value in values if value is not None]
    if len(set(shown)) <= 1 or not known:
        return shown
    best = shown[values.index(min(known) if low else max(known))]
    return [cell + _MARK if cell == best else cell for cell in shown]


def _percents(values: Sequence[float | None]) -> list[str]:
    return [percent(value) for value in values]


def _numbers(values: Sequence[float | None]) -> list[str]:
    return [NONE if value is None else significant(value) for value in values]


def _worst(run: RunFigures, what: str) -> float | None:
    found: list[Percentiles] = [
        value for one in run.steps if one.kind == "llm" and (value := getattr(one, what))
    ]
    return max((one.p95_s for one in found), default=None)


def _cached(run: RunFigures) -> float | None:
    """Cached share over all pools, weighted by their attempts."""
    some = [(one.cached_frac, one.attempts) for one in run.pools if one.cached_frac is not None]
    total = sum(attempts for _, attempts in some)
    if total == 0:
        return None
    return math.fsum((frac or 0.0) * attempts for frac, attempts in some) / total


def latency_grid(run: RunFigures, origin: Origin = "simulated") -> Grid:
    """How long did each kind of step take?

    Args:
        run: The run's figures.
        origin: `simulated`, or `measured` for a recorded run.

    Returns:
        One row per agent and step name.
    """
    ttft = _columns([one.ttft for one in run.steps])
    e2e = _columns([one.e2e for one in run.steps])
    rows = [
        (name(one.step), name(one.agent), count(one.count), *first, *whole)
        for one, first, whole in zip(run.steps, ttft, e2e, strict=True)
    ]
    heads = ("steps", "TTFT p50", "p95", "p99", "latency p50", "p95", "p99")
    return Grid(
        title="Steps",
        origin=origin,
        columns=columns(("step", "agent"), heads),
        rows=tuple(rows),
        note="TTFT and latency are from placement on, the queue included.",
    )


def _columns(some: Sequence[Percentiles | None]) -> list[tuple[str, ...]]:
    """Median, 95th and 99th percentile of each, all in one unit."""
    told = seconds_alike([one for each in some for one in _three(each)])
    return [told[at : at + 3] for at in range(0, len(told), 3)]


def _three(some: Percentiles | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if some is None else (some.p50_s, some.p95_s, some.p99_s)


def _replicas(pool: PoolFigures) -> str:
    """How many there are; with the mean number where they come and go."""
    if abs(pool.rented_replicas - pool.replicas) < _ALL_THE_TIME * pool.replicas:
        return count(pool.replicas)
    return f"{pool.rented_replicas:,.1f} of {count(pool.replicas)}"


def use_grid(run: RunFigures, origin: Origin = "simulated") -> Grid:
    """How was each pool used?

    Args:
        run: The run's figures.
        origin: `simulated`, or `measured` for a recorded run; energy is an estimate in both.

    Returns:
        One row per pool.
    """
    rows = [
        (
            short_offering(one.pool),
            one.hardware,
            _replicas(one),
            count(one.attempts),
            used,
            paid,
            percent(one.utilisation_frac),
            percent(one.busy_frac),
            NONE if one.cached_frac is None else percent(one.cached_frac),
            significant(one.gpu_hours) if one.gpu_hours else NONE,
            NONE if one.energy_kwh is None else significant(one.energy_kwh),
        )
        for one, used, paid in zip(
            run.pools,
            usd_alike([one.used_usd for one in run.pools]),
            usd_alike([one.paid_usd for one in run.pools]),
            strict=True,
        )
    ]
    heads = (
        "replicas", "attempts", "used", "paid", "used of paid", "busy", "cached", "GPU-hours",
        "energy, kWh, estimate",
    )  # fmt: skip
    return Grid(
        title="Pools",
        origin=origin,
        columns=columns(("pool", "hardware"), heads),
        rows=tuple(rows),
        note=(
            "Paid is from the first task's arrival to the last one's end; busy is the share of the "
            "rented time in which a replica had anything to do. Replicas that come and go: mean "
            "number rented, and room for how many. Energy is predicted from idle and full power."
        ),
    )
