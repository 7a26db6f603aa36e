"""Spend caps of providers, put into the specifications of their pools."""

from collections.abc import Iterable, Mapping

import msgspec

from steelyard.config.catalog_table import Catalog
from steelyard.config.limits import LimitsSection
from steelyard.config.pool_settings import PoolSettings
from steelyard.config.pool_specs import pool_spec
from steelyard.config.unknown_keys import nearest
from steelyard.domain.pool import PoolSpec, SpendCap
from steelyard.errors import ConfigError


def spend_caps(limits: LimitsSection) -> dict[str, SpendCap]:
    """Which providers have a cap?"""
    return {name: one.cap() for name, one in limits.providers.items()}


def capped(spec: PoolSpec, caps: Mapping[str, SpendCap]) -> PoolSpec:
    """A pool's specification with its provider's cap.

    Args:
        spec: The pool.
        caps: By provider.
    """
    return msgspec.structs.replace(spec, spend_cap=caps.get(spec.provider))


def capped_specs(
    pools: Mapping[str, PoolSettings], limits: LimitsSection, catalog: Catalog
) -> tuple[PoolSpec, ...]:
    """Specifications of configured pools, caps of their providers included.

    Args:
        pools: Settings by pool.
        limits: `[limits]`.
        catalog: Prices and speeds.

    Returns:
        In the order of the pools.

    Raises:
        ConfigError: An offering is not in the catalogue, or a cap is of no provider.
    """
    specs = tuple(pool_spec(name, one, catalog) for name, one in pools.items())
    check_providers(limits, specs)
    caps = spend_caps(limits)
    return tuple(capped(spec, caps) for spec in specs)


def check_providers(limits: LimitsSection, specs: Iterable[PoolSpec]) -> None:
    """Refuse a cap of a provider that no pool is of: it would hold nothing.

    Args:
        limits: `[limits]`.
        specs: All pools.

    Raises:
        ConfigError: A name is wrong.
    """
    providers = sorted({spec.provider for spec in specs})
    for name in limits.providers:
        if name not in providers:
            raise ConfigError(
                f"limits.providers.{name} is the provider of no pool; {nearest(name, providers)}"
            )
