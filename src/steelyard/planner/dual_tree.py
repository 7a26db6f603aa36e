"""Which whole fleet is cheapest, where machines are few? Branch and bound on the Lagrangian.

Every node is a box of numbers of machines with prices of service; its bound is climbed from its
parent's prices (`planner.ascent`), and numbers whose cost in the bound passes the best fleet are
cut off the box. No linear program is solved until a box holds one fleet.
"""

import heapq
import math
from collections.abc import Callable

import msgspec
import numpy as np

from steelyard.planner.ascent import Box, Climb, Offers, Peak, ascend
from steelyard.planner.demand import FloatArray
from steelyard.planner.routing import serves

NODE = Climb(steps=20, step=0.01, patience=5)
UNDECIDED = 0.02
PLUNGE = 200
PLUNGE_EVERY = 50

Node = tuple[float, int, Peak, Box]


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Which fleets to look at.

    Attributes:
        loads: Machines kept busy by a whole bucket, shape (offers, buckets); infinity: unable.
        usd_per_hour: Prices, shape (offers,).
        box: Numbers of machines.
        worth_usd: First prices of service, shape (buckets,).
        below_usd: Only fleets cheaper than this.
        gap_frac: Stop at this proven gap to `below_usd`, or to the best fleet found.
        known: Whether a fleet that costs `below_usd` is known.
        nodes: Stop after so many.
    """

    loads: FloatArray
    usd_per_hour: FloatArray
    box: Box
    worth_usd: FloatArray
    below_usd: float
    gap_frac: float
    known: bool
    nodes: int


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the tree found.

    Attributes:
        machines: The cheapest fleet met, shape (offers,); None if there was none.
        lower_bound_usd: No fleet of the question costs less; `below_usd` if there is none at all.
        finished: Whether no box is left open.
        nodes: Boxes that were split.
    """

    machines: FloatArray | None
    lower_bound_usd: float
    finished: bool
    nodes: int


def cheapest_in_box(asked: Question, late: Callable[[], bool]) -> Answer:
    """Which whole fleet in this box that can serve everything is cheapest?

    Args:
        asked: The fleets in question.
        late: Whether the search must end.

    Returns:
        The best fleet met and a bound for all.
    """
    tree = _Tree(asked, late)
    root = tree.opened(asked.worth_usd, asked.box, 0.0)
    if root is not None:
        tree.heap.append(root)
    nodes = pops = 0
    while tree.heap:
        node = heapq.heappop(tree.heap)
        bound_usd = node[0]
        if bound_usd >= tree.enough_usd():
            break
        if nodes >= asked.nodes or late():
            return Answer(
                machines=tree.best, lower_bound_usd=bound_usd, finished=False, nodes=nodes
            )
        nodes += tree.plunge(node, 1 if pops % PLUNGE_EVERY else PLUNGE)
        pops += 1
    return Answer(machines=tree.best, lower_bound_usd=tree.enough_usd(), finished=True, nodes=nodes)


class _Tree:
    def __init__(self, asked: Question, late: Callable[[], bool]) -> None:
        self._asked = asked
        self._offers = Offers(asked.loads, asked.usd_per_hour)
        self._late = late
        self._opened = 0
        self.heap: list[Node] = []
        self.best: FloatArray | None = None
        self._best_usd = asked.below_usd

    def enough_usd(self) -> float:
        """A box with this bound need not be looked at."""
        if self.best is None and not self._asked.known:
            return self._best_usd
        return self._best_usd / (1.0 + self._asked.gap_frac)

    def plunge(self, node: Node, most: int) -> int:
        """Split a box, then its better half, and so on; how many were split?"""
        for depth in range(1, most + 1):
            bound_usd, _, peak, box = node
            halves = [
                self.opened(peak.worth_usd, half, bound_usd)
                for half in _halves(peak, box, self._asked.usd_per_hour)
            ]
            new = sorted(half for half in halves if half is not None)
            last = depth == most or self._late()
            for half in new if last else new[1:]:
                heapq.heappush(self.heap, half)
            if last or not new:
                return depth
            node = new[0]
        return most

    def opened(self, worth_usd: FloatArray, box: Box, parent_usd: float) -> Node | None:
        """Climb the bound of a box and shrink it; None if no cheaper fleet can still be in it."""
        enough_usd = self.enough_usd()
        how = msgspec.structs.replace(NODE, enough_usd=enough_usd)
        peak = ascend(self._offers, worth_usd, box, how, self._late)
        bound_usd = max(peak.bound_usd, parent_usd)
        if bound_usd >= enough_usd:
            return None
        box = self._shrunk(peak.worth_usd, box, enough_usd)
        if bool((box.least < box.most).any()):
            self._opened += 1
            return bound_usd, self._opened, peak, box
        usd = math.fsum((box.least * self._asked.usd_per_hour).tolist())
        if usd < self._best_usd and serves(
            self._asked.loads[None], box.least, self._asked.usd_per_hour
        ):
            self.best, self._best_usd = box.least, usd
        return None

    def _shrunk(self, worth_usd: FloatArray, box: Box, below_usd: float) -> Box:
        """Without the numbers that cost too much at these prices; v_o is convex."""
        while True:
            found = self._offers.respond(worth_usd, box, margins=True)
            spare_usd, n = below_usd - found.bound_usd, found.machines
            most = np.where((n < box.most) & (found.one_more_usd >= spare_usd), n, box.most)
            least = np.where((n > box.least) & (found.one_less_usd >= spare_usd), n, box.least)
            if bool((most == box.most).all() and (least == box.least).all()):
                return box
            box = Box(least, most)


def _halves(peak: Peak, box: Box, usd_per_hour: FloatArray) -> tuple[Box, Box]:
    """Split the number that the climb left least decided, dear machines first."""
    machines = np.clip(peak.machines, box.least, box.most)
    down = np.maximum(np.minimum(np.floor(machines), box.most - 1.0), box.least)
    part = machines - down
    score = (np.minimum(part, 1.0 - part) + UNDECIDED) * usd_per_hour
    offer = int(np.where(box.least < box.most, score, -1.0).argmax())
    most, least = box.most.copy(), box.least.copy()
    most[offer], least[offer] = down[offer], down[offer] + 1.0
    return Box(box.least, most), Box(least, box.most)
