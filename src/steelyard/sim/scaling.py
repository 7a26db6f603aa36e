"""Numbers and prices of replicas over the day: by the hour, and by the load between bounds."""

import math
from collections import deque
from functools import partial

import msgspec

from steelyard.domain.events import BidChanged, PoolAdded
from steelyard.domain.pool import PoolSpec
from steelyard.domain.units import SECONDS_PER_HOUR
from steelyard.sim.attempts import SimAttempt
from steelyard.sim.conditions import Conditions
from steelyard.sim.machines import Machines, Surroundings
from steelyard.sim.renting import Renting, Scaling, at_hour


def offered(spec: PoolSpec, conditions: Conditions) -> PoolSpec:
    """The pool as it is when the simulation begins: room for all replicas, price of the hour.

    Args:
        spec: The pool as the fleet has it.
        conditions: The world.
    """
    renting = conditions.renting_of(spec.name)
    prices = renting.usd_per_hour_by_hour
    return msgspec.structs.replace(
        spec,
        replicas=renting.most(spec.replicas),
        usd_per_hour=at_hour(prices, conditions.first_hour) if prices else spec.usd_per_hour,
    )


def rented_at_first(spec: PoolSpec, conditions: Conditions) -> int:
    """How many replicas of a pool serve when the simulation begins?

    Args:
        spec: The pool as the fleet has it.
        conditions: The world.
    """
    renting = conditions.renting_of(spec.name)
    if not renting.varies:
        return spec.replicas
    if renting.replicas_by_hour:
        return max(renting.scheduled(conditions.first_hour), renting.bounds()[0])
    least, most = renting.bounds()
    return min(most, max(least, spec.replicas))


def places_of(spec: PoolSpec) -> int:
    """How many steps run at once on a replica? The least of its models' and tools' numbers."""
    caps = [curve.concurrency_cap for curve in spec.llm_curves.values()]
    if spec.tool_curve is not None:
        caps.append(spec.tool_curve.slots)
    return max(1, min(caps, default=1))


class Scaler:
    """Changes numbers and prices of replicas when their time has come."""

    def __init__(self, conditions: Conditions, machines: Machines, around: Surroundings) -> None:
        self._conditions = conditions
        self._machines = machines
        self._around = around
        self._wanted: dict[str, deque[tuple[float, int]]] = {}
        # Pool to the latest useful start of the steps that wait there.
        self._latest_s: dict[str, dict[tuple[str, int], float]] = {}

    def begin(self) -> None:
        """Enter the first changes."""
        for pool, renting in sorted(self._conditions.renting.items()):
            tables = (
                renting.usd_per_hour_by_hour,
                renting.bid_usd_per_hour_by_hour,
                renting.replicas_by_hour,
            )
            if any(len(table) > 1 for table in tables):
                self._await_hour(pool, math.floor(self._conditions.first_hour) + 1)
            if renting.scaling is not None:
                self._wanted[pool] = deque()
                if renting.scaling.slack_s > 0.0:
                    self._latest_s[pool] = {}
                self._around.agenda.at(renting.scaling.every_s, partial(self._look, pool))

    def note_placed(self, attempt: SimAttempt, now_s: float) -> None:
        """An attempt waits for its replica."""
        slack_s = attempt.decision.slack_at_start_s
        waiting = self._latest_s.get(attempt.decision.pool)
        if waiting is not None and slack_s is not None:
            waiting[attempt.step.key] = now_s + slack_s

    def note_taken(self, attempt: SimAttempt) -> None:
        """An attempt has started, or has ended without."""
        waiting = self._latest_s.get(attempt.decision.pool)
        if waiting is not None:
            waiting.pop(attempt.step.key, None)

    def _hour(self, now_s: float) -> float:
        return self._conditions.first_hour + now_s / SECONDS_PER_HOUR

    # -------------------------------------------------------------- by the hour

    def _await_hour(self, pool: str, hour: int) -> None:
        agenda, renting = self._around.agenda, self._conditions.renting[pool]
        begins_s = (hour - self._conditions.first_hour) * SECONDS_PER_HOUR
        if renting.start_s > 0.0 and renting.replicas_by_hour:
            early_s = max(agenda.now_s, begins_s - renting.start_s)
            agenda.at(early_s, partial(self._order_ahead, pool))
        agenda.at(max(agenda.now_s, begins_s), partial(self._begin_hour, pool, hour))

    def _order_ahead(self, pool: str, now_s: float) -> None:
        if not self._around.is_over():
            self._resize(pool, now_s)

    def _begin_hour(self, pool: str, hour: int, now_s: float) -> None:
        if self._around.is_over():
            return
        renting = self._conditions.renting[pool]
        self._reprice(pool, renting, now_s)
        if renting.replicas_by_hour:
            self._resize(pool, now_s)
        self._await_hour(pool, hour + 1)

    def _reprice(self, pool: str, renting: Renting, now_s: float) -> None:
        spec = self._around.state.spec(pool)
        hour = self._hour(now_s)
        if spec is not None and renting.usd_per_hour_by_hour:
            usd_per_hour = at_hour(renting.usd_per_hour_by_hour, hour)
            if usd_per_hour != spec.usd_per_hour:
                spec = msgspec.structs.replace(spec, usd_per_hour=usd_per_hour)
                self._around.emit(PoolAdded(t_s=now_s, spec=spec))
        bid = bid_at(self._conditions, pool, hour)
        # A pool's new specification brings its rent as bid with it.
        if bid is not None and (renting.usd_per_hour_by_hour or renting.bid_usd_per_hour_by_hour):
            self._around.emit(BidChanged(t_s=now_s, pool=pool, bid_usd_per_hour=bid))

    # -------------------------------------------------------------- by the load

    def _look(self, pool: str, now_s: float) -> None:
        if self._around.is_over():
            return
        scaling = self._conditions.renting[pool].scaling
        if scaling is None:
            return
        seen = self._wanted[pool]
        seen.append((now_s, self._wanted_for_load(pool, scaling, now_s)))
        while seen[0][0] < now_s - scaling.hold_s:
            seen.popleft()
        self._resize(pool, now_s)
        self._around.agenda.at(now_s + scaling.every_s, partial(self._look, pool))

    def _wanted_for_load(self, pool: str, scaling: Scaling, now_s: float) -> int:
        machines = self._machines.of(pool)
        load = sum(self._machines.load(one.replica) for one in machines)
        latest_s = self._latest_s.get(pool, {}).values()
        urgent = sum(at_s < now_s + scaling.slack_s for at_s in latest_s)
        places = places_of(machines[0].replica.spec)
        return math.ceil((load + urgent) / (places * scaling.used_frac))

    def _resize(self, pool: str, now_s: float) -> None:
        renting = self._conditions.renting[pool]
        wanted = renting.scheduled(self._hour(now_s))
        if renting.scaling is not None:
            least, most = renting.bounds()
            by_load = max((wanted for _, wanted in self._wanted[pool]), default=0)
            wanted = min(most, max(least, wanted, by_load))
        self._machines.resize(pool, wanted, now_s)


def bid_at(conditions: Conditions, pool: str, hour: float) -> float | None:
    """Which bid price does a pool have at a time? None where it bids its rent.

    Args:
        conditions: The world.
        pool: The pool.
        hour: Hours since midnight of the first day.
    """
    table = conditions.renting_of(pool).bid_usd_per_hour_by_hour
    if table:
        return at_hour(table, hour)
    return conditions.bids_usd_per_hour.get(pool)
