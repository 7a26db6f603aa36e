"""Which whole fleet close to the relaxed one is cheapest? A small mixed-integer program.

Every number of machines may only be rounded down or up (or `width` further), and a bucket may only
go where the relaxed solution finds it nearly as cheap. This is relaxation-enforced neighbourhood
search (Berthold, Math. Program. Comput. 6 (2014)): it finds fleets and proves nothing.
"""

import highspy
import msgspec
import numpy as np

from steelyard.planner.demand import FloatArray
from steelyard.planner.master import INFINITY, IntArray, Master
from steelyard.planner.solver import quiet_solver

WHOLE = 1e-6


class Neighbourhood(msgspec.Struct, frozen=True, kw_only=True):
    """Where to look, and when it is enough.

    Attributes:
        width: Machines that a number may be away from its relaxed value rounded down or up.
        near_usd: Shares whose reduced cost is above this stay 0.
        target_usd: Stop at the first fleet that costs no more.
        gap_frac: Stop at this gap inside the neighbourhood.
        nodes: Stop after this many nodes.
        time_limit_s: Backstop in wall seconds.
    """

    width: int
    near_usd: float
    target_usd: float
    gap_frac: float
    nodes: int
    time_limit_s: float


def nearby_fleet(master: Master, below_usd: float, where: Neighbourhood) -> FloatArray | None:
    """Which whole fleet in this neighbourhood of the last solution is cheapest?

    Args:
        master: Solved; not changed.
        below_usd: Only fleets cheaper than this are of interest; the solver may still return a
            dearer one.
        where: The neighbourhood and the limits.

    Returns:
        Machines per offer, shape (offers,), that can serve everything and keep the caps; None if
        none was found.
    """
    offers, n = len(master.usd_per_hour), master.machines
    solver = quiet_solver(max(where.time_limit_s, 0.1))
    solver.passModel(master.program())
    cuts = np.arange(master.first_cut_row, solver.getNumRow(), dtype=np.int32)
    if len(cuts):
        # The solver separates its own cuts; ours are too dense for its taste.
        solver.deleteRows(len(cuts), cuts)
    far = master.far_columns(where.near_usd)
    solver.deleteCols(len(far), far.astype(np.int32))
    unserved = master.unserved_columns
    all_unserved: IntArray = np.arange(unserved.start, unserved.stop, dtype=np.int64)
    solver.deleteCols(len(all_unserved), all_unserved.astype(np.int32))
    program = solver.getLp()
    low, high = np.array(program.col_lower_)[:offers], np.array(program.col_upper_)[:offers]
    low = np.maximum(low, np.floor(n + WHOLE) - where.width)
    high = np.minimum(high, np.ceil(n - WHOLE) + where.width)
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
