"""The baseline planner: every bucket is cut into slices, and each slice goes to one offer whole.

This is the formulation of Mélange (Griggs et al., 2024, arXiv:2404.14527), which AIBrix uses too,
written anew for HiGHS; it is not their code. It knows no constraints beside capacity and stock.
It is here to be compared with, since a step class need not stay on one offer.
"""

import highspy
import msgspec
import numpy as np

from steelyard.errors import SolverError
from steelyard.planner.demand import Demand, FloatArray
from steelyard.planner.master import IntArray
from steelyard.planner.solver import quiet_solver


class SlicedPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What the baseline buys.

    Attributes:
        fleet: Machines per offer name.
        usd_per_hour: Price of the fleet.
        lower_bound_usd_per_hour: The solver's bound *for this formulation*.
        optimal: Whether the solver finished inside its time limit.
    """

    fleet: dict[str, int]
    usd_per_hour: float
    lower_bound_usd_per_hour: float
    optimal: bool


def plan_with_binary_slices(demand: Demand, slices: int, time_limit_s: float) -> SlicedPlan:
    """Which fleet does the binary-slice formulation buy?

    minimise sum_o usd_o n_o subject to `sum_o y_kbo = 1` for every slice k of bucket b,
    `sum_kb load_ob / slices * y_kbo <= n_o`, y binary, n whole.

    Args:
        demand: A checked planning problem; its constraints are not looked at.
        slices: Parts per bucket.
        time_limit_s: Wall seconds for the solver.

    Returns:
        The best fleet that it found.

    Raises:
        SolverError: It found none in time.
    """
    load = demand.load()
    offers, buckets = load.shape
    able: IntArray = np.argwhere(np.isfinite(load)).T
    offer, bucket = np.tile(able, slices)
    count = int(offer.size)
    cell = np.repeat(np.arange(slices, dtype=np.int64), count // slices) * buckets + bucket
    first: IntArray = np.arange(offers, dtype=np.int64)
    starts: IntArray = offers + 2 * np.arange(count + 1, dtype=np.int64)
    rows: IntArray = np.stack([offer, offers + cell], axis=1).ravel()
    values: FloatArray = np.stack([-load[offer, bucket] / slices, np.ones(count)], axis=1).ravel()
    model = highspy.HighsLp()
    model.num_col_ = offers + count
    model.num_row_ = offers + slices * buckets
    stock = [highspy.kHighsInf if o.stock is None else float(o.stock) for o in demand.offers]
    model.col_cost_ = np.concatenate([demand.prices(), np.zeros(count)])
    model.col_lower_ = np.zeros(offers + count)
    model.col_upper_ = np.concatenate([np.array(stock), np.ones(count)])
    model.row_lower_ = np.concatenate([np.zeros(offers), np.ones(slices * buckets)])
    model.row_upper_ = np.concatenate(
        [np.full(offers, highspy.kHighsInf), np.ones(slices * buckets)]
    )
    model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    model.a_matrix_.start_ = np.concatenate([first, starts]).astype(np.int32)
    model.a_matrix_.index_ = np.concatenate([first, rows]).astype(np.int32)
    model.a_matrix_.value_ = np.concatenate([np.ones(offers), values])
    model.integrality_ = [highspy.HighsVarType.kInteger] * (offers + count)
    solver = quiet_solver(time_limit_s)
    solver.passModel(model)
    solver.run()
    info = solver.getInfo()
    if info.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
        raise SolverError(f"binary slices: no fleet found in {time_limit_s} s; allow more time")
    machines = np.round(np.array(solver.getSolution().col_value)[:offers])
    return SlicedPlan(
        fleet={o.name: int(n) for o, n in zip(demand.offers, machines, strict=True) if n > 0.5},
        usd_per_hour=float(machines @ demand.prices()),
        lower_bound_usd_per_hour=float(info.mip_dual_bound),
        optimal=solver.getModelStatus() == highspy.HighsModelStatus.kOptimal,
    )
