"""Which offerings of the catalogue does somebody ask for? Filters of `steelyard catalog list`."""

import msgspec

from steelyard.config.catalog_table import Catalog, hardware_key
from steelyard.config.unknown_keys import nearest
from steelyard.domain.offering import Offering
from steelyard.errors import ConfigError


class OfferingFilter(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for; an empty text or None asks for anything.

    Attributes:
        provider: Who sells it.
        arch: `arm64` or `x86_64`.
        hardware: `gpu`, `arm` or `x86`.
        model: A model that it has figures for.
        max_usd_per_hour: Highest price of one machine.
    """

    provider: str = ""
    arch: str = ""
    hardware: str = ""
    model: str = ""
    max_usd_per_hour: float | None = None


def find_offerings(catalog: Catalog, wanted: OfferingFilter) -> tuple[Offering, ...]:
    """Which offerings match? Cheapest first, ties by name.

    Args:
        catalog: What can be rented.
        wanted: What is asked for.

    Returns:
        The offerings; empty where nothing matches all at once.

    Raises:
        ConfigError: A filter names something that the catalogue does not have.
    """
    _check_filter(catalog, wanted)
    limit = wanted.max_usd_per_hour
    found = [
        one
        for one in catalog.offerings
        if wanted.provider in ("", one.provider)
        and wanted.arch in ("", one.instance_type.arch)
        and wanted.hardware in ("", one.instance_type.hardware)
        and (limit is None or one.usd_per_hour <= limit)
        and (not wanted.model or wanted.model in models_on(catalog, one))
    ]
    return tuple(sorted(found, key=lambda one: (one.usd_per_hour, one.name)))


def models_on(catalog: Catalog, offering: Offering) -> tuple[str, ...]:
    """Which models have figures on an offering? Sorted."""
    return tuple(sorted({fit.model for fit in catalog.llm_fits.get(hardware_key(offering), ())}))


def check_model(catalog: Catalog, model: str, setting: str = "--model") -> None:
    """Does the catalogue know a model?

    Args:
        catalog: What can be rented.
        model: The model.
        setting: Who asks, for the message.

    Raises:
        ConfigError: No offering has figures for it; the message names the nearest.
    """
    if model not in catalog.models():
        raise ConfigError(
            f"{setting} {model} has no figures in the catalogue;"
            f" {nearest(model, list(catalog.models()))}"
        )


def _check_filter(catalog: Catalog, wanted: OfferingFilter) -> None:
    known = {
        "--provider": (wanted.provider, sorted({one.provider for one in catalog.offerings})),
        "--arch": (wanted.arch, ["arm64", "x86_64"]),
        "--hardware": (wanted.hardware, ["arm", "gpu", "x86"]),
    }
    for option, (value, allowed) in known.items():
        if value and value not in allowed:
            raise ConfigError(
                f"{option} {value} is not in the catalogue; {nearest(value, allowed)}"
            )
    if wanted.model:
        check_model(catalog, wanted.model)
    limit = wanted.max_usd_per_hour
    if limit is not None and not limit > 0.0:
        raise ConfigError(f"--max-price is {limit}; it must be a number above 0, in USD per hour")
