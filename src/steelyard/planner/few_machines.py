"""What to do where machines are few: prices first, fleets near them, then the tree over boxes.

A linear program says little here: it is 10-40 % below the best fleet. `planner.ascent` prices the
service, a budget above that bound leaves ranges of numbers (`planner.ranges`), the solver finds
fleets in them over the shares that are nearly worth their rent, and `planner.dual_tree` proves.
"""

import math

import msgspec
import numpy as np

from steelyard.planner.ascent import Box, Climb, Offers, Peak, ascend
from steelyard.planner.deadline import Deadline
from steelyard.planner.demand import FloatArray
from steelyard.planner.dual_tree import Question, cheapest_in_box
from steelyard.planner.master import Master
from steelyard.planner.nearby import Neighbourhood, nearby_fleet
from steelyard.planner.ranges import Relaxation

FIRST = Climb(steps=600, step=1.0, patience=10)
MOST_PER_OFFER = 1e6
FIRST_BUDGET = 0.005
LOOK_BUDGETS = (0.02, 0.08)
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
        start_usd = master.lagrangian_prices()[0][0]
        everything = Box(np.zeros_like(stock), np.minimum(stock, MOST_PER_OFFER))
        self._peak: Peak = ascend(self._offers, start_usd, everything, FIRST, deadline.late)
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
        return self.best_usd <= self.proven_usd * (1.0 + gap_frac)

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
                nodes=TREE_NODES,
            )
            found = cheapest_in_box(asked, self._deadline.late)
            self.nodes += found.nodes
            self.proven_usd = max(self.proven_usd, min(found.lower_bound_usd, self.best_usd))
            if found.machines is not None:
                machines = np.zeros_like(self._usd)
                machines[alive] = found.machines
                self.know(machines)
            if not found.finished:
                return
            spare_usd *= 2.0
