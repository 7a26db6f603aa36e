"""Which integer fleet is cheapest? Branch, price and cut over the numbers of machines.

The bound of a node is its linear program over *all* columns with residual-capacity cuts, so the
gap is proven. Limits are counted in nodes, not in seconds, so that the same demand gives the same
plan; `time_limit_s` is a backstop that is named when it struck.
"""

import math
import time
from collections.abc import Callable
from typing import Literal

import msgspec
import numpy as np

from steelyard.errors import InfeasiblePlanError
from steelyard.planner.branching import Bounds, PseudoCosts, Step, Tree, as_bounds
from steelyard.planner.conflicts import no_whole_fleet, why_infeasible
from steelyard.planner.cuts import violated_cuts
from steelyard.planner.deadline import Deadline, TimeUp
from steelyard.planner.demand import Demand, FloatArray
from steelyard.planner.exact import Budgets, solve_in_budgets
from steelyard.planner.few_machines import Few
from steelyard.planner.gomory import gomory_cuts
from steelyard.planner.master import INFINITY, Master
from steelyard.planner.nearby import Neighbourhood, nearby_fleet, rounded
from steelyard.planner.ranges import Relaxation
from steelyard.planner.routing import cheapest_apart, serves

StopReason = Literal["gap", "nodes", "time"]
INTEGRAL = 1e-6
TINY_CELLS = 1000
MEDIUM_CELLS = 64_000
FIRST_BUDGET = 0.07
BUDGETS = (0.14, 0.28)
BUDGET_NODES = 60
CHEAPEST = 12
NEAR_FRAC = 0.01
FEW_MACHINES = 0.03
FEW = 70.0
DIVE_SHARE = 3
DIVE_EVERY = 40
DIVE_STEPS = 40
FEW_CUTS = 5
GOMORY_CUTS = 40
PATIENCE = 2
SMALL_GAIN = 0.1
SLOW_ROUNDS = 4
NEAR_GAPS = 2.0
POOR_GAPS = 3.0
NODES_NEARBY = 10
LOOK_NEARBY_AT = frozenset({60, 140, 300, 620, 1260})


class SearchLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How hard to look.

    Attributes:
        gap_frac: Stop when cost / lower bound - 1 is at most this.
        nodes: Stop after this many nodes of the search tree.
        root_rounds: Rounds of cuts before the first branching.
        gomory_rounds: How many of them may add Gomory cuts.
        node_rounds: Rounds of cuts at every other node.
        small_cells: Problems with at most so many shares are solved as one complete program.
        time_limit_s: Backstop in wall seconds; a plan that it cut short may differ by machine.
    """

    gap_frac: float = 1e-4
    nodes: int = 400
    root_rounds: int = 60
    gomory_rounds: int = 12
    node_rounds: int = 2
    small_cells: int = 2500
    time_limit_s: float = 30.0


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


class _Search:
    def __init__(
        self,
        demand: Demand,
        limits: SearchLimits,
        *,
        overspend: bool = False,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.demand = demand
        self.deadline = Deadline(limits.time_limit_s, now)
        self.master = Master(demand, overspend=overspend)
        self.limits = limits
        self.stock = np.array(
            [INFINITY if o.stock is None else float(o.stock) for o in demand.offers]
        )
        self.best: FloatArray | None = None
        self.best_usd = math.inf
        self.relaxed_usd = 0.0
        self.proven_usd = 0.0
        self.gains = PseudoCosts(self.master.usd_per_hour)
        self.dived = False
        self.offer_incumbent(cheapest_apart(self.master.loads, self.master.usd_per_hour))

    def late(self) -> bool:
        return self.deadline.late()

    def set_bounds(self, old: Bounds, new: Bounds) -> None:
        for offer, _, _ in old:
            self.master.bound_machines(offer, 0.0, float(self.stock[offer]))
        for offer, lower, upper in new:
            self.master.bound_machines(offer, lower, min(upper, float(self.stock[offer])))

    def tighten(self, rounds: int, gomory: int = 0) -> bool:
        """Solve with cuts; False if no fleet fits the bounds or can beat the best known.

        Args:
            rounds: Rounds of cuts.
            gomory: How many of them may add Gomory cuts, once the others are few; valid only
                while the bounds of n are those of the demand.
        """
        costs: list[float] = []
        gomory_costs: list[float] = []
        for left in range(rounds, -1, -1):
            if not self.master.solve():
                return False
            cost = self.master.objective_usd_per_hour
            costs.append(cost)
            if self.closed(cost) or left == 0 or self.late() or self._slow(costs, gomory_costs):
                break
            cuts = list(violated_cuts(self.master))
            if len(cuts) < FEW_CUTS and len(gomory_costs) < gomory:
                gomory_costs.append(cost)
                cuts.extend(gomory_cuts(self.master, GOMORY_CUTS))
            if not cuts:
                break
            for cut in cuts:
                self.master.add_cut(cut)
        return True

    def _slow(self, costs: list[float], gomory_costs: list[float]) -> bool:
        """Do more cuts not pay any more?"""
        if gomory_costs:
            small_usd = SMALL_GAIN * self.limits.gap_frac * costs[-1]
            return len(gomory_costs) > PATIENCE and costs[-1] - gomory_costs[-PATIENCE] < small_usd
        if len(costs) <= SLOW_ROUNDS:
            return False
        gained = costs[-1] - costs[-1 - SLOW_ROUNDS]
        return gained < 0.02 * (costs[-1] - self.relaxed_usd)

    def closed(self, bound_usd: float) -> bool:
        # Divided, as `dual_tree` does, so that what it proved counts whatever is rounded.
        return bound_usd >= self.best_usd / (1.0 + self.limits.gap_frac)

    def fractional(self) -> list[int]:
        n = self.master.machines
        return np.flatnonzero(np.abs(n - np.round(n)) > INTEGRAL).tolist()

    def offer_incumbent(self, whole: FloatArray) -> None:
        """Keep these whole machines, which can serve everything, if they are the cheapest."""
        usd = math.fsum((whole * self.master.usd_per_hour).tolist())
        if usd >= self.best_usd or (whole > self.stock).any() or not self.master.keeps_caps(whole):
            return
        if not serves(self.master.loads, whole, self.master.usd_per_hour):
            return  # what the solver's tolerance took for nothing was needed
        self.best, self.best_usd = whole, usd
        # Until there is a fleet, a plan matters more than the time it takes.
        self.master.deadline = self.deadline

    def round_up(self) -> None:
        """Whole machines for every part machine: feasible unless a provider cap is then broken."""
        self.offer_incumbent(np.ceil(self.master.machines - INTEGRAL))
        if self.best is None:
            self.offer_incumbent(np.ceil(self.master.machines - 1e-3 * INTEGRAL))

    def dive(self, start: Bounds) -> None:
        """Round a third of the fractional machines at a time, those nearest to whole first.

        What is still fractional after `DIVE_STEPS` is rounded up. The first one is only cut short
        by the end of the grace: a good plan must come out.
        """
        if self.dived and self.late():
            return
        self.dived = True
        fixed: dict[int, tuple[float, float]] = {o: (lo, up) for o, lo, up in start}
        before = dict(fixed)
        for _ in range(DIVE_STEPS):
            fractional = self.fractional()
            if not fractional:
                self.offer_incumbent(np.round(self.master.machines))
                break
            n = self.master.machines
            up_part = n - np.floor(n + INTEGRAL)
            fractional.sort(key=lambda o: (min(up_part[o], 1.0 - up_part[o]), o))
            batch = fractional[: max(1, len(fractional) // DIVE_SHARE)]
            self._round(batch, fixed, down=True)
            if not self.master.solve(price=False):
                self._round(batch, fixed, down=False)
                if not self.master.solve():
                    break
            if self.master.objective_usd_per_hour >= self.best_usd:
                break
        else:
            self.round_up()
        self.set_bounds(as_bounds(fixed), as_bounds(before))

    def _round(
        self, batch: list[int], fixed: dict[int, tuple[float, float]], *, down: bool
    ) -> None:
        for o in batch:
            n = float(self.master.machines[o])
            floor = math.floor(n + INTEGRAL)
            low, high = fixed.get(o, (0.0, float(self.stock[o])))
            if down and n - floor <= 0.5:
                fixed[o] = (low, float(floor))
            else:
                # `down` failed: give back what it took away.
                high = float(self.stock[o]) if not down else high
                fixed[o] = (min(floor + 1.0, high), high)
            self.master.bound_machines(o, *fixed[o])

    def look_around_root(self, root_usd: float) -> None:
        """Find a first good fleet; then forget the shares that it shows to be too dear."""
        if not self.look_nearby(root_usd, 0, 1):
            self.dive(())
            self.master.solve()
            self.look_nearby(root_usd, 1, NODES_NEARBY)
        if not self.closed(max(root_usd, self.proven_usd)):
            self.master.solve()
            self.master.trim(self.best_usd - root_usd)
            self.master.solve()

    def relax(self) -> Relaxation:
        """Add residual-capacity cuts; their program's duals price the Lagrangian relaxation."""
        self.tighten(self.limits.root_rounds)
        self.round_up()
        relaxation = Relaxation(self.master, self.stock)
        self.proven_usd = max(self.proven_usd, relaxation.bound_usd_per_hour)
        return relaxation

    def look_in_budgets(
        self, relaxation: Relaxation, gap_frac: float, most_cells: int, first_frac: float
    ) -> None:
        """Look at complete programs of at most so many shares; raises the proven bound."""
        bound_usd = relaxation.bound_usd_per_hour
        lifted_usd = bound_usd - self.relaxed_usd
        how = Budgets(
            known=self.best,
            known_usd=self.best_usd,
            spare_usd=max(first_frac * lifted_usd, 2.0 * self.limits.gap_frac * bound_usd),
            gap_frac=gap_frac,
            most_cells=most_cells,
            deadline=self.deadline,
        )
        found = solve_in_budgets(self.master, relaxation, how)
        if found.machines is not None:
            self.offer_incumbent(found.machines)
        self.proven_usd = max(self.proven_usd, found.lower_bound_usd_per_hour)

    def look_in_ranges(self, relaxation: Relaxation) -> None:
        """Where machines are few: budgets instead of rounding, then the proof if it is in reach."""
        bound_usd = relaxation.bound_usd_per_hour
        lifted_usd = bound_usd - self.relaxed_usd
        if lifted_usd <= FEW_MACHINES * bound_usd:
            return
        self.dive(())
        self.master.solve()
        for spare_frac in BUDGETS:
            if self.late() and self.best is not None:
                break
            below_usd = min(self.best_usd, bound_usd + spare_frac * lifted_usd)
            least, most = relaxation.ranges(below_usd)
            self.master.add_cheapest(most > 0.5, CHEAPEST)
            self.master.solve()
            where = Neighbourhood(
                least=least,
                most=most,
                near_usd=NEAR_FRAC * bound_usd,
                target_usd=0.0,
                gap_frac=self.limits.gap_frac,
                nodes=BUDGET_NODES,
                time_limit_s=self.deadline.left_s(),
            )
            found = nearby_fleet(self.master, below_usd, where)
            if found is not None:
                self.offer_incumbent(found)
            if self.best_usd <= below_usd:
                break
        self.look_in_budgets(relaxation, self.limits.gap_frac, MEDIUM_CELLS, 1.0)

    def few(self) -> bool:
        """Are machines so few that prices beat linear programs, and nothing couples offers?"""
        if len(self.master.loads) > 1 or self.master.caps:
            return False
        return float(self.master.machines.sum()) <= FEW

    def look_at_few(self) -> tuple[int, StopReason]:
        """The whole search where machines are few."""
        few = Few(self.master, self.stock, self.deadline)
        few.know(self.best)
        self.proven_usd = max(self.proven_usd, few.proven_usd)
        gap_frac = self.limits.gap_frac
        few.build()
        for part in (few.look, few.prove):
            part(gap_frac)
            self.proven_usd = max(self.proven_usd, min(few.proven_usd, few.best_usd))
            if few.best is not None:
                self.offer_incumbent(few.best)
        stopped: StopReason = "time" if self.late() else "nodes"
        return few.nodes, "gap" if self.closed(self.proven_usd) else stopped

    def look_nearby(self, bound_usd: float, width: int, nodes: int) -> bool:
        """Look at fleets near the last solution; is the best known one as good as hoped now?"""
        cost = self.master.objective_usd_per_hour
        lifted_usd = max(bound_usd - self.relaxed_usd, 0.0)
        near_usd = max(NEAR_GAPS * self.limits.gap_frac * cost, (0.04 + 0.2 * width) * lifted_usd)
        least, most = rounded(self.master, width)
        where = Neighbourhood(
            least=least,
            most=most,
            near_usd=near_usd,
            target_usd=bound_usd * (1.0 + 0.9 * self.limits.gap_frac),
            gap_frac=0.5 * self.limits.gap_frac,
            nodes=nodes,
            time_limit_s=self.deadline.left_s(),
        )
        # What cuts have closed tells how much may be left.
        hope_usd = max(5.0 * self.limits.gap_frac * bound_usd, (0.2 + width) * lifted_usd)
        below_usd = min(self.best_usd, bound_usd + hope_usd)
        found = nearby_fleet(self.master, below_usd, where)
        if found is not None:
            self.offer_incumbent(found)
        return self.best_usd <= bound_usd + hope_usd

    def poor(self, bound_usd: float) -> bool:
        """Is the best fleet so far from the bound that one must look further?"""
        return self.best_usd > bound_usd * (1.0 + POOR_GAPS * self.limits.gap_frac)


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
    run = _Search(demand, limits, overspend=overspend, now=now)
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


def _look(run: _Search) -> tuple[int, StopReason]:
    """Nodes used, and why it stopped; the run holds the fleet and the bound."""
    if not run.master.solve():
        raise InfeasiblePlanError(why_infeasible(run.demand))
    run.proven_usd = run.relaxed_usd = run.master.objective_usd_per_hour
    run.round_up()
    if int(np.isfinite(run.master.loads).sum()) <= run.limits.small_cells:
        return 1, _exact(run)
    return _explore(run)


def _exact(run: _Search) -> StopReason:
    """A small problem: the complete program, budget by budget."""
    relaxation = run.relax()
    run.dive(())
    tiny = int(np.isfinite(run.master.loads).sum()) <= TINY_CELLS
    gap_frac = run.limits.gap_frac / (100.0 if tiny else 1.0)
    run.look_in_budgets(relaxation, gap_frac, run.limits.small_cells, FIRST_BUDGET)
    return "gap" if run.closed(run.proven_usd) else "time" if run.late() else "nodes"


def _explore(run: _Search) -> tuple[int, StopReason]:
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


def _visit(run: _Search, tree: Tree, parent_usd: float, bounds: Bounds, step: Step | None) -> None:
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
