"""Which whole fleet close to the relaxed one is cheapest? A small mixed-integer program.

Every number of machines stays in a range, and a bucket may only go where the relaxed solution finds
it nearly as cheap. With ranges from rounding down and up this is relaxation-enforced neighbourhood
search (Berthold, Math. Program. Comput. 6 (2014)); where machines are few, the ranges of a budget
(`planner.ranges`) are the better ones. It finds fleets and proves nothing.
"""

import highspy
import msgspec
import numpy as np

from steelyard.planner.demand import FloatArray
from steelyard.planner.master import INFINITY, BoolArray, IntArray, Master
from steelyard.planner.solver import quiet_solver

WHOLE = 1e-6


class Neighbourhood(msgspec.Struct, frozen=True, kw_only=True):
    """Where to look, and when it is enough.

    Attributes:
        least: Machines per offer at least, shape (offers,).
        most: Machines per offer at most, shape (offers,).
        near_usd: Shares whose reduced cost is above this stay 0.
        target_usd: Stop at the first fleet that costs no more.
        gap_frac: Stop at this gap inside the neighbourhood.
        nodes: Stop after this many nodes.
        time_limit_s: Backstop in wall seconds.
        cells: Only these shares, shape (blocks, offers, buckets), priced in by the call; None for
            those priced in before.
    """

    least: FloatArray
    most: FloatArray
    near_usd: float
    target_usd: float
    gap_frac: float
    nodes: int
    time_limit_s: float
    cells: BoolArray | None = None


def rounded(master: Master, width: int) -> tuple[FloatArray, FloatArray]:
    """Numbers of machines at most `width` away from the last solution's, rounded down and up."""
    least: FloatArray = np.floor(master.machines + WHOLE) - width
    most: FloatArray = np.ceil(master.machines - WHOLE) + width
    return least, most


def nearby_fleet(master: Master, below_usd: float, where: Neighbourhood) -> FloatArray | None:
    """Which whole fleet in this neighbourhood of the last solution is cheapest?

    Args:
        master: Solved; at most columns are added.
        below_usd: Only fleets cheaper than this are of interest; the solver may still return a
            dearer one.
        where: The neighbourhood and the limits.

    Returns:
        Machines per offer, shape (offers,), that can serve everything and keep the caps; None if
        none was found.
    """
    offers = len(master.usd_per_hour)
    if where.cells is not None:
        master.add_cells(where.cells)
    solver = quiet_solver(max(where.time_limit_s, 0.1))
    solver.passModel(master.program())
    cuts = master.spare_rows.astype(np.int32)
    if len(cuts):
        # The solver separates its own cuts; ours are too dense for its taste.
        solver.deleteRows(len(cuts), cuts)
    far = (
        master.far_columns(where.near_usd)
        if where.cells is None
        else master.columns_outside(where.cells)
    )
    solver.deleteCols(len(far), far.astype(np.int32))
    first, stop = master.unserved_columns.start, master.overspend_columns.stop
    unreal: IntArray = np.arange(first, stop, dtype=np.int64)
    solver.deleteCols(len(unreal), unreal.astype(np.int32))
    program = solver.getLp()
    low, high = np.array(program.col_lower_)[:offers], np.array(program.col_upper_)[:offers]
    low, high = np.maximum(low, where.least), np.minimum(high, where.most)
    for o in range(offers):
        solver.changeColBounds(o, float(low[o]), max(float(low[o]), float(high[o])))
        solver.changeColIntegrality(o, highspy.HighsVarType.kInteger)
    solver.setOptionValue("mip_max_nodes", where.nodes)
    solver.setOptionValue("objective_target", where.target_usd)
    solver.setOptionValue("mip_rel_gap", where.gap_frac)
    if below_usd < INFINITY:
        solver.setOptionValue("objective_bound", below_usd)
    solver.run()
    info = solver.getInfo()
    if info.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
        return None
    values: FloatArray = np.array(solver.getSolution().col_value, dtype=np.float64)
    return np.round(values[:offers])
