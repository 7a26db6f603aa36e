"""What must be served, by what, and under which rules? The plain form of a planning problem.

JSON: `{"offers": [{"name", "provider", "usd_per_hour", "stock"?, "region"?, "spot"?}], "buckets":
[{"name", "rate_per_s"}], "capacity_per_s": [[per offer][per bucket] or null], "constraints":
{"provider_share_cap"?, "survive_provider_loss_frac"?, "survive_region_loss_frac"?,
"spot_share_cap"?}}`. `capacity_per_s` is what one machine does when it does nothing else; null
where it cannot meet the SLO. A machine may split its time.
"""

import math

import msgspec
import numpy as np
import numpy.typing as npt

from steelyard.errors import InfeasiblePlanError, PlanError

FloatArray = npt.NDArray[np.float64]


class Offer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A machine that can be bought any number of times, up to `stock`.

    Attributes:
        name: Unique.
        provider: Who sells it.
        usd_per_hour: Price of one, > 0.
        stock: Largest number that can be had; None without a limit.
        region: The provider's name of where it stands; empty where it does not matter.
        spot: Whether it may be taken away at any time.
    """

    name: str
    provider: str
    usd_per_hour: float
    stock: int | None = None
    region: str = ""
    spot: bool = False


class Bucket(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Work of one kind that arrives at a steady rate.

    Attributes:
        name: Unique.
        rate_per_s: Steps per second, >= 0.
    """

    name: str
    rate_per_s: float


class Constraints(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rules beside capacity.

    Attributes:
        provider_share_cap: a in `cost of provider p <= a * cost of the fleet`, for every p, in
            USD per hour; in (0, 1].
        survive_provider_loss_frac: f: for every provider p the fleet without p's machines must
            still be able to serve f of every bucket's rate, routed anew; in [0, 1].
        survive_region_loss_frac: The same for every region of every provider, one at a time.
        spot_share_cap: s: the machines that are not spot must be able to serve 1 - s of every
            bucket's rate by themselves, so that at most s of any bucket depends on spot; in
            [0, 1].
    """

    provider_share_cap: float | None = None
    survive_provider_loss_frac: float | None = None
    survive_region_loss_frac: float | None = None
    spot_share_cap: float | None = None


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """Machines that may all be gone at once, and what must be served without them.

    Attributes:
        what: Of what, in words: `provider 'aws'`, `region 'eastus' of 'azure'`, `spot machines`.
        rule: Name of the constraint that asks for it, with its value.
        lost: Which offers are gone, [offer].
        left_frac: Share of every bucket's rate that must be served without them, above 0.
    """

    what: str
    rule: str
    lost: tuple[bool, ...]
    left_frac: float


class Demand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A planning problem in its plain form; `checked` says whether it makes sense.

    Attributes:
        offers: What can be bought.
        buckets: What must be served.
        capacity_per_s: Steps per second of one machine, by offer and bucket; None: cannot.
        constraints: Rules beside capacity.
    """

    offers: tuple[Offer, ...]
    buckets: tuple[Bucket, ...]
    capacity_per_s: tuple[tuple[float | None, ...], ...]
    constraints: Constraints = Constraints()

    def load(self) -> FloatArray:
        """How many machines of each offer would each whole bucket keep busy?

        Returns:
            rate / capacity, shape (offers, buckets); infinity where the offer cannot serve it.
        """
        capacity = np.array(
            [[math.nan if c is None else c for c in row] for row in self.capacity_per_s],
            dtype=np.float64,
        ).reshape(len(self.offers), len(self.buckets))
        rates = np.array([b.rate_per_s for b in self.buckets], dtype=np.float64)
        return np.where(np.isnan(capacity), np.inf, rates[None, :] / capacity)

    def prices(self) -> FloatArray:
        """What does one machine of each offer cost, in USD per hour? Shape (offers,)."""
        return np.array([o.usd_per_hour for o in self.offers], dtype=np.float64)

    def losses(self) -> tuple[Loss, ...]:
        """Which losses must be survived? Those that another one implies are left out."""
        found = (*self._provider_losses(), *self._region_losses(), *self._spot_loss())
        kept: list[Loss] = []
        for loss in sorted(found, key=lambda one: (-sum(one.lost), -one.left_frac)):
            implied = any(
                other.left_frac >= loss.left_frac
                and all(b for a, b in zip(loss.lost, other.lost, strict=True) if a)
                for other in kept
            )
            if any(loss.lost) and not implied:
                kept.append(loss)
        return tuple(sorted(kept, key=lambda one: one.what))

    def _provider_losses(self) -> list[Loss]:
        frac = self.constraints.survive_provider_loss_frac
        return [
            Loss(
                what=f"provider {provider!r}",
                rule=f"survive_provider_loss_frac {frac}",
                lost=tuple(o.provider == provider for o in self.offers),
                left_frac=frac,
            )
            for provider in sorted({o.provider for o in self.offers})
            if frac
        ]

    def _region_losses(self) -> list[Loss]:
        frac = self.constraints.survive_region_loss_frac
        return [
            Loss(
                what=f"region {region!r} of {provider!r}",
                rule=f"survive_region_loss_frac {frac}",
                lost=tuple((o.provider, o.region) == (provider, region) for o in self.offers),
                left_frac=frac,
            )
            for provider, region in sorted({(o.provider, o.region) for o in self.offers})
            if frac
        ]

    def _spot_loss(self) -> list[Loss]:
        cap = self.constraints.spot_share_cap
        if cap is None or cap >= 1.0:
            return []
        lost = tuple(o.spot for o in self.offers)
        rule = f"spot_share_cap {cap}"
        return [Loss(what="spot machines", rule=rule, lost=lost, left_frac=1.0 - cap)]


def parse_demand(text: bytes | str, source: str = "demand") -> Demand:
    """Which planning problem does this JSON state?

    Args:
        text: JSON in the plain form.
        source: File name for messages.

    Returns:
        A problem that makes sense.

    Raises:
        PlanError: The JSON is broken or a value is out of range.
        InfeasiblePlanError: No fleet can serve it.
    """
    try:
        demand = msgspec.json.decode(text, type=Demand)
    except msgspec.DecodeError as error:
        raise PlanError(f"{source}: {error}; see the plain form in the documentation") from error
    return checked(demand, source)


def checked(demand: Demand, source: str = "demand") -> Demand:
    """Does the problem make sense? Returns it unchanged if it does.

    Raises:
        PlanError: A value is out of range, or the matrix has not the shape of its lists.
        InfeasiblePlanError: A bucket that nothing can serve, or caps that contradict each other.
    """
    _check_offers(demand, source)
    _check_buckets(demand, source)
    _check_matrix(demand, source)
    _check_constraints(demand, source)
    _check_servable(demand, source)
    return demand


def _check_names(names: list[str], what: str, source: str) -> None:
    if not names:
        raise PlanError(f"{source}: {what} is empty; give at least one")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise PlanError(f"{source}: {what} names {name!r} twice; names must be unique")
        seen.add(name)


def _check_offers(demand: Demand, source: str) -> None:
    _check_names([o.name for o in demand.offers], "offers", source)
    for offer in demand.offers:
        if not (math.isfinite(offer.usd_per_hour) and offer.usd_per_hour > 0.0):
            raise PlanError(
                f"{source}: offer {offer.name!r} has usd_per_hour {offer.usd_per_hour};"
                " it must be a number above 0"
            )
        if offer.stock is not None and offer.stock < 0:
            raise PlanError(
                f"{source}: offer {offer.name!r} has stock {offer.stock}; it must be 0 or more"
            )


def _check_buckets(demand: Demand, source: str) -> None:
    _check_names([b.name for b in demand.buckets], "buckets", source)
    for bucket in demand.buckets:
        if not (math.isfinite(bucket.rate_per_s) and bucket.rate_per_s >= 0.0):
            raise PlanError(
                f"{source}: bucket {bucket.name!r} has rate_per_s {bucket.rate_per_s};"
                " it must be a number of 0 or more"
            )


def _check_matrix(demand: Demand, source: str) -> None:
    rows = demand.capacity_per_s
    if len(rows) != len(demand.offers):
        raise PlanError(
            f"{source}: capacity_per_s has {len(rows)} rows for {len(demand.offers)} offers;"
            " give one row per offer"
        )
    for offer, row in zip(demand.offers, rows, strict=True):
        if len(row) != len(demand.buckets):
            raise PlanError(
                f"{source}: capacity_per_s of offer {offer.name!r} has {len(row)} values for"
                f" {len(demand.buckets)} buckets; give one per bucket, null where it cannot"
            )
        for bucket, value in zip(demand.buckets, row, strict=True):
            if value is not None and not (math.isfinite(value) and value > 0.0):
                raise PlanError(
                    f"{source}: capacity_per_s of offer {offer.name!r} for bucket"
                    f" {bucket.name!r} is {value}; it must be above 0, or null"
                )


def _check_constraints(demand: Demand, source: str) -> None:
    rules = demand.constraints
    cap = rules.provider_share_cap
    if cap is not None and not 0.0 < cap <= 1.0:
        raise PlanError(f"{source}: provider_share_cap is {cap}; it must be in (0, 1]")
    shares = {
        "survive_provider_loss_frac": rules.survive_provider_loss_frac,
        "survive_region_loss_frac": rules.survive_region_loss_frac,
        "spot_share_cap": rules.spot_share_cap,
    }
    for name, share in shares.items():
        if share is not None and not 0.0 <= share <= 1.0:
            raise PlanError(f"{source}: {name} is {share}; it must be in [0, 1]")
    if rules.survive_region_loss_frac:
        for offer in demand.offers:
            if not offer.region:
                raise PlanError(
                    f"{source}: offer {offer.name!r} has no region, which"
                    " survive_region_loss_frac needs; give one"
                )
    providers = sorted({o.provider for o in demand.offers})
    if cap is not None and cap * len(providers) < 1.0 - 1e-12:
        raise InfeasiblePlanError(
            f"{source}: provider_share_cap {cap} with {len(providers)} providers"
            f" ({', '.join(providers)}) allows only {cap * len(providers):.0%} of the cost;"
            f" raise the cap to at least {1 / len(providers):.4g} or add a provider"
        )


def _check_servable(demand: Demand, source: str) -> None:
    able = np.isfinite(demand.load())
    needed = np.array([b.rate_per_s > 0.0 for b in demand.buckets])
    for b in np.flatnonzero(needed & ~able.any(axis=0)):
        raise InfeasiblePlanError(
            f"{source}: no offer can serve bucket {demand.buckets[b].name!r} inside its SLO;"
            " loosen the SLO or add an offer"
        )
    for loss in demand.losses():
        left = able[~np.array(loss.lost)].any(axis=0)
        for b in np.flatnonzero(needed & ~left):
            raise InfeasiblePlanError(
                f"{source}: without {loss.what} nothing can serve bucket"
                f" {demand.buckets[b].name!r}, so {loss.rule} cannot be kept;"
                " add another offer or loosen the rule"
            )
