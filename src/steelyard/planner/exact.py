"""Small problems as one complete mixed-integer program, all shares and cuts included."""

import highspy
import msgspec
import numpy as np

from steelyard.planner.demand import FloatArray
from steelyard.planner.master import Master
from steelyard.planner.solver import quiet_solver

# Programs with more columns than this are better left to the search with its priced columns.
MOST_COLUMNS = 1500
NODES = 20_000


class ExactResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the solver's own branch and bound found.

    Attributes:
        machines: Whole numbers per offer, shape (offers,); None if it found none.
        lower_bound_usd_per_hour: No fleet can cost less.
    """

    machines: FloatArray | None
    lower_bound_usd_per_hour: float


def is_small(master: Master) -> bool:
    """Is the complete program small enough for `solve_exactly`?"""
    return int(np.isfinite(master.loads).sum()) <= MOST_COLUMNS


def solve_exactly(master: Master, gap_frac: float, time_limit_s: float) -> ExactResult:
    """What is the cheapest whole fleet, by the solver's own search?

    The search is limited in nodes, so that it does the same every time; the time is a backstop.

    Args:
        master: The problem; all its columns are priced in by this call.
        gap_frac: Stop at this proven gap.
        time_limit_s: Wall seconds.

    Returns:
        The fleet and its bound, valid for the whole problem since no column is missing.
    """
    master.add_all_columns()
    offers = len(master.usd_per_hour)
    solver = quiet_solver(max(time_limit_s, 0.1))
    solver.setOptionValue("mip_rel_gap", gap_frac)
    solver.setOptionValue("mip_max_nodes", NODES)
    solver.passModel(master.program())
    for o in range(offers):
        solver.changeColIntegrality(o, highspy.HighsVarType.kInteger)
    # Shares that nobody serves exist only to keep the linear program feasible.
    unserved = int(master.loads.shape[0] * master.loads.shape[2])
    for column in range(offers, offers + unserved):
        solver.changeColBounds(column, 0.0, 0.0)
    solver.run()
    info = solver.getInfo()
    feasible = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    machines: FloatArray | None = None
    if feasible:
        values: FloatArray = np.array(solver.getSolution().col_value, dtype=np.float64)
        machines = np.round(values[:offers])
    return ExactResult(machines=machines, lower_bound_usd_per_hour=float(info.mip_dual_bound))
