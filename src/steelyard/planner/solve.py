"""What is the cheapest fleet for a demand in its plain form, and how surely?"""

import math
import time

import msgspec
import numpy as np

from steelyard.errors import InfeasiblePlanError
from steelyard.planner.demand import Demand, checked
from steelyard.planner.dominance import undominated
from steelyard.planner.routing import route
from steelyard.planner.search import SearchResult, search
from steelyard.planner.search_limits import SearchLimits, StopReason


class Solution(msgspec.Struct, frozen=True, kw_only=True):
    """A fleet with its proof and routing.

    `solve_s` aside, the same demand gives the same bytes, unless time cut the search short.

    Attributes:
        fleet: Machines per offer name; offers not bought are left out.
        usd_per_hour: Price of the fleet.
        lower_bound_usd_per_hour: No fleet that keeps the constraints costs less.
        gap_frac: usd_per_hour / lower_bound_usd_per_hour - 1.
        relaxed_usd_per_hour: Cost if parts of machines could be bought, constraints kept.
        closed_form_usd_per_hour: sum over buckets of the cheapest offer's part cost; a bound
            without constraints, which a reader can recompute by hand.
        shares: Share of each bucket that each offer serves, [offer][bucket].
        growth: The fleet serves this many times the demand before something is full.
        bid_usd_per_hour: Worth of one machine's time per offer name in the fleet; 0 if idle.
        bucket_usd_per_hour: Cost of each bucket at those bids, [bucket].
        stopped: `gap` proven as asked; `nodes` or `time`: the search was cut short.
        nodes: Nodes of the search tree.
        solve_s: Wall seconds.
    """

    fleet: dict[str, int]
    usd_per_hour: float
    lower_bound_usd_per_hour: float
    gap_frac: float
    relaxed_usd_per_hour: float
    closed_form_usd_per_hour: float
    shares: tuple[tuple[float, ...], ...]
    growth: float
    bid_usd_per_hour: dict[str, float]
    bucket_usd_per_hour: tuple[float, ...]
    stopped: StopReason
    nodes: int
    solve_s: float


def solve(
    demand: Demand, limits: SearchLimits | None = None, known_fleet: dict[str, int] | None = None
) -> Solution:
    """What is the cheapest fleet of whole machines that serves the demand?

    minimise sum_o usd_o n_o over whole n_o and shares x (see `planner.master` for the
    inequalities).

    Args:
        demand: The planning problem.
        limits: How hard to look; None for the defaults.
        known_fleet: Machines per offer of a fleet that keeps all rules; the answer costs no more.

    Returns:
        The fleet with shares, bounds and bid prices.

    Raises:
        PlanError: The demand makes no sense.
        InfeasiblePlanError: No fleet keeps the constraints.

    >>> from steelyard.planner.demand import parse_demand
    >>> found = solve(parse_demand('{"offers": [{"name": "arm", "provider": "a",'
    ...     '"usd_per_hour": 1.0}], "buckets": [{"name": "chat", "rate_per_s": 5.0}],'
    ...     '"capacity_per_s": [[2.0]]}'))
    >>> found.fleet, found.usd_per_hour, found.closed_form_usd_per_hour
    ({'arm': 3}, 3.0, 2.5)
    """
    started_s = time.perf_counter()
    checked(demand)
    load, usd = demand.load(), demand.prices()
    wanted = [b.rate_per_s > 0.0 for b in demand.buckets]
    if not any(wanted):
        return _nothing(demand, time.perf_counter() - started_s)
    keep, found = _search(demand, limits or SearchLimits(), started_s)
    machines = np.zeros(len(demand.offers))
    machines[keep] = found.machines
    total_usd = found.usd_per_hour
    if known_fleet is not None:
        known = np.array([float(known_fleet.get(o.name, 0)) for o in demand.offers])
        known_usd = math.fsum((known * usd).tolist())
        if known_usd < total_usd:
            machines, total_usd = known, known_usd
    routing = route(demand, machines)
    bought = {o.name: int(n) for o, n in zip(demand.offers, machines, strict=True) if n > 0.5}
    cheapest = (load[:, wanted] * usd[:, None]).min(axis=0)
    return Solution(
        fleet=bought,
        usd_per_hour=total_usd,
        lower_bound_usd_per_hour=min(total_usd, found.lower_bound_usd_per_hour),
        gap_frac=max(0.0, total_usd / found.lower_bound_usd_per_hour - 1.0),
        relaxed_usd_per_hour=found.relaxed_usd_per_hour,
        closed_form_usd_per_hour=math.fsum(cheapest.tolist()),
        shares=_rows(routing.shares),
        growth=routing.growth,
        bid_usd_per_hour={
            o.name: float(bid)
            for o, bid in zip(demand.offers, routing.bid_usd_per_hour, strict=True)
            if o.name in bought
        },
        bucket_usd_per_hour=tuple(routing.bucket_usd_per_hour.tolist()),
        stopped=found.stopped,
        nodes=found.nodes,
        solve_s=time.perf_counter() - started_s,
    )


def _search(
    demand: Demand, limits: SearchLimits, started_s: float
) -> tuple[list[int], SearchResult]:
    """The offers that were looked at, and what was found among them.

    Under a provider cap, offers are left out only where the problem is large (see `dominance`),
    and are looked at after all if no fleet is found without them.
    """
    cap = demand.constraints.provider_share_cap
    capped = cap is not None and cap < 1.0
    everything = list(range(len(demand.offers)))
    keep = everything
    if not capped or len(everything) * len(demand.buckets) > limits.small_cells:
        keep = undominated(demand)
    left_out = len(keep) < len(everything)
    core = msgspec.structs.replace(
        demand,
        offers=tuple(demand.offers[o] for o in keep),
        capacity_per_s=tuple(demand.capacity_per_s[o] for o in keep),
    )
    used_s = time.perf_counter() - started_s
    limits = msgspec.structs.replace(limits, time_limit_s=max(0.0, limits.time_limit_s - used_s))
    try:
        return keep, search(core, limits, overspend=capped and left_out)
    except InfeasiblePlanError:
        if not (capped and left_out):
            raise
        return everything, search(demand, limits)


def _rows(shares: np.typing.NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in shares.tolist())


def _nothing(demand: Demand, solve_s: float) -> Solution:
    """The empty fleet for an empty demand."""
    return Solution(
        fleet={},
        usd_per_hour=0.0,
        lower_bound_usd_per_hour=0.0,
        gap_frac=0.0,
        relaxed_usd_per_hour=0.0,
        closed_form_usd_per_hour=0.0,
        shares=tuple((0.0,) * len(demand.buckets) for _ in demand.offers),
        growth=1.0,
        bid_usd_per_hour={},
        bucket_usd_per_hour=(0.0,) * len(demand.buckets),
        stopped="gap",
        nodes=0,
        solve_s=solve_s,
    )
