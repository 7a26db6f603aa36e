"""One key in this process: what it holds of its budget, and how fast it asks."""

import asyncio
import math
from typing import NamedTuple

from steelyard.domain.key import KeyTerms
from steelyard.store.keys_sql import Grant, Wish

# At least so many steps of the size of those that wait are fetched ahead, or as many as there were
# since the last exchange.
_STEPS_AHEAD = 8


class Bucket:
    """A token bucket: so much per second, and what was left over up to one burst.

    Args:
        per_s: Refill per second.
        burst: What it holds when nothing was taken for long.
    """

    __slots__ = ("_at_s", "_burst", "_level", "_per_s")

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._level = burst
        self._at_s = -math.inf

    def wait_s(self, amount: float, now_s: float) -> float:
        """After how many seconds is there so much in it? 0 for now; infinite for never."""
        if self._at_s > -math.inf:
            gained = (now_s - self._at_s) * self._per_s
            self._level = min(self._burst, self._level + gained)
        self._at_s = now_s
        if self._level >= amount:
            return 0.0
        if amount > self._burst or self._per_s <= 0.0:
            return math.inf
        return (amount - self._level) / self._per_s

    def take(self, amount: float) -> None:
        """Take so much; the level may fall below 0, and what comes next waits for it."""
        self._level -= amount

    def share(self, per_s: float, burst: float) -> None:
        """From now on it fills so fast, and holds so much."""
        self._per_s = per_s
        self._burst = burst
        self._level = min(self._level, burst)


class Waiter(NamedTuple):
    """A step that waits for money."""

    usd: float
    granted: "asyncio.Future[Grant | None]"


class KeyAccount:
    """The books of one key in this process.

    `free + reserved + unsettled` never exceeds what the store says that this process holds.

    Attributes:
        key_id: The key.
        terms: What it allows.
        free_usd: Held and neither reserved nor spent.
        reserved_usd: Reserved by steps that run.
        running: Steps that run.
        waiting: Steps that wait for money, the first first.
        used: Whether anything happened since the last exchange.
        left_usd: What nobody had spent or held at the last exchange.
        requests: How many more requests may come now; None without a limit.
        tokens: How many more tokens; None without a limit.
    """

    def __init__(self, key_id: str, terms: KeyTerms) -> None:
        self.key_id = key_id
        self.terms = terms
        self.free_usd = 0.0
        self.reserved_usd = 0.0
        self.running = 0
        self.waiting: list[Waiter] = []
        self.used = False
        self.left_usd = math.inf
        self.requests = _bucket(terms.requests_per_s, 1.0, 1)
        self.tokens = _bucket(terms.tokens_per_min, 60.0, 1)
        self._asked: list[Waiter] = []
        self._number = 0
        self._processes = 1
        self._spent_usd = 0.0
        self._tokens = 0
        self._requests = 0

    def change_terms(self, terms: KeyTerms) -> None:
        """The key has other terms now; what it holds stays."""
        if terms is self.terms:
            return
        old, self.terms = self.terms, terms
        if (old.requests_per_s, old.tokens_per_min) != (terms.requests_per_s, terms.tokens_per_min):
            self.requests = _bucket(terms.requests_per_s, 1.0, self._processes)
            self.tokens = _bucket(terms.tokens_per_min, 60.0, self._processes)

    def take(self, usd: float) -> bool:
        """Reserve an amount out of what is held here; False when that is not enough."""
        if self.free_usd < usd:
            return False
        self.free_usd -= usd
        self.reserved_usd += usd
        return True

    def begin(self) -> None:
        """A step runs."""
        self.running += 1
        self.used = True

    def end(self, reserved_usd: float, spent_usd: float, tokens: int) -> None:
        """A step has ended: what it did not spend is free again."""
        self.running -= 1
        self.used = True
        self._spent_usd += spent_usd
        self._tokens += tokens
        self._requests += 1
        if self.terms.has_budget:
            self.give_back(reserved_usd, spent_usd)

    def give_back(self, reserved_usd: float, spent_usd: float = 0.0) -> None:
        """A reservation is over."""
        # Rounding must not leave a trace of reservations that are gone.
        self.reserved_usd = self.reserved_usd - reserved_usd if self.running else 0.0
        self.free_usd += reserved_usd - spent_usd

    @property
    def has_news(self) -> bool:
        """Is there anything to tell or to ask the store?"""
        return bool(self._requests or self._tokens or self.waiting or self.free_usd > 0.0)

    def wish(self) -> Wish:
        """What to tell and to ask the store; what it tells is settled with that."""
        self._number += 1
        self._asked = list(self.waiting)
        needed = math.fsum(one.usd for one in self.waiting if not one.granted.done())
        if not self.waiting and (not self.used or self.left_usd <= 0.0):
            # Others may need what is idle here.
            self.free_usd = 0.0
        short = max(0.0, needed - max(0.0, self.free_usd))
        ahead = max(_STEPS_AHEAD, self._requests) * needed / max(1, len(self.waiting))
        told = Wish(
            key_id=self.key_id,
            number=self._number,
            spent_usd=self._spent_usd,
            tokens=self._tokens,
            requests=self._requests,
            keep_usd=self.reserved_usd + max(0.0, self.free_usd),
            need_usd=short,
            want_usd=short + ahead if short else 0.0,
        )
        self._spent_usd, self._tokens, self._requests = 0.0, 0, 0
        self.used = False
        return told

    def granted(self, wish: Wish, grant: Grant) -> None:
        """The store has answered: let those go on for whom there is money, refuse the others."""
        self.left_usd = grant.left_usd
        if grant.processes != self._processes:
            self._share(grant.processes)
        # Steps that still wait when a budget was taken away may go on, too.
        endless = not self.terms.has_budget
        self.free_usd += grant.held_usd - wish.keep_usd
        # Those that came while the store was asked are still to be asked for.
        self.waiting = self.waiting[len(self._asked) :]
        for one in self._asked:
            if not one.granted.done():
                one.granted.set_result(None if self.take(one.usd) or endless else grant)
        self._asked = []

    def failed(self, error: Exception) -> None:
        """The store cannot answer any more."""
        for one in self.waiting:
            if not one.granted.done():
                one.granted.set_exception(error)
        self.waiting = []

    def _share(self, processes: int) -> None:
        """Every process that serves the key gets its part of the key's rate."""
        self._processes = processes
        for bucket, limit, span_s in (
            (self.requests, self.terms.requests_per_s, 1.0),
            (self.tokens, self.terms.tokens_per_min, 60.0),
        ):
            if bucket is not None and limit is not None:
                part = limit / processes
                bucket.share(part / span_s, max(1.0, part))


def _bucket(limit: float | None, span_s: float, processes: int) -> Bucket | None:
    if limit is None:
        return None
    part = limit / processes
    return Bucket(part / span_s, max(1.0, part))
