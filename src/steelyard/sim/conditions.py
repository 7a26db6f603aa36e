"""What the simulated world is like, beside workload and fleet."""

import difflib
import math

import msgspec

from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import OnMiss
from steelyard.errors import ConfigError
from steelyard.sim.renting import Renting
from steelyard.sim.serving import WHOLE_PROMPTS, Serving


class Outage(msgspec.Struct, frozen=True, kw_only=True):
    """A pool, or everything a provider sells, is gone for a while.

    Attributes:
        start_s: Simulated time at which it begins.
        duration_s: Seconds until everything is back, with empty caches; what takes `start_s` to
            start (`Renting`) serves so much later.
        pool: Name of the pool that is lost; empty when a whole provider is.
        provider: Name of the provider that is lost; empty when a single pool is.
    """

    start_s: float
    duration_s: float
    pool: str = ""
    provider: str = ""

    def hits(self, spec: PoolSpec) -> bool:
        """Does the outage take this pool down?"""
        return spec.name == self.pool or spec.provider == self.provider


_KEPT = Renting()


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """What the simulated world is like.

    Attributes:
        bids_usd_per_hour: Bid price of a replica-hour per pool, from the plan; pools that are not
            named bid their rent.
        outages: What is lost, and when.
        renting: How the replicas of a pool are rented, by pool; others are there all the time.
        first_hour: Hour of the day at which simulated time begins, for tables by the hour.
        outage_patience_s: How long a step waits for a pool that could run it and is down, at most
            to its deadline, before it is refused.
        serving: How the engines of a pool serve, by pool; others compute prompts whole and forget
            none.
        service_factor: Factor on every service time: 1.2 for machines 20 % slower than figures say.
        between_steps_s: Seconds between the end of a step and the placement of those that waited
            for it, and before the first: agent, gateway and log, as a live run tells.
        noise_sigma: Spread of a lognormal factor with mean 1 on each step's service time, drawn
            by the seed in order of arrival, so that policies are compared on the same draws.
        max_attempts: Attempts after which a step, and with it the task, fails.
        max_output_tokens: Limit of an answer where the workload has none; an answer that is
            recorded as longer gets a limit of its own length.
        on_miss: What steps do when no pool meets their deadline.
    """

    bids_usd_per_hour: dict[str, float] = {}
    outages: tuple[Outage, ...] = ()
    renting: dict[str, Renting] = {}
    first_hour: float = 0.0
    outage_patience_s: float = 0.0
    serving: dict[str, Serving] = {}
    service_factor: float = 1.0
    between_steps_s: float = 0.0
    noise_sigma: float = 0.0
    max_attempts: int = 3
    max_output_tokens: int = 1024
    on_miss: OnMiss = "run_late"

    def renting_of(self, pool: str) -> Renting:
        """How are the replicas of a pool rented?"""
        return self.renting.get(pool, _KEPT)

    def serving_of(self, pool: str) -> Serving:
        """How do the engines of a pool serve?"""
        return self.serving.get(pool, WHOLE_PROMPTS)

    def check(self, pools: tuple[PoolSpec, ...]) -> None:
        """Refuse what makes no sense for this fleet.

        Args:
            pools: The fleet.

        Raises:
            ConfigError: An unknown pool or provider, a duration or factor below zero.
        """
        names = sorted(spec.name for spec in pools)
        providers = sorted({spec.provider for spec in pools})
        for bid in self.bids_usd_per_hour:
            _require_known("bid: pool", bid, names)
        for outage in self.outages:
            _check_outage(outage, names, providers)
        self._check_renting(pools)
        for pool, serving in self.serving.items():
            _require_known("serving: pool", pool, names)
            serving.check(pool)
        if self.service_factor <= 0.0 or self.noise_sigma < 0.0 or self.max_attempts < 1:
            raise ConfigError(
                f"service_factor {self.service_factor:g} must be above zero, noise_sigma "
                f"{self.noise_sigma:g} not negative, max_attempts {self.max_attempts} at least 1"
            )
        if not 0.0 <= self.between_steps_s < math.inf:
            raise ConfigError(
                f"between_steps_s {self.between_steps_s:g} must be finite and not negative"
            )

    def _check_renting(self, pools: tuple[PoolSpec, ...]) -> None:
        priced = {spec.name for spec in pools if spec.token_price is not None}
        for pool, renting in self.renting.items():
            _require_known("renting: pool", pool, sorted(spec.name for spec in pools))
            renting.check(pool)
            if pool in priced and renting.usd_per_hour_by_hour:
                raise ConfigError(
                    f"renting of {pool}: usd_per_hour_by_hour is for pools that are rented, and "
                    "this one is paid per token; leave it out"
                )
        if not (0.0 <= self.first_hour < math.inf and 0.0 <= self.outage_patience_s < math.inf):
            raise ConfigError(
                f"first_hour {self.first_hour:g} and outage_patience_s "
                f"{self.outage_patience_s:g} must be finite and not negative"
            )


def _check_outage(outage: Outage, pools: list[str], providers: list[str]) -> None:
    if bool(outage.pool) == bool(outage.provider):
        raise ConfigError(f"outage at {outage.start_s:g} s: name one pool or one provider")
    if outage.pool:
        _require_known("outage: pool", outage.pool, pools)
    else:
        _require_known("outage: provider", outage.provider, providers)
    if outage.start_s < 0.0 or outage.duration_s <= 0.0:
        raise ConfigError(
            f"outage of {outage.pool or outage.provider}: start_s {outage.start_s:g} must "
            f"not be negative and duration_s {outage.duration_s:g} must be above zero"
        )


def _require_known(what: str, name: str, known: list[str]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        cure = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
        raise ConfigError(f"{what} {name!r} is not in the fleet; {cure}")
