"""From a plan's settings to its catalogue: spot prices, owned machines, own figures."""

import msgspec

from steelyard.config.catalog_table import Catalog, load_catalog
from steelyard.config.figures_file import with_figures
from steelyard.config.plan_settings import OwnedMachines, PlanSettings
from steelyard.config.predicted_fits import with_predictions
from steelyard.config.price_refresh import read_refreshed
from steelyard.config.refreshed_catalog import with_prices
from steelyard.config.unknown_keys import nearest
from steelyard.domain.offering import Offering
from steelyard.errors import ConfigError


def planning_catalog(settings: PlanSettings) -> Catalog:
    """What can be bought or used under these settings?

    Args:
        settings: The plan's settings.

    Returns:
        The packaged catalogue with spot prices, owned machines and figures of the
        user's own, where asked for. The same
        settings are needed to simulate the plan.

    Raises:
        ConfigError: A name is not in the catalogue.
    """
    catalog = load_catalog(with_spot=settings.allowed.spot)
    if settings.allowed.refreshed_prices:
        catalog = with_prices(catalog, read_refreshed(), with_spot=settings.allowed.spot)
    _check_names(catalog, settings)
    owned = [_owned(catalog, one) for one in settings.owned]
    offerings = sorted([*catalog.offerings, *owned], key=lambda one: one.name)
    catalog = with_figures(catalog, settings.figures)
    if settings.allowed.predicted:
        catalog = with_predictions(catalog)
    names = [one.name for one in owned]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"owned machines of {name} are listed twice; add them up")
    return msgspec.structs.replace(catalog, offerings=tuple(offerings))


def stock_limits(settings: PlanSettings, catalog: Catalog) -> dict[str, int]:
    """How many of which offering can be had? By full name, sorted; others have no limit.

    Args:
        settings: The plan's settings.
        catalog: The plan's catalogue.

    Raises:
        ConfigError: A name is not in the catalogue.
    """
    stock = {catalog.offering(name).name: count for name, count in settings.stock.items()}
    stock |= {_owned(catalog, one).name: one.machines for one in settings.owned}
    return dict(sorted(stock.items()))


def _owned(catalog: Catalog, owned: OwnedMachines) -> Offering:
    like = catalog.offering(owned.offering)
    return msgspec.structs.replace(
        like,
        name=f"{like.name.rpartition('/')[0]}/owned",
        capacity_type="reserved",
        usd_per_hour=owned.usd_per_hour,
        price_source="owned: running cost given in the plan's configuration",
    )


def _check_names(catalog: Catalog, settings: PlanSettings) -> None:
    providers = sorted({one.provider for one in catalog.offerings})
    regions = sorted({one.region for one in catalog.offerings})
    engines = sorted({fit.engine for fits in catalog.llm_fits.values() for fit in fits})
    allowed = settings.allowed
    for key, given, known in (
        ("providers", allowed.providers, providers),
        ("regions", allowed.regions, regions),
        ("engine", (allowed.engine,), engines),
    ):
        for one in given:
            if one not in known:
                raise ConfigError(
                    f"allowed.{key} holds {one!r}, which is not in the catalogue;"
                    f" {nearest(one, known)}"
                )
