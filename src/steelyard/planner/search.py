"""Which integer fleet is cheapest? Branch, price and cut over the numbers of machines.

The bound of a node is its linear program over *all* columns with residual-capacity cuts, so the
gap is proven. Limits are counted in nodes, not in seconds, so that the same demand gives the same
plan; `time_limit_s` is a backstop that is named when it struck.
"""

import time
from collections.abc import Callable

import msgspec
import numpy as np

from steelyard.errors import InfeasiblePlanError
from steelyard.planner.branching import Bounds, Step, Tree
from steelyard.planner.conflicts import no_whole_fleet, why_infeasible
from steelyard.planner.deadline import TimeUp
from steelyard.planner.demand import Demand, FloatArray
from steelyard.planner.search_limits import SearchLimits, StopReason
from steelyard.planner.search_run import NODES_NEARBY, SearchRun

TINY_CELLS = 1000
FIRST_BUDGET = 0.07
DIVE_EVERY = 40
LOOK_NEARBY_AT = frozenset({60, 140, 300, 620, 1260})


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """The best fleet found, and the proof of how good it is.

    Attributes:
        machines: Whole numbers per offer, shape (offers,).
        usd_per_hour: What they cost.
        lower_bound_usd_per_hour: No fleet can cost less.
        relaxed_usd_per_hour: The linear program's cost without whole numbers: a weaker bound.
        stopped: Why the search ended.
        nodes: Nodes looked at.
    """

    machines: FloatArray
    usd_per_hour: float
    lower_bound_usd_per_hour: float
    relaxed_usd_per_hour: float
    stopped: StopReason
    nodes: int


def search(
    demand: Demand,
    limits: SearchLimits,
    *,
    overspend: bool = False,
    now: Callable[[], float] = time.perf_counter,
) -> SearchResult:
    """Which whole numbers of machines are cheapest, and how far can they be from the best?

    Args:
        demand: A checked planning problem.
        limits: How hard to look.
        overspend: Whether offers were left out under a provider cap (see `planner.master`).
        now: The clock of the time limit, in seconds.

    Returns:
        The best fleet found with its proven lower bound.

    Raises:
        InfeasiblePlanError: No fleet keeps all constraints.
    """
    run = SearchRun(demand, limits, overspend=overspend, now=now)
    run.proven_usd = run.relaxed_usd = run.master.closed_form_usd_per_hour
    nodes = 0
    stopped: StopReason = "time"
    # Cut short, the bound known last holds.
    try:
        nodes, stopped = _look(run)
    except TimeUp:
        run.round_up()
    if run.best is None:
        raise InfeasiblePlanError(no_whole_fleet(demand))
    return SearchResult(
        machines=run.best,
        usd_per_hour=run.best_usd,
        lower_bound_usd_per_hour=min(run.proven_usd, run.best_usd),
        relaxed_usd_per_hour=run.relaxed_usd,
        stopped=stopped,
        nodes=nodes,
    )


def _look(run: SearchRun) -> tuple[int, StopReason]:
    """Nodes used, and why it stopped; the run holds the fleet and the bound."""
    if not run.master.solve():
        raise InfeasiblePlanError(why_infeasible(run.demand))
    run.proven_usd = run.relaxed_usd = run.master.objective_usd_per_hour
    run.round_up()
    if int(np.isfinite(run.master.loads).sum()) <= run.limits.small_cells:
        return 1, _exact(run)
    return _explore(run)


def _exact(run: SearchRun) -> StopReason:
    """A small problem: the complete program, budget by budget."""
    relaxation = run.relax()
    run.dive(())
    tiny = int(np.isfinite(run.master.loads).sum()) <= TINY_CELLS
    gap_frac = run.limits.gap_frac / (100.0 if tiny else 1.0)
    run.look_in_budgets(relaxation, gap_frac, run.limits.small_cells, FIRST_BUDGET)
    return "gap" if run.closed(run.proven_usd) else "time" if run.late() else "nodes"


def _explore(run: SearchRun) -> tuple[int, StopReason]:
    """Best bound first. Returns the nodes used and why it stopped."""
    if run.few():
        return run.look_at_few()
    run.look_in_ranges(run.relax())
    tree = Tree(run.relaxed_usd)
    current: Bounds = ()
    while tree:
        run.proven_usd = max(tree.bound_usd(), run.proven_usd)
        if run.closed(run.proven_usd):
            return tree.nodes, "gap"
        if tree.nodes >= run.limits.nodes:
            return tree.nodes, "nodes"
        if run.late():
            return tree.nodes, "time"
        parent_usd, bounds, step = tree.pop()
        run.set_bounds(current, bounds)
        current = bounds
        _visit(run, tree, parent_usd, bounds, step)
        if tree and tree.nodes in LOOK_NEARBY_AT:
            width = 1 if run.poor(tree.bound_usd()) else 0
            run.look_nearby(tree.bound_usd(), width, NODES_NEARBY)
        elif tree and tree.nodes % DIVE_EVERY == 0:
            run.dive(bounds)
    run.proven_usd = min(max(tree.bound_usd(), run.proven_usd), run.best_usd)
    return tree.nodes, "gap"


def _visit(
    run: SearchRun, tree: Tree, parent_usd: float, bounds: Bounds, step: Step | None
) -> None:
    """Solve one node; close it or split it."""
    limits = run.limits
    solved = (
        run.tighten(limits.root_rounds, limits.gomory_rounds)
        if step is None
        else run.tighten(limits.node_rounds)
    )
    if not solved:
        return
    node_usd = max(parent_usd, run.master.objective_usd_per_hour)
    if step is not None:
        run.gains.learn(step, node_usd - parent_usd)
    elif run.fractional() and not run.closed(node_usd):
        run.look_around_root(node_usd)
    fractional = run.fractional()
    if not fractional:
        run.offer_incumbent(np.round(run.master.machines))
    if not fractional or run.closed(node_usd):
        tree.close(node_usd)
        return
    offer = run.gains.best_offer(run.master.machines, fractional)
    tree.split(node_usd, bounds, offer, float(run.master.machines[offer]))
