"""What has each provider's steps cost this hour and this day, and what is left of its cap?

Counted is what attempts have cost when they ended, at the time of their end, and what was predicted
of those that were placed and have not ended. Both come from events, so that live, simulated and
replayed books agree. A process that shares a store spends from what it was given of a cap, too
(`give`): what others spend is in no event of its own.
"""

import math
from collections.abc import Set
from typing import NamedTuple

import msgspec

from steelyard.domain.pool import PoolSpec, SpendCap
from steelyard.domain.units import SECONDS_PER_HOUR

SECONDS_PER_DAY = 24.0 * SECONDS_PER_HOUR
# By so much the clocks of processes and of their store may differ.
_SPAN_IS_NEW_S = 60.0


class SpendLeft(NamedTuple):
    """What is left of one provider's cap.

    Attributes:
        usd: What further steps may cost; infinite without a cap.
        renewed_s: Seconds until the span that is fullest begins anew.
    """

    usd: float
    renewed_s: float


class CapUse(NamedTuple):
    """One cap of a provider, and what is in the span that runs.

    Attributes:
        provider: The provider.
        span: `hour` or `day`.
        used_usd: Settled and reserved, of all processes as far as they have told.
        cap_usd: The cap.
    """

    provider: str
    span: str
    used_usd: float
    cap_usd: float


class _Span(msgspec.Struct):
    """Hours or days: what the one that runs has cost."""

    length_s: float
    number: int = -1
    spent_usd: float = 0.0

    def add(self, usd: float, t_s: float) -> None:
        number = int(t_s // self.length_s)
        if number > self.number:
            self.number, self.spent_usd = number, 0.0
        # What a clock that is behind tells late belongs to a span that is over.
        if number == self.number:
            self.spent_usd += usd

    def spent_at(self, now_s: float) -> float:
        return self.spent_usd if int(now_s // self.length_s) <= self.number else 0.0


class _Account(msgspec.Struct):
    """The books of one provider."""

    cap: SpendCap | None
    hour: _Span
    day: _Span
    reserved_usd: float = 0.0
    open_attempts: int = 0
    # Beyond what is reserved, of what this process was given; infinite where it shares with nobody.
    given_usd: float = math.inf
    # Spent since it was last told.
    untold_usd: float = 0.0
    # Spent this hour and this day by all processes, as it was last told.
    heard_usd: tuple[float, float] = (0.0, 0.0)


class ProviderSpend:
    """Books of all providers of a fleet.

    Attributes:
        capped: Whether any provider has a cap; without one nothing is looked at.
    """

    def __init__(self) -> None:
        self.capped = False
        self._accounts: dict[str, _Account] = {}
        self._of_pools: list[_Account] = []

    def put(self, spec: PoolSpec, specs: tuple[PoolSpec, ...]) -> None:
        """A pool joined or changed: its provider's cap is what it says.

        Args:
            spec: The pool.
            specs: All pools of the fleet, in its order.
        """
        account = self._accounts.get(spec.provider)
        if account is None:
            hour, day = _Span(SECONDS_PER_HOUR), _Span(SECONDS_PER_DAY)
            account = self._accounts[spec.provider] = _Account(spec.spend_cap, hour, day)
        account.cap = spec.spend_cap
        self._of_pools = [self._accounts[one.provider] for one in specs]
        self.keep_caps({one.provider for one in specs})

    def keep_caps(self, providers: Set[str]) -> None:
        """Providers that no pool is of any more have no cap; what their steps cost stays known.

        Args:
            providers: Those that pools are of which take steps.
        """
        for name, one in self._accounts.items():
            if name not in providers:
                one.cap = None
        self.capped = any(one.cap is not None for one in self._of_pools)

    def reserve(self, provider: str, usd: float) -> None:
        """A step was placed.

        Args:
            provider: Who is paid for its pool.
            usd: Its predicted cost.
        """
        account = self._accounts[provider]
        account.open_attempts += 1
        account.reserved_usd += usd
        account.given_usd -= usd

    def settle(self, provider: str, reserved_usd: float, cost_usd: float, t_s: float) -> None:
        """An attempt has ended.

        Args:
            provider: As it was when the step was placed.
            reserved_usd: What was predicted of it.
            cost_usd: What it cost.
            t_s: When.
        """
        account = self._accounts[provider]
        account.open_attempts -= 1
        # Rounding must not leave a trace of reservations that are gone.
        account.reserved_usd -= reserved_usd
        if account.open_attempts == 0:
            account.reserved_usd = 0.0
        account.given_usd += reserved_usd - cost_usd
        if account.cap is not None:
            account.untold_usd += cost_usd
        account.hour.add(cost_usd, t_s)
        account.day.add(cost_usd, t_s)

    def left(self, now_s: float) -> tuple[list[float], list[float]] | None:
        """What is left by pool, in USD, and after how many seconds is that renewed?

        Args:
            now_s: Time on the log's clock.

        Returns:
            Two lists by pool; None where no provider has a cap.
        """
        if not self.capped:
            return None
        found = [_left(one, now_s) for one in self._of_pools]
        return [one.usd for one in found], [one.renewed_s for one in found]

    def provider_left(self, provider: str, now_s: float) -> SpendLeft:
        """What is left of one provider's cap, as far as this process knows?"""
        account = self._accounts.get(provider)
        return SpendLeft(math.inf, math.inf) if account is None else _left(account, now_s)

    def room_after_s(self, provider: str, usd: float, now_s: float) -> float | None:
        """After how many seconds may the caps have room for a step, as far as this process knows?

        What is predicted of steps under way is left out: they end long before a span does, and may
        cost less.

        Args:
            provider: Who would be paid for it.
            usd: What it would cost.
            now_s: Time on the log's clock.

        Returns:
            Seconds until the spans that are full are over; 0 where what has been spent leaves room,
            None where even an empty span has none.
        """
        account = self._accounts.get(provider)
        if account is None or account.cap is None:
            return 0.0
        spans = (
            (account.cap.usd_per_hour, account.hour, account.heard_usd[0]),
            (account.cap.usd_per_day, account.day, account.heard_usd[1]),
        )
        rest_s = 0.0
        for most_usd, span, heard_usd in spans:
            if most_usd is None:
                continue
            if usd > most_usd or most_usd == 0.0:
                return None
            left_s = _rest_s(span.length_s, now_s)
            spent_usd = span.spent_at(now_s)
            if span.length_s - left_s > _SPAN_IS_NEW_S:
                # Before, others may have told of the span that is just over.
                spent_usd = max(spent_usd, _of_all_usd(account, heard_usd))
            if spent_usd + usd > most_usd or spent_usd >= most_usd:
                rest_s = max(rest_s, left_s)
        return rest_s

    def spent_usd(self, provider: str, now_s: float) -> tuple[float, float]:
        """What have steps cost this hour and this day, settled and reserved, in USD?"""
        account = self._accounts.get(provider)
        if account is None:
            return 0.0, 0.0
        return (
            account.hour.spent_at(now_s) + account.reserved_usd,
            account.day.spent_at(now_s) + account.reserved_usd,
        )

    def uses(self, now_s: float) -> list[CapUse]:
        """Which caps are there, and what is in their spans, by provider and span?"""
        found: list[CapUse] = []
        for name, cap in sorted(self.caps().items()):
            one = self._accounts[name]
            spans = (
                ("hour", one.hour, one.heard_usd[0], cap.usd_per_hour),
                ("day", one.day, one.heard_usd[1], cap.usd_per_day),
            )
            for span, own, heard_usd, cap_usd in spans:
                if cap_usd is not None:
                    used_usd = max(own.spent_at(now_s), _of_all_usd(one, heard_usd))
                    found.append(CapUse(name, span, used_usd + one.reserved_usd, cap_usd))
        return found

    # ------------------------------------------------- shares of several processes

    def hear(self, provider: str, spent_usd: tuple[float, float]) -> None:
        """So much have all processes spent this hour and this day; for people, not for steps."""
        self._accounts[provider].heard_usd = spent_usd

    def caps(self) -> dict[str, SpendCap]:
        """Which providers have a cap?"""
        return {name: one.cap for name, one in self._accounts.items() if one.cap is not None}

    def reserved_usd(self, provider: str) -> float:
        """What is predicted of the attempts that have not ended, in USD?"""
        return self._accounts[provider].reserved_usd

    def given_usd(self, provider: str) -> float:
        """What may this process spend of what it was given, beyond what is reserved, in USD?"""
        return self._accounts[provider].given_usd

    def take_untold(self) -> dict[str, float]:
        """What was spent since this was asked last, by provider with a cap, in USD?"""
        told: dict[str, float] = {}
        for name in self.caps():
            told[name] = self._accounts[name].untold_usd
            self._accounts[name].untold_usd = 0.0
        return told

    @property
    def has_untold(self) -> bool:
        """Was anything spent at a provider with a cap since that was asked last?"""
        return any(one.untold_usd for one in self._accounts.values() if one.cap is not None)

    def is_short(self, provider: str, usd: float, now_s: float) -> bool:
        """Has the cap room for a step, and only the part that this process was given has not?"""
        account = self._accounts[provider]
        given_usd = account.given_usd
        if math.isinf(given_usd) or account.cap is None or 0.0 < usd <= given_usd:
            return False
        room_usd = _cap_left(account, now_s).usd
        return usd <= room_usd and room_usd > 0.0

    def keep(self, provider: str, most_usd: float) -> float:
        """Keep no more than this of what was given and is not reserved; how much is that, in USD?

        Args:
            provider: Who is paid.
            most_usd: How much this process may keep.
        """
        account = self._accounts[provider]
        free_usd = 0.0 if math.isinf(account.given_usd) else account.given_usd
        account.given_usd = max(0.0, min(free_usd, most_usd))
        return account.given_usd

    def give(self, provider: str, more_usd: float) -> None:
        """Let this process spend so much more at a provider, or less, than it may now."""
        self._accounts[provider].given_usd += more_usd


def _of_all_usd(account: _Account, heard_usd: float) -> float:
    """What have all processes spent in a span, from what was heard of it?"""
    # Where nobody is told, nothing ever has been.
    return heard_usd + (0.0 if math.isinf(account.given_usd) else account.untold_usd)


def _left(account: _Account, now_s: float) -> SpendLeft:
    cap, left = account.cap, _cap_left(account, now_s)
    if cap is None or account.given_usd >= left.usd:
        return left
    # What others spent is in the way: which span is full is not known here.
    length_s = SECONDS_PER_DAY if cap.usd_per_hour is None else SECONDS_PER_HOUR
    return SpendLeft(account.given_usd, _rest_s(length_s, now_s))


def _cap_left(account: _Account, now_s: float) -> SpendLeft:
    cap = account.cap
    left = SpendLeft(math.inf, math.inf)
    if cap is None:
        return left
    for most_usd, span in ((cap.usd_per_hour, account.hour), (cap.usd_per_day, account.day)):
        if most_usd is not None:
            usd = most_usd - span.spent_at(now_s) - account.reserved_usd
            if usd <= left.usd:
                left = SpendLeft(usd, _rest_s(span.length_s, now_s))
    return left


def _rest_s(length_s: float, now_s: float) -> float:
    return length_s - now_s % length_s


def within_cap(cost_usd: float, left_usd: float, rent_usd_per_hour: float) -> bool:
    """May a step of this predicted cost be placed?

    Args:
        cost_usd: Its predicted cost.
        left_usd: What is left of the cap.
        rent_usd_per_hour: Rent of a replica: a tool that was never seen is predicted to cost
            nothing, and is refused with nothing left unless it costs nothing.

    >>> within_cap(0.5, 1.0, 0.0), within_cap(1.5, 1.0, 0.0), within_cap(0.0, 0.0, 0.4)
    (True, False, False)
    """
    return cost_usd <= left_usd and (left_usd > 0.0 or rent_usd_per_hour == 0.0)
