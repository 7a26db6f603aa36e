"""What to do where machines are few: prices first, fleets near them, then the tree over boxes.

A linear program says little here: it is 10-40 % below the best fleet. `planner.ascent` prices the
service, a budget above that bound leaves ranges of numbers (`planner.ranges`), the solver finds
fleets in them over the shares that are nearly worth their rent, and `planner.dual_tree` proves.
"""

import math

import numpy as np

from steelyard.planner.ascent import Box, Climb, Offers, Peak, ascend
from steelyard.planner.deadline import Deadline
from steelyard.planner.demand import FloatArray
from steelyard.planner.dual_tree import Question, cheapest_in_box
from steelyard.planner.master import Master
from steelyard.planner.nearby import Neighbourhood, nearby_fleet
from steelyard.planner.ranges import Relaxation
from steelyard.planner.routing import serves

FIRST = Climb(steps=600, step=1.0, patience=10, surely=40)
MOST_PER_OFFER = 1e6
FIRST_BUDGET = 0.005
LOOK_BUDGETS = (0.02, 0.08)
LEAST_WANTED = 1e-4
CLIMB_SHARE = 0.4
LOOK_NODES = 40
LOOK_SHARE = 0.25
NEAR = 0.002
TREE_NODES = 20_000


class Few:
    """One problem without losses and caps, and what is known of its cheapest fleet.

    Attributes:
        best: Machines per offer, shape (offers,); None if no fleet is known.
        best_usd: What it costs.
        proven_usd: No fleet costs less.
        nodes: Boxes that were split.
    """

    def __init__(self, master: Master, stock: FloatArray, deadline: Deadline) -> None:
        """Take a master whose last solution is that of the linear program."""
        self._master = master
        self._stock = stock
        self._deadline = deadline
        self._usd = master.usd_per_hour
        self._offers = Offers(master.loads[0], self._usd)
        self._relaxed_usd = master.objective_usd_per_hour
        self.best: FloatArray | None = None
        self.best_usd = math.inf
        self.nodes = 0
        left_s = deadline.left_s()
        start_usd = master.lagrangian_prices()[0][0]

        def enough() -> bool:
            return deadline.left_s() <= (1.0 - CLIMB_SHARE) * left_s

        everything = Box(np.zeros_like(stock), np.minimum(stock, MOST_PER_OFFER))
        self._peak: Peak = ascend(self._offers, start_usd, everything, FIRST, enough)
        self._relaxation = Relaxation(master, stock, self._peak.worth_usd[None])
        self.proven_usd = max(self._relaxed_usd, self._relaxation.bound_usd_per_hour)

    def know(self, machines: FloatArray | None) -> None:
        """Take a fleet that can serve everything, if it is cheaper."""
        if machines is None:
            return
        usd = math.fsum((machines * self._usd).tolist())
        if usd < self.best_usd:
            self.best, self.best_usd = machines, usd

    def _closed(self, gap_frac: float) -> bool:
        # Divided, as `dual_tree` does: multiplied, rounding may leave what it proved open for ever.
        return self.proven_usd >= self.best_usd / (1.0 + gap_frac)

    def build(self) -> None:
        """Build a first fleet: machines in the order in which the climb wanted them, then drop."""
        wanted = self._peak.machines
        units = [
            (float(wanted[o]) - k, -int(o))
            for o in np.flatnonzero(wanted > LEAST_WANTED)
            for k in range(min(math.ceil(wanted[o]), int(min(self._stock[o], MOST_PER_OFFER))))
        ]
        order = [-o for _, o in sorted(units, reverse=True)]
        too_few, enough = 0, len(order)
        if not self._serve(order):
            return
        while enough - too_few > 1:
            half = (too_few + enough) // 2
            too_few, enough = (too_few, half) if self._serve(order[:half]) else (half, enough)
        kept = order[:enough]
        for o in sorted(kept, key=lambda o: (-self._usd[o], o)):
            fewer = kept.copy()
            fewer.remove(o)
            if self._deadline.late():
                break
            kept = fewer if self._serve(fewer) else kept
        self.know(self._counted(kept))

    def _counted(self, units: list[int]) -> FloatArray:
        return np.bincount(np.array(units, dtype=np.int64), minlength=len(self._usd)).astype(float)

    def _serve(self, units: list[int]) -> bool:
        return serves(self._master.loads, self._counted(units), self._usd)

    def look(self, gap_frac: float) -> None:
        """Find fleets near the prices, in budgets that grow until one holds a fleet."""
        lifted_usd = self.proven_usd - self._relaxed_usd
        for spare_frac in LOOK_BUDGETS:
            if self._closed(gap_frac) or self._deadline.late():
                return
            below_usd = min(self.best_usd, self.proven_usd + spare_frac * lifted_usd)
            least, most = self._relaxation.ranges(below_usd)
            costs = self._offers.rents(self._peak.worth_usd, most)[:, None] * self._offers.loads
            near = costs - self._peak.worth_usd <= NEAR * self.proven_usd
            near &= np.isfinite(self._master.loads[0]) & (most > 0.5)[:, None]
            where = Neighbourhood(
                least=least,
                most=most,
                near_usd=math.inf,
                cells=near[None],
                target_usd=0.0,
                gap_frac=gap_frac,
                nodes=LOOK_NODES,
                time_limit_s=LOOK_SHARE * self._deadline.left_s(),
            )
            self.know(nearby_fleet(self._master, below_usd, where))
            if self.best_usd <= below_usd:
                return

    def prove(self, gap_frac: float) -> None:
        """Look through budgets until one holds the cheapest fleet."""
        spare_usd = max(
            FIRST_BUDGET * (self.proven_usd - self._relaxed_usd), gap_frac * self.proven_usd
        )
        while not self._closed(gap_frac) and not self._deadline.late():
            below_usd = min(self._relaxation.bound_usd_per_hour + spare_usd, self.best_usd)
            if not self._search(below_usd, gap_frac, TREE_NODES):
                return
            spare_usd *= 2.0

    def _search(self, below_usd: float, gap_frac: float, nodes: int) -> bool:
        """Look at the fleets inside this budget; was all of it looked at?"""
        least, most = self._relaxation.ranges(below_usd)
        alive = most > 0.5
        asked = Question(
            loads=self._master.loads[0][alive],
            usd_per_hour=self._usd[alive],
            box=Box(least[alive], np.minimum(most, MOST_PER_OFFER)[alive]),
            worth_usd=self._peak.worth_usd,
            below_usd=below_usd,
            gap_frac=gap_frac,
            known=below_usd >= self.best_usd,
            nodes=nodes,
        )
        found = cheapest_in_box(asked, self._deadline.late)
        self.nodes += found.nodes
        self.proven_usd = max(self.proven_usd, min(found.lower_bound_usd, self.best_usd))
        if found.machines is not None:
            machines = np.zeros_like(self._usd)
            machines[alive] = found.machines
            self.know(machines)
        return found.finished
