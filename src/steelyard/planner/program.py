"""The planning problem as rows and numbers of machines, before any share is priced in.

The inequalities are those of `planner.master`, which adds the shares as columns.
"""

import highspy
import numpy as np
import numpy.typing as npt

from steelyard.planner.demand import Demand, FloatArray

# A share that no offer serves costs this many times the cheapest fleet: only when impossible.
UNSERVED_FACTOR = 1000.0
# The solver takes 1e-6 of a machine for none. A bucket that keeps so little of one busy needs a row
# that says that somebody able must be there.
TINY_LOAD = 1e-4
_INFINITY = highspy.kHighsInf


def program_without_shares(
    demand: Demand,
    shape: tuple[int, ...],
    caps: list[FloatArray],
    closed_form_usd_per_hour: float,
    *,
    overspend: bool,
) -> highspy.HighsLp:
    """What does the linear program look like while nobody serves anything?

    Rows: demand (blocks x buckets), capacity (blocks x offers), one per provider cap. Columns:
    machines (offers), shares that nobody serves (blocks x buckets), money spent on nothing.

    Args:
        demand: The problem.
        shape: Blocks, offers and buckets.
        caps: What `cap_rows` says.
        closed_form_usd_per_hour: What the fleet costs at least, to price what nobody serves.
        overspend: Whether money may be spent on nothing.

    Returns:
        The program; its first columns are the machines.
    """
    blocks, offers, buckets = shape
    cells, capacities = blocks * buckets, blocks * offers
    unserved_usd = UNSERVED_FACTOR * max(closed_form_usd_per_hour, 1e-9)
    stock = [_INFINITY if o.stock is None else float(o.stock) for o in demand.offers]
    model = highspy.HighsLp()
    spare = int(overspend)
    model.num_col_ = offers + cells + spare
    model.num_row_ = cells + capacities + len(caps)
    model.col_cost_ = np.concatenate(
        [demand.prices(), np.full(cells, unserved_usd), np.ones(spare)]
    )
    model.col_lower_ = np.zeros(model.num_col_)
    model.col_upper_ = np.concatenate([np.array(stock), np.ones(cells), np.full(spare, _INFINITY)])
    model.row_lower_ = np.concatenate(
        [np.ones(cells), np.zeros(capacities), np.full(len(caps), -_INFINITY)]
    )
    model.row_upper_ = np.concatenate(
        [np.ones(cells), np.full(capacities, _INFINITY), np.zeros(len(caps))]
    )
    _pass_columns(model, demand, shape, caps, overspend=overspend)
    return model


def _pass_columns(
    model: highspy.HighsLp,
    demand: Demand,
    shape: tuple[int, ...],
    caps: list[FloatArray],
    *,
    overspend: bool,
) -> None:
    blocks, offers, buckets = shape
    cells, capacities = blocks * buckets, blocks * offers
    cap_frac = demand.constraints.provider_share_cap or 0.0
    starts, rows, values = [0], list[int](), list[float]()
    for o in range(offers):
        rows.extend(cells + s * offers + o for s in range(blocks))
        values.extend([1.0] * blocks)
        rows.extend(cells + capacities + k for k in range(len(caps)))
        values.extend(float(cap[o]) for cap in caps)
        starts.append(len(rows))
    rows.extend(range(cells))
    values.extend([1.0] * cells)
    starts.extend(range(starts[-1] + 1, starts[-1] + 1 + cells))
    if overspend:
        rows.extend(cells + capacities + k for k in range(len(caps)))
        values.extend([-cap_frac] * len(caps))
        starts.append(len(rows))
    model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    model.a_matrix_.start_ = np.array(starts, dtype=np.int32)
    model.a_matrix_.index_ = np.array(rows, dtype=np.int32)
    model.a_matrix_.value_ = np.array(values, dtype=np.float64)


def blocks_of(demand: Demand) -> FloatArray:
    """Load of the normal day, then of every loss; shape (blocks, offers, buckets).

    Buckets without demand are left out.
    """
    load = demand.load()[:, [b.rate_per_s > 0.0 for b in demand.buckets]]
    without = [
        np.where(np.array(loss.lost)[:, None], np.inf, loss.left_frac * load)
        for loss in demand.losses()
    ]
    return np.stack([load, *without])


def least_covers(loads: FloatArray) -> list[npt.NDArray[np.bool_]]:
    """Sets of offers of which at least one machine is needed, for buckets of tiny load.

    sum of n over the offers able to serve a bucket >= 1: kept by every whole fleet. A set that
    holds another one is left out.
    """
    able = np.isfinite(loads)
    tiny = np.where(able, loads, np.inf).min(axis=1) < TINY_LOAD
    sets = sorted({tuple(able[s, :, b].tolist()) for s, b in np.argwhere(tiny)}, key=sum)
    kept: list[npt.NDArray[np.bool_]] = []
    for one in sets:
        mask = np.array(one, dtype=np.bool_)
        if not any(bool(mask[other].all()) for other in kept):
            kept.append(mask)
    return kept


def cap_rows(demand: Demand) -> list[FloatArray]:
    """Coefficients of n in `cost of p - cap * cost of the fleet <= 0`, one row per provider."""
    cap = demand.constraints.provider_share_cap
    if cap is None or cap >= 1.0:
        return []
    usd = demand.prices()
    names = np.array([o.provider for o in demand.offers])
    return [
        usd * ((names == provider).astype(np.float64) - cap)
        for provider in sorted(set(names.tolist()))
    ]
