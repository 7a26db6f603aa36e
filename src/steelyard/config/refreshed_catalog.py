"""The packaged catalogue with refreshed prices, and what they change."""

import msgspec

from steelyard.config.catalog_table import Catalog, hardware_key
from steelyard.config.price_refresh import PriceRow
from steelyard.domain.offering import Offering


class PriceChange(msgspec.Struct, frozen=True, kw_only=True):
    """What a refresh does to one offering.

    Attributes:
        offering: Name of the offering.
        old_usd_per_hour: Packaged price; None if the offering is new.
        new_usd_per_hour: Refreshed price.
        price_date: Day of the refreshed price.
    """

    offering: str
    old_usd_per_hour: float | None
    new_usd_per_hour: float
    price_date: str


def with_prices(
    catalog: Catalog, rows: tuple[PriceRow, ...], *, with_spot: bool = False
) -> Catalog:
    """The catalogue at these prices.

    Offerings without a new price keep theirs; instance types that are sold in another region or
    as spot, too, are offered there with the same hardware and curves.

    Args:
        catalog: The packaged catalogue.
        rows: Refreshed prices.
        with_spot: Whether spot prices count.
    """
    like = {hardware_key(one): one for one in catalog.offerings}
    offerings = {one.name: one for one in catalog.offerings}
    for row in rows:
        machine = like.get((row.provider, row.instance_type))
        if machine is not None and (with_spot or row.capacity_type != "spot"):
            offerings[row.name] = _offering(machine, row)
    ordered = tuple(offerings[name] for name in sorted(offerings))
    return msgspec.structs.replace(catalog, offerings=ordered)


def price_changes(catalog: Catalog, rows: tuple[PriceRow, ...]) -> tuple[PriceChange, ...]:
    """Which offerings are new or have another price? By name.

    Args:
        catalog: The packaged catalogue, spot included.
        rows: Refreshed prices.
    """
    old = {one.name: one.usd_per_hour for one in catalog.offerings}
    return tuple(
        PriceChange(
            offering=row.name,
            old_usd_per_hour=old.get(row.name),
            new_usd_per_hour=row.usd_per_hour,
            price_date=row.price_date,
        )
        for row in rows
        if old.get(row.name) != row.usd_per_hour
    )


def _offering(like: Offering, row: PriceRow) -> Offering:
    return msgspec.structs.replace(
        like,
        name=row.name,
        region=row.region,
        capacity_type=row.capacity_type,
        usd_per_hour=row.usd_per_hour,
        price_date=row.price_date,
        price_source=row.price_source,
    )
