"""Fleets of any size as cells of bounded size: each with its own log, policy and share of arrivals.

One policy cannot see tens of millions of cores at once, live or simulated: a large fleet is run as
cells that are fed by one plan. Cells share nothing, so they are simulated one after the other, or
at the same time, and added up.
"""

import msgspec
import numpy as np
import numpy.typing as npt

from steelyard.domain.pool import PoolSpec
from steelyard.sim.compiled import layout
from steelyard.sim.compiled.simulate import CompiledRun


class LatencyQuantiles(msgspec.Struct, frozen=True, kw_only=True):
    """Quantiles of one kind of latency, to the width of a bin, 9 %; None when nothing was seen."""

    count: int
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None


def cell_pools(pools: tuple[PoolSpec, ...], cells: int, cell: int) -> tuple[PoolSpec, ...]:
    """Which part of a fleet is one cell? Replicas are dealt out as evenly as they go.

    Args:
        pools: The whole fleet.
        cells: How many cells.
        cell: Which one, from 0.

    Returns:
        The same pools with the cell's replicas; together the cells have all of them.
    """
    return tuple(
        msgspec.structs.replace(
            spec, replicas=spec.replicas * (cell + 1) // cells - spec.replicas * cell // cells
        )
        for spec in pools
    )


def added(runs: list[CompiledRun]) -> CompiledRun:
    """What happened in all cells together?

    Args:
        runs: One run per cell, of the same windows and pools.

    Returns:
        Counts and figures added up, tasks cell by cell; logs are left out.
    """
    first = runs[0]
    changes = {kind: sum(run.changes[kind] for run in runs) for kind in first.changes}
    return CompiledRun(
        end_s=max(run.end_s for run in runs),
        changes=changes,
        windows=_sum_records([run.windows for run in runs]),
        flow=_sum_records([run.flow for run in runs]),
        latencies=np.sum([run.latencies for run in runs], axis=0),
        success_s=np.concatenate([run.success_s for run in runs]),
        log=np.zeros(0, layout.LOGGED),
        notes=tuple(dict.fromkeys(note for run in runs for note in run.notes)),
    )


def quantiles(counts: npt.NDArray[np.int64]) -> LatencyQuantiles:
    """Quantiles of latencies that were counted in bins.

    Args:
        counts: Shape [bins], or [windows, bins] to take several together.

    Returns:
        The middle of the bin in which each quantile lies.

    >>> counts = np.zeros(layout.BINS, dtype=np.int64)
    >>> counts[1 + int(layout.BINS_PER_E * np.log(2.0 / layout.SHORTEST_BIN_S))] = 10
    >>> 1.9 < quantiles(counts).p50_s < 2.1
    True
    """
    flat = counts.reshape(-1, layout.BINS).sum(axis=0)
    total = int(flat.sum())
    ends = np.cumsum(flat)

    def at(share: float) -> float | None:
        if total == 0:
            return None
        place = int(np.searchsorted(ends, share * total))
        return float(layout.SHORTEST_BIN_S * np.exp((place - 0.5) / layout.BINS_PER_E))

    return LatencyQuantiles(count=total, p50_s=at(0.5), p95_s=at(0.95), p99_s=at(0.99))


def _sum_records(parts: list[layout.Records]) -> layout.Records:
    total = np.zeros_like(parts[0])
    for field in parts[0].dtype.names or ():
        total[field] = np.sum([part[field] for part in parts], axis=0)
    return total
