"""The complete mixed-integer program, over the fleets that a guessed budget leaves.

A budget below the best known cost leaves few offers (`planner.ranges`). If a fleet inside it is
found, the cheapest one is the cheapest of all; if there is none, the budget is a lower bound and
the next one is twice as far from the relaxed cost.
"""

import math

import highspy
import msgspec
import numpy as np

from steelyard.planner.deadline import Deadline
from steelyard.planner.demand import FloatArray
from steelyard.planner.master import IntArray, Master
from steelyard.planner.ranges import Relaxation
from steelyard.planner.solver import quiet_solver

NODES = 20_000


class Ranges(msgspec.Struct, frozen=True, kw_only=True):
    """Which fleets are looked at.

    Attributes:
        least: Machines per offer at least, shape (offers,).
        most: Machines per offer at most, shape (offers,); infinity without a limit.
        below_usd: Only fleets cheaper than this.
        overspend: Whether money may be spent on nothing, where the master knows it.
    """

    least: FloatArray
    most: FloatArray
    below_usd: float = math.inf
    overspend: bool = True

    def cells(self, master: Master) -> int:
        """Shares that a complete program over these fleets has."""
        return int(np.isfinite(master.loads[:, self.most > 0.5]).sum())


class ExactResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the solver's own branch and bound found.

    Attributes:
        machines: Whole numbers per offer, shape (offers,); None if it found none.
        lower_bound_usd_per_hour: No fleet in these ranges can cost less; `below_usd` where there
            is none.
    """

    machines: FloatArray | None
    lower_bound_usd_per_hour: float


def solve_exactly(
    master: Master, where: Ranges, gap_frac: float, time_limit_s: float
) -> ExactResult:
    """What is the cheapest whole fleet in these ranges, by the solver's own search?

    The search is limited in nodes, so that it does the same every time; the time is a backstop.
    Our cuts are left out: they are denser than those that the solver separates itself.

    Args:
        master: The problem; the columns of all offers in question are priced in by this call.
        where: The fleets in question.
        gap_frac: Stop at this proven gap.
        time_limit_s: Wall seconds.

    Returns:
        The fleet and its bound, valid for these ranges since no column is missing.
    """
    alive = where.most > 0.5
    master.add_columns_of(alive)
    offers = len(master.usd_per_hour)
    solver = quiet_solver(max(time_limit_s, 0.1))
    solver.setOptionValue("mip_rel_gap", gap_frac)
    solver.setOptionValue("mip_max_nodes", NODES)
    # What a restart could fix, the ranges have fixed before.
    solver.setOptionValue("mip_allow_restart", False)
    solver.passModel(master.program())
    cuts = master.spare_rows.astype(np.int32)
    solver.deleteRows(len(cuts), cuts)
    # Shares that nobody serves exist only to keep the linear program feasible.
    unserved: IntArray = np.array(master.unserved_columns, dtype=np.int64)
    gone = np.concatenate([unserved, master.columns_of(~alive)]).astype(np.int32)
    solver.deleteCols(len(gone), gone)
    for o in range(offers):
        solver.changeColBounds(o, float(where.least[o]), float(where.most[o]))
        solver.changeColIntegrality(o, highspy.HighsVarType.kInteger)
    for column in master.overspend_columns if not where.overspend else ():
        solver.changeColBounds(column - len(unserved), 0.0, 0.0)
    if where.below_usd < math.inf:
        solver.setOptionValue("objective_bound", where.below_usd)
    solver.run()
    info = solver.getInfo()
    bound_usd = float(info.mip_dual_bound)
    if solver.getModelStatus() == highspy.HighsModelStatus.kInfeasible:
        bound_usd = where.below_usd
    if info.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
        return ExactResult(machines=None, lower_bound_usd_per_hour=min(bound_usd, where.below_usd))
    values: FloatArray = np.array(solver.getSolution().col_value, dtype=np.float64)
    return ExactResult(
        machines=np.round(values[:offers]), lower_bound_usd_per_hour=min(bound_usd, where.below_usd)
    )


class Budgets(msgspec.Struct, frozen=True, kw_only=True):
    """How to look through budgets.

    Attributes:
        known: A fleet that keeps all rules, shape (offers,); None if there is none yet.
        known_usd: What it costs; infinity if there is none.
        spare_usd: The first budget is this far above the relaxed cost.
        gap_frac: Stop at this proven gap.
        most_cells: Stop before a budget that leaves more shares than this.
        deadline: Backstop.
    """

    known: FloatArray | None
    known_usd: float
    spare_usd: float
    gap_frac: float
    most_cells: int
    deadline: Deadline


def solve_in_budgets(master: Master, relaxation: Relaxation, how: Budgets) -> ExactResult:
    """What is the cheapest whole fleet, budget by budget?

    Args:
        master: The problem; columns are priced in by this call.
        relaxation: Its Lagrangian relaxation.
        how: First budget and limits.

    Returns:
        The best fleet known, and a bound valid for the whole problem.
    """
    best, best_usd = how.known, how.known_usd
    bound_usd, spare_usd = relaxation.bound_usd_per_hour, how.spare_usd
    while bound_usd * (1.0 + how.gap_frac) < best_usd:
        below_usd = min(relaxation.bound_usd_per_hour + spare_usd, best_usd)
        least, most = relaxation.ranges(below_usd)
        where = Ranges(least=least, most=most, below_usd=below_usd)
        left_s = how.deadline.left_s()
        if where.cells(master) > how.most_cells or left_s <= 0.0:
            break
        found = solve_exactly(master, where, how.gap_frac, left_s)
        bound_usd = max(bound_usd, found.lower_bound_usd_per_hour)
        fleet = found.machines
        if fleet is not None and not master.keeps_caps(fleet):
            real = msgspec.structs.replace(where, overspend=False, below_usd=best_usd)
            fleet = solve_exactly(master, real, how.gap_frac, how.deadline.left_s()).machines
        if fleet is not None and master.keeps_caps(fleet):
            usd = math.fsum((fleet * master.usd_per_hour).tolist())
            if usd < best_usd:
                best, best_usd = fleet, usd
        if found.lower_bound_usd_per_hour < below_usd - 1e-9 * abs(below_usd):
            break  # cut short, or a fleet was found and proven
        spare_usd *= 2.0
    return ExactResult(machines=best, lower_bound_usd_per_hour=bound_usd)
