"""`[aliases.NAME]`: further names of models, each for candidates among which the policy chooses."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from steelyard.config.pool_settings import (
    EmbeddedPoolSettings,
    EndpointPoolSettings,
    PoolSettings,
)
from steelyard.config.ray_pools import replica_settings
from steelyard.config.ray_settings import RayPoolSettings
from steelyard.config.unknown_keys import nearest
from steelyard.domain.pool import PoolSpec
from steelyard.errors import ConfigError


class CandidateSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model that an alias may mean.

    Attributes:
        model: Name of the model.
        pool: The pool that is meant; None for every pool that serves the model.
    """

    model: str
    pool: str | None = None


class AliasSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A further name for models.

    Attributes:
        candidates: What it may mean. The policy chooses by cost and deadline as among all pools;
            in a pool with several candidates the first one counts.
    """

    candidates: tuple[CandidateSettings, ...]


def check_aliases(
    path: Path, aliases: Mapping[str, AliasSettings], pools: Mapping[str, PoolSettings]
) -> None:
    """Refuse aliases that mean nothing, or hide a model.

    Args:
        path: The configuration file, for the message.
        aliases: What it says.
        pools: Its pools.

    Raises:
        ConfigError: A name is wrong.
    """
    served = {name: _models(pool) for name, pool in pools.items()}
    every = sorted({model for models in served.values() for model in models})
    for alias, settings in aliases.items():
        where = f"configuration {path}: aliases.{alias}"
        if alias in every:
            raise ConfigError(f"{where} is the name of a model already; take another one")
        if not settings.candidates:
            raise ConfigError(f'{where}.candidates is empty; give e.g. [{{ model = "NAME" }}]')
        for one in settings.candidates:
            if one.pool is not None and one.pool not in served:
                known = nearest(one.pool, [*served])
                raise ConfigError(f"{where} names the pool {one.pool!r}, which is not one; {known}")
            models = every if one.pool is None else served[one.pool]
            if one.model not in models:
                of = "any pool" if one.pool is None else f"pool {one.pool}"
                raise ConfigError(
                    f"{where} names {one.model!r}, which {of} does not serve; "
                    f"{nearest(one.model, [*models])}"
                )


def aliases_of(
    name: str, pool: PoolSettings, aliases: Mapping[str, AliasSettings]
) -> dict[str, str]:
    """Which model of a pool does each alias mean there?

    Args:
        name: Name of the pool.
        pool: Its settings.
        aliases: All aliases.

    Returns:
        The pool's model by alias; aliases that mean none of its models are left out.
    """
    models = _models(pool)
    found: dict[str, str] = {}
    for alias, settings in aliases.items():
        for one in settings.candidates:
            if one.pool in {None, name} and one.model in models:
                found.setdefault(alias, one.model)
    return found


def with_aliases(spec: PoolSpec, aliases: Mapping[str, str]) -> PoolSpec:
    """A pool's specification in which an alias is a model with the curve of the one it means."""
    curves = {alias: spec.llm_curves[model] for alias, model in aliases.items()}
    return msgspec.structs.replace(spec, llm_curves={**spec.llm_curves, **curves})


def _models(pool: PoolSettings) -> tuple[str, ...]:
    if isinstance(pool, EndpointPoolSettings):
        return pool.models
    one = replica_settings(pool) if isinstance(pool, RayPoolSettings) else pool
    return (one.model,) if isinstance(one, EmbeddedPoolSettings) else ()
