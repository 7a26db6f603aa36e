"""The parts of the search for a whole fleet: cuts, dives, neighbourhoods, budgets."""

import math
import time
from collections.abc import Callable

import numpy as np

from steelyard.planner.branching import Bounds, PseudoCosts, as_bounds
from steelyard.planner.cuts import violated_cuts
from steelyard.planner.deadline import Deadline
from steelyard.planner.demand import Demand, FloatArray
from steelyard.planner.exact import Budgets, solve_in_budgets
from steelyard.planner.few_machines import Few
from steelyard.planner.gomory import gomory_cuts
from steelyard.planner.master import INFINITY, Master
from steelyard.planner.nearby import Neighbourhood, nearby_fleet, rounded
from steelyard.planner.ranges import Relaxation
from steelyard.planner.routing import cheapest_apart, serves
from steelyard.planner.search_limits import SearchLimits, StopReason

INTEGRAL = 1e-6
MEDIUM_CELLS = 64_000
BUDGETS = (0.14, 0.28)
BUDGET_NODES = 60
CHEAPEST = 12
NEAR_FRAC = 0.01
FEW_MACHINES = 0.03
FEW = 70.0
DIVE_SHARE = 3
DIVE_STEPS = 40
FEW_CUTS = 5
GOMORY_CUTS = 40
PATIENCE = 2
SMALL_GAIN = 0.1
SLOW_ROUNDS = 4
NEAR_GAPS = 2.0
POOR_GAPS = 3.0
NODES_NEARBY = 10


class SearchRun:
    """One search: its linear program, the best fleet so far, and the steps that improve either.

    Attributes:
        demand: The problem.
        deadline: When nothing new is begun.
        master: Its linear program.
        limits: How hard to look.
        stock: Machines per offer at most, shape (offers,); infinity without a limit.
        best: Machines per offer of the best fleet, shape (offers,); None if none is known.
        best_usd: What it costs per hour; infinity if none is known.
        relaxed_usd: The linear program's cost without cuts, per hour.
        proven_usd: No fleet costs less per hour.
        gains: What branching has gained so far.
        dived: Whether a first dive was made.
    """

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
        """May nothing new be begun?"""
        return self.deadline.late()

    def set_bounds(self, old: Bounds, new: Bounds) -> None:
        """Take these bounds of n off the program, then put those on."""
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
        """Is the best fleet inside the gap over this bound?"""
        # Divided, as `dual_tree` does, so that what it proved counts whatever is rounded.
        return bound_usd >= self.best_usd / (1.0 + self.limits.gap_frac)

    def fractional(self) -> list[int]:
        """Offers of which the last solution buys parts of machines."""
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
