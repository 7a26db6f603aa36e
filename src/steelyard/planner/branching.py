"""Which number of machines should be split next, and what did earlier splits teach?"""

import heapq
import math

import msgspec

from steelyard.planner.demand import FloatArray
from steelyard.planner.master import INFINITY

Bounds = tuple[tuple[int, float, float], ...]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One rounding.

    Attributes:
        offer: Whose number was rounded.
        part: Of a machine, that was taken away, or added where `up`; in (0, 1).
        up: Rounded up.
    """

    offer: int
    part: float
    up: bool


class PseudoCosts:
    """By how much does rounding an offer raise the bound, per part of a machine?

    Source: Bénichou et al., Math. Programming 1 (1971).
    """

    def __init__(self, usd_per_hour: FloatArray) -> None:
        self._usd = usd_per_hour
        self._gains: dict[tuple[int, bool], tuple[float, int]] = {}

    def learn(self, step: Step, gain_usd: float) -> None:
        """Remember what one rounding did to the bound."""
        total, count = self._gains.get((step.offer, step.up), (0.0, 0))
        self._gains[step.offer, step.up] = (total + max(gain_usd, 0.0) / step.part, count + 1)

    def best_offer(self, machines: FloatArray, fractional: list[int]) -> int:
        """The offer whose rounding, down and up, should raise the bound most; ties by index.

        Offers not yet branched on count as the average of those that were, by price.
        """
        ratios = [
            total / count / float(self._usd[offer])
            for (offer, _), (total, count) in self._gains.items()
        ]
        usual = math.fsum(ratios) / len(ratios) if ratios else 1.0

        def gain_usd(offer: int, part: float, *, up: bool) -> float:
            total, count = self._gains.get((offer, up), (usual * float(self._usd[offer]), 1))
            return max(part * total / count, 1e-9)

        def score(offer: int) -> float:
            part = float(machines[offer]) - math.floor(float(machines[offer]))
            return gain_usd(offer, part, up=False) * gain_usd(offer, 1.0 - part, up=True)

        return max(fractional, key=lambda offer: (score(offer), -offer))


def as_bounds(fixed: dict[int, tuple[float, float]]) -> Bounds:
    """The same bounds of n, in the order of the offers."""
    return tuple((o, lo, up) for o, (lo, up) in sorted(fixed.items()))


def narrowed(bounds: Bounds, offer: int, lower: float, upper: float) -> Bounds:
    """The bounds with one more: lower <= n_offer <= upper."""
    fixed = {o: (lo, up) for o, lo, up in bounds}
    low, high = fixed.get(offer, (0.0, INFINITY))
    fixed[offer] = (max(low, lower), min(high, upper))
    return as_bounds(fixed)


class Tree:
    """Open nodes, best bound first."""

    def __init__(self, relaxed_usd: float) -> None:
        self._open: list[tuple[float, int, Bounds, Step | None]] = [(relaxed_usd, 0, (), None)]
        self._pushed = 0
        self._closed_usd = math.inf  # the lowest bound among nodes closed inside the gap
        self.nodes = 0

    def bound_usd(self) -> float:
        """No fleet that is still to be found, or was given up inside the gap, costs less."""
        return min(self._open[0][0] if self._open else math.inf, self._closed_usd)

    def pop(self) -> tuple[float, Bounds, Step | None]:
        """Take the node with the lowest bound."""
        self.nodes += 1
        usd, _, bounds, step = heapq.heappop(self._open)
        return usd, bounds, step

    def close(self, usd: float) -> None:
        """Count a node with this bound as done."""
        self._closed_usd = min(self._closed_usd, usd)

    def split(self, usd: float, bounds: Bounds, offer: int, machines: float) -> None:
        """Open two nodes: at most this number of machines rounded down, at least rounded up."""
        whole = float(math.floor(machines))
        part = machines - whole
        for lower, upper in ((0.0, whole), (whole + 1.0, INFINITY)):
            self._pushed += 1
            up = lower > 0.0
            step = Step(offer=offer, part=1.0 - part if up else part, up=up)
            child = narrowed(bounds, offer, lower, upper)
            heapq.heappush(self._open, (usd, self._pushed, child, step))

    def __bool__(self) -> bool:
        return bool(self._open)
