"""How is the fleet doing? One row per pool, from the live state and its counters."""

import math

import msgspec
import numpy as np

from steelyard.dashboard.sources import Totals
from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import Step, ToolCall
from steelyard.fleet.provider_spend import CapUse
from steelyard.fleet.state import FleetState
from steelyard.fleet.view import FleetView

_NOBODY = Step(task_id="", step_id=0, agent="", name="", call=ToolCall(tool=""))


class PoolNow(msgspec.Struct, frozen=True, kw_only=True):
    """One pool at this moment.

    Attributes:
        spec: What it is.
        replicas_up: Replicas that are there.
        running: Steps that run.
        waiting: Placed steps that wait.
        room: Steps that its replicas could run at once.
        load_frac: `running` over `room`; None without room.
        bid_usd_per_hour: Price of a replica-hour by which the policy compares.
        correction: Measured over predicted service time.
        breaker_closed: Whether the circuit breaker lets steps through.
        ok: Attempts that went well since the start.
        failed: Attempts that failed.
        cached_frac: Share of the prompt tokens read from caches; None without prompts.
        used_usd: What its attempts cost since the start.
        leaving: It was removed and takes no new steps; it ends those that it has.
    """

    spec: PoolSpec
    replicas_up: int
    running: int
    waiting: int
    room: int
    load_frac: float | None
    bid_usd_per_hour: float
    correction: float
    breaker_closed: bool
    ok: int
    failed: int
    cached_frac: float | None
    used_usd: float
    leaving: bool = False

    @property
    def rent(self) -> float | None:
        """Rent of a replica in USD per hour; None where tokens are paid for instead."""
        return None if self.spec.token_price else self.spec.usd_per_hour

    @property
    def bid(self) -> float | None:
        """Bid price of a replica-hour in USD; None where tokens are paid for instead."""
        return None if self.spec.token_price else self.bid_usd_per_hour

    @property
    def health(self) -> str:
        """In one word: `up`, `degraded`, `breaker open`, `down` or `leaving`."""
        if self.leaving:
            return "leaving"
        if self.replicas_up == 0:
            return "down"
        if not self.breaker_closed:
            return "breaker open"
        return "up" if self.replicas_up == self.spec.replicas else "degraded"


class FleetNow(msgspec.Struct, frozen=True, kw_only=True):
    """The whole fleet at this moment.

    Attributes:
        pools: By hardware, provider and name; those that have left are not shown any more.
        running: Steps that run.
        waiting: Steps that wait.
        rent_usd_per_hour: Rent of all replicas; of pools that leave none.
        used_usd: What attempts cost since the start, of pools that have left, too.
        cached_frac: Share of the prompt tokens read from caches; None without prompts.
        caps: Spend caps of providers, with what all processes have spent and reserved.
    """

    pools: tuple[PoolNow, ...]
    running: int
    waiting: int
    rent_usd_per_hour: float
    used_usd: float
    cached_frac: float | None
    caps: tuple[CapUse, ...] = ()


def fleet_now(state: FleetState, now_s: float, totals: Totals) -> FleetNow:
    """How is the fleet doing?

    Args:
        state: The live fleet.
        now_s: Time on its clock.
        totals: What each pool's attempts came to.

    Returns:
        A snapshot.
    """
    seen = state.glance(_NOBODY, now_s)
    staying = {spec.name for spec in state.pools}
    every = [_pool(seen, index, totals, staying) for index in range(len(seen.pools))]
    # The arrays keep the place of a pool that has left.
    rows = [row for row in every if not row.leaving or row.running or row.waiting]
    rows.sort(key=lambda row: (row.spec.hardware, row.spec.provider, row.spec.name))
    tokens = [totals(spec.name) for spec in seen.pools]
    prompts = math.fsum(one["input_tokens"] for one in tokens)
    cached = math.fsum(one["cached_tokens"] for one in tokens)
    return FleetNow(
        pools=tuple(rows),
        running=sum(row.running for row in rows),
        waiting=sum(row.waiting for row in rows),
        rent_usd_per_hour=math.fsum(one.usd_per_hour * one.replicas for one in state.pools),
        used_usd=math.fsum(row.used_usd for row in every),
        cached_frac=cached / prompts if prompts else None,
        caps=tuple(state.spend.uses(now_s)),
    )


def _pool(seen: FleetView, index: int, totals: Totals, staying: set[str]) -> PoolNow:
    spec = seen.pools[index]
    part = slice(int(seen.offsets[index]), int(seen.offsets[index + 1]))
    up = int(np.count_nonzero(seen.up[part]))
    running = int(seen.running[part].sum())
    room = up * _room(spec)
    total = totals(spec.name)
    prompts = total["input_tokens"]
    return PoolNow(
        spec=spec,
        replicas_up=up,
        running=running,
        waiting=int(seen.waiting[part].sum()),
        room=room,
        load_frac=running / room if room else None,
        bid_usd_per_hour=float(seen.bid_usd_per_hour[index]),
        correction=float(seen.correction[index]),
        breaker_closed=bool(seen.closed[index]),
        ok=int(total["ok"]),
        failed=int(total["failed"]),
        cached_frac=total["cached_tokens"] / prompts if prompts else None,
        used_usd=total["cost_usd"],
        leaving=spec.name not in staying,
    )


def _room(spec: PoolSpec) -> int:
    """Steps that one replica runs at once; models of one pool share its streams."""
    streams = max((curve.concurrency_cap for curve in spec.llm_curves.values()), default=0)
    return streams + (spec.tool_curve.slots if spec.tool_curve else 0)
