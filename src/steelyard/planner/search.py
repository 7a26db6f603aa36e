"""Which integer fleet is cheapest? Branch, price and cut over the numbers of machines.

The bound of a node is its linear program over *all* columns with residual-capacity cuts, so the
gap is proven. Limits are counted in nodes, not in seconds, so that the same demand gives the same
plan; `time_limit_s` is a backstop that is named when it struck.
"""

import heapq
import math
import time
from typing import Literal

import msgspec
import numpy as np

from steelyard.errors import InfeasiblePlanError
from steelyard.planner.cuts import violated_cuts
from steelyard.planner.demand import Demand, FloatArray
from steelyard.planner.exact import is_small, solve_exactly
from steelyard.planner.gomory import gomory_cuts
from steelyard.planner.master import INFINITY, Master
from steelyard.planner.nearby import Neighbourhood, nearby_fleet

StopReason = Literal["gap", "nodes", "time"]
INTEGRAL = 1e-6
DIVE_SHARE = 3
DIVE_EVERY = 20
DIVE_STEPS = 40
FEW_CUTS = 5
GOMORY_CUTS = 40
PATIENCE = 2
SLOW_ROUNDS = 4
NEAR_GAPS = 3.0
LOOK_NEARBY_AT = frozenset({20, 60, 140, 300, 620, 1260})


class SearchLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How hard to look.

    Attributes:
        gap_frac: Stop when cost / lower bound - 1 is at most this.
        nodes: Stop after this many nodes of the search tree.
        root_rounds: Rounds of cuts before the first branching.
        gomory_rounds: How many of them may add Gomory cuts.
        node_rounds: Rounds of cuts at every other node.
        time_limit_s: Backstop in wall seconds; a plan that it cut short may differ by machine.
    """

    gap_frac: float = 1e-4
    nodes: int = 400
    root_rounds: int = 60
    gomory_rounds: int = 12
    node_rounds: int = 2
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


Bounds = tuple[tuple[int, float, float], ...]


class _Step(msgspec.Struct, frozen=True):
    """One rounding: `part` of a machine of this offer taken away, or added where `up`."""

    offer: int
    part: float
    up: bool


class _Search:
    def __init__(self, demand: Demand, limits: SearchLimits) -> None:
        self.demand = demand
        self.master = Master(demand)
        self.limits = limits
        self.stock = np.array(
            [INFINITY if o.stock is None else float(o.stock) for o in demand.offers]
        )
        self.best: FloatArray | None = None
        self.best_usd = math.inf
        self.relaxed_usd = 0.0
        self._gains: dict[tuple[int, bool], tuple[float, int]] = {}
        self.give_up_s = time.perf_counter() + limits.time_limit_s

    def late(self) -> bool:
        return time.perf_counter() > self.give_up_s

    def set_bounds(self, old: Bounds, new: Bounds) -> None:
        for offer, _, _ in old:
            self.master.bound_machines(offer, 0.0, float(self.stock[offer]))
        for offer, lower, upper in new:
            self.master.bound_machines(offer, lower, upper)

    def tighten(self, rounds: int, gomory: int = 0) -> bool:
        """Solve with cuts; False if no fleet fits the bounds or can beat the best known.

        Args:
            rounds: Rounds of residual-capacity cuts.
            gomory: Rounds that may add Gomory cuts, once the others are few; valid only while
                the bounds of n are those of the demand.
        """
        gains: list[float] = []
        recent: list[float] = []
        for left in range(rounds, -1, -1):
            if not self.master.solve():
                return False
            cost = self.master.objective_usd_per_hour
            if self.closed(cost) or left == 0 or self.late():
                break
            recent.append(cost)
            if len(recent) > SLOW_ROUNDS and not gains:
                gained = cost - recent[-1 - SLOW_ROUNDS]
                if gained < 0.01 * (cost - self.relaxed_usd):
                    break
            cuts = list(violated_cuts(self.master))
            if len(cuts) < FEW_CUTS and len(gains) < gomory:
                gains.append(cost)
                if len(gains) > PATIENCE and cost - gains[-1 - PATIENCE] < self.small_usd:
                    break
                cuts.extend(gomory_cuts(self.master, GOMORY_CUTS))
            if not cuts:
                break
            for cut in cuts:
                self.master.add_cut(cut)
        return True

    @property
    def small_usd(self) -> float:
        """An improvement too small to wait for."""
        return 0.1 * self.limits.gap_frac * self.master.objective_usd_per_hour

    def closed(self, bound_usd: float) -> bool:
        return bound_usd * (1.0 + self.limits.gap_frac) >= self.best_usd

    def fractional(self) -> list[int]:
        n = self.master.machines
        return np.flatnonzero(np.abs(n - np.round(n)) > INTEGRAL).tolist()

    def offer_incumbent(self, whole: FloatArray) -> None:
        """Keep these whole machines, which can serve everything, if they are the cheapest."""
        usd = math.fsum((whole * self.master.usd_per_hour).tolist())
        if usd < self.best_usd:
            self.best, self.best_usd = whole, usd

    def round_up(self) -> None:
        """Whole machines for every part machine: feasible unless a provider cap is then broken."""
        whole = np.ceil(self.master.machines - INTEGRAL)
        if (whole <= self.stock).all() and self.master.keeps_caps(whole):
            self.offer_incumbent(whole)

    def dive(self, start: Bounds) -> None:
        """Round a third of the fractional machines at a time, those nearest to whole first.

        What is still fractional after `DIVE_STEPS` is rounded up. Not cut short by the time limit:
        it takes few steps, and a plan must come out.
        """
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
        self.set_bounds(_as_bounds(fixed), _as_bounds(before))

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

    def look_nearby(self, bound_usd: float, width: int, nodes: int) -> None:
        """Search the neighbourhood of the last solution for a fleet that closes the gap."""
        cost = self.master.objective_usd_per_hour
        lifted_usd = max(bound_usd - self.relaxed_usd, 0.0)
        near_usd = max(NEAR_GAPS * self.limits.gap_frac * cost, (0.1 + 0.2 * width) * lifted_usd)
        where = Neighbourhood(
            width=width,
            near_usd=near_usd,
            target_usd=bound_usd * (1.0 + 0.9 * self.limits.gap_frac),
            gap_frac=0.5 * self.limits.gap_frac,
            nodes=nodes,
            time_limit_s=self.give_up_s - time.perf_counter(),
        )
        # What cuts have closed tells how much may be left.
        hope_usd = max(5.0 * self.limits.gap_frac * bound_usd, (0.2 + width) * lifted_usd)
        below_usd = min(self.best_usd, bound_usd + hope_usd)
        found = nearby_fleet(self.master, below_usd, where)
        if found is not None:
            self.offer_incumbent(found)

    def learn(self, step: _Step, gain_usd: float) -> None:
        """Remember by how much a rounding raised the bound, per part of a machine rounded."""
        total, count = self._gains.get((step.offer, step.up), (0.0, 0))
        self._gains[step.offer, step.up] = (total + max(gain_usd, 0.0) / step.part, count + 1)

    def branch_offer(self, fractional: list[int]) -> int:
        """The offer whose rounding, down and up, should raise the bound most; ties by index.

        Offers not yet branched on count as the average of those that were, by price.
        """
        n, usd = self.master.machines, self.master.usd_per_hour
        ratios = [
            total / count / float(usd[offer]) for (offer, _), (total, count) in self._gains.items()
        ]
        usual = math.fsum(ratios) / len(ratios) if ratios else 1.0

        def gain_usd(offer: int, part: float, up: bool) -> float:
            total, count = self._gains.get((offer, up), (usual * float(usd[offer]), 1))
            return max(part * total / count, 1e-9)

        def score(offer: int) -> float:
            part = float(n[offer]) - math.floor(float(n[offer]))
            return gain_usd(offer, part, up=False) * gain_usd(offer, 1.0 - part, up=True)

        return max(fractional, key=lambda offer: (score(offer), -offer))


def _as_bounds(fixed: dict[int, tuple[float, float]]) -> Bounds:
    return tuple((o, lo, up) for o, (lo, up) in sorted(fixed.items()))


def _narrowed(bounds: Bounds, offer: int, lower: float, upper: float) -> Bounds:
    fixed = {o: (lo, up) for o, lo, up in bounds}
    low, high = fixed.get(offer, (0.0, INFINITY))
    fixed[offer] = (max(low, lower), min(high, upper))
    return _as_bounds(fixed)


def search(demand: Demand, limits: SearchLimits) -> SearchResult:
    """Which whole numbers of machines are cheapest, and how far can they be from the best?

    Args:
        demand: A checked planning problem.
        limits: How hard to look.

    Returns:
        The best fleet found with its proven lower bound.

    Raises:
        InfeasiblePlanError: No fleet keeps all constraints.
    """
    run = _Search(demand, limits)
    if not run.master.solve():
        raise InfeasiblePlanError(_why_infeasible(demand))
    relaxed_usd = run.relaxed_usd = run.master.objective_usd_per_hour
    run.round_up()
    if is_small(run.master):
        return _exact(run, relaxed_usd)
    bound_usd, nodes, stopped = _explore(run, relaxed_usd)
    if run.best is None:
        raise InfeasiblePlanError(_no_whole_fleet(demand))
    return SearchResult(
        machines=run.best,
        usd_per_hour=run.best_usd,
        lower_bound_usd_per_hour=min(bound_usd, run.best_usd),
        relaxed_usd_per_hour=relaxed_usd,
        stopped=stopped,
        nodes=nodes,
    )


def _exact(run: _Search, relaxed_usd: float) -> SearchResult:
    """A small problem, solved by the solver's own search over all columns with the root's cuts."""
    run.tighten(run.limits.root_rounds)
    gap_frac = run.limits.gap_frac / 100.0
    found = solve_exactly(run.master, gap_frac, run.give_up_s - time.perf_counter())
    if found.machines is not None:
        run.offer_incumbent(found.machines)
    if run.best is None:
        raise InfeasiblePlanError(_no_whole_fleet(run.demand))
    bound_usd = max(relaxed_usd, found.lower_bound_usd_per_hour)
    return SearchResult(
        machines=run.best,
        usd_per_hour=run.best_usd,
        lower_bound_usd_per_hour=min(bound_usd, run.best_usd),
        relaxed_usd_per_hour=relaxed_usd,
        stopped="gap" if run.closed(bound_usd) else "time" if run.late() else "nodes",
        nodes=1,
    )


def _no_whole_fleet(demand: Demand) -> str:
    return (
        f"no whole number of machines keeps all constraints ({_rules(demand)}); loosen one, or"
        " add offers of other sizes"
    )


def _explore(run: _Search, relaxed_usd: float) -> tuple[float, int, StopReason]:
    """Best bound first. Returns the proven bound, the nodes used and why it stopped."""
    open_nodes: list[tuple[float, int, Bounds, _Step | None]] = [(relaxed_usd, 0, (), None)]
    current: Bounds = ()
    pushed = nodes = 0
    closed_usd = math.inf  # the lowest bound among nodes closed inside the gap
    while open_nodes:
        bound_usd = min(open_nodes[0][0], closed_usd)
        if run.closed(bound_usd):
            return bound_usd, nodes, "gap"
        if nodes >= run.limits.nodes:
            return bound_usd, nodes, "nodes"
        # The root is looked at however late it is: a plan must come out.
        if nodes >= 1 and run.late():
            return bound_usd, nodes, "time"
        parent_usd, _, bounds, step = heapq.heappop(open_nodes)
        run.set_bounds(current, bounds)
        current = bounds
        nodes += 1
        at_root = nodes == 1
        rounds = run.limits.root_rounds if at_root else run.limits.node_rounds
        if not run.tighten(rounds, run.limits.gomory_rounds if at_root else 0):
            continue
        if step is not None:
            run.learn(step, run.master.objective_usd_per_hour - parent_usd)
        node_usd = max(parent_usd, run.master.objective_usd_per_hour)
        fractional = run.fractional()
        if not fractional:
            run.offer_incumbent(np.round(run.master.machines))
        if not fractional or run.closed(node_usd):
            closed_usd = min(closed_usd, node_usd)
            continue
        if at_root:
            run.look_nearby(node_usd, 0, 1)
            if run.best_usd > node_usd * (1.0 + 20.0 * run.limits.gap_frac):
                run.dive(bounds)
                run.master.solve()
                run.look_nearby(node_usd, 1, 20)
            if run.closed(node_usd):
                closed_usd = min(closed_usd, node_usd)
                continue
            gap_usd = run.best_usd - node_usd
            run.master.solve()
            run.master.trim(gap_usd)
        offer = run.branch_offer(fractional)
        whole = float(math.floor(float(run.master.machines[offer])))
        part = float(run.master.machines[offer]) - whole
        for lower, upper in ((0.0, whole), (whole + 1.0, float(run.stock[offer]))):
            pushed += 1
            up = lower > 0.0
            child = _narrowed(bounds, offer, lower, upper)
            step = _Step(offer, 1.0 - part if up else part, up)
            heapq.heappush(open_nodes, (node_usd, pushed, child, step))
        if nodes in LOOK_NEARBY_AT:
            run.look_nearby(heapq.nsmallest(1, open_nodes)[0][0], 0, 5)
    return min(closed_usd, run.best_usd), nodes, "gap"


def _rules(demand: Demand) -> str:
    names: list[str] = []
    if demand.constraints.provider_share_cap is not None:
        names.append(f"provider_share_cap {demand.constraints.provider_share_cap}")
    if demand.constraints.survive_provider_loss_frac:
        names.append(f"survive_provider_loss_frac {demand.constraints.survive_provider_loss_frac}")
    if any(o.stock is not None for o in demand.offers):
        names.append("stock")
    return " with ".join(names) or "capacity alone"


def _why_infeasible(demand: Demand) -> str:
    """Which single rule, when dropped, would let the demand be served?"""
    rules = demand.constraints
    free = tuple(msgspec.structs.replace(o, stock=None) for o in demand.offers)
    tries = {
        "stock": msgspec.structs.replace(demand, offers=free),
        "provider_share_cap": msgspec.structs.replace(
            demand, constraints=msgspec.structs.replace(rules, provider_share_cap=None)
        ),
        "survive_provider_loss_frac": msgspec.structs.replace(
            demand, constraints=msgspec.structs.replace(rules, survive_provider_loss_frac=None)
        ),
    }
    guilty = [name for name, relaxed in tries.items() if Master(relaxed).solve()]
    cure = f"loosening any of {', '.join(guilty)} would help" if guilty else "loosen several"
    return f"the constraints are in conflict: {_rules(demand)}; {cure}"
