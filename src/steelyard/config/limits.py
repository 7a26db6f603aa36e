"""`[limits]`: how much of an agent or a pool may happen, over all processes of the store."""

import math
from pathlib import Path

import msgspec

from steelyard.config.unknown_keys import nearest
from steelyard.domain.agent import AgentLimit
from steelyard.domain.pool import PoolLimit, SpendCap
from steelyard.errors import ConfigError


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A limit, of an agent's tasks or of a pool's steps.

    Attributes:
        max_running: So many at once; None without a limit.
        starts: So many may start in `per_s` seconds; None without a limit.
        step_starts: Of an agent: so many steps in pools may start in `per_s` seconds, of all its
            tasks together; None without a limit.
        per_s: See `starts` and `step_starts`.
    """

    max_running: int | None = None
    starts: int | None = None
    step_starts: int | None = None
    per_s: float = 1.0

    def agent_limit(self) -> AgentLimit:
        """The limit of an agent's tasks."""
        return AgentLimit(
            max_running=self.max_running,
            starts=self.starts,
            step_starts=self.step_starts,
            per_s=self.per_s,
        )

    @classmethod
    def of(cls, limit: AgentLimit) -> "LimitSettings":
        """An agent's own limit, as a file would say it."""
        return cls(
            max_running=limit.max_running,
            starts=limit.starts,
            step_starts=limit.step_starts,
            per_s=limit.per_s,
        )

    def pool_limit(self) -> PoolLimit:
        """The limit of a pool's steps."""
        return PoolLimit(max_running=self.max_running, starts=self.starts, per_s=self.per_s)


class SpendCapSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the steps of all pools of a provider may cost, over all processes of the store.

    Attributes:
        usd_per_hour: In one UTC hour; None without a cap.
        usd_per_day: In one UTC day; None without a cap.
    """

    usd_per_hour: float | None = None
    usd_per_day: float | None = None

    def cap(self) -> SpendCap:
        """The cap, as pools hold it."""
        return SpendCap(usd_per_hour=self.usd_per_hour, usd_per_day=self.usd_per_day)


class LimitsSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits over all processes of the store.

    Attributes:
        agents: Tasks by agent, `[limits.agents.NAME]`; in place of the agent's own `limit`.
        pools: Steps by pool, `[limits.pools.NAME]`.
        providers: Spend by provider, `[limits.providers.NAME]`.
    """

    agents: dict[str, LimitSettings] = {}
    pools: dict[str, LimitSettings] = {}
    providers: dict[str, SpendCapSettings] = {}


def check_limits(path: Path, limits: LimitsSection, pools: list[str]) -> None:
    """Refuse limits that would let nothing through, or that are of no pool.

    Args:
        path: The configuration file, for the message.
        limits: What it says.
        pools: Names of its pools.

    Raises:
        ConfigError: A value or a name is wrong.
    """
    for name in limits.pools:
        if name not in pools:
            raise ConfigError(
                f"configuration {path}: limits.pools.{name} is of no pool; {nearest(name, pools)}"
            )
        if limits.pools[name].step_starts is not None:
            raise ConfigError(
                f"configuration {path}: limits.pools.{name}.step_starts is for agents; "
                "the steps of a pool are limited by starts"
            )
    for name, cap in limits.providers.items():
        _check_cap(path, name, cap)
    for kind, found in (("agents", limits.agents), ("pools", limits.pools)):
        for name, limit in found.items():
            for key in ("max_running", "starts", "step_starts", "per_s"):
                value = getattr(limit, key)
                if value is not None and not value > 0:
                    raise ConfigError(
                        f"configuration {path}: limits.{kind}.{name}.{key} is {value}; "
                        "it must be greater than 0"
                    )


def _check_cap(path: Path, name: str, cap: SpendCapSettings) -> None:
    told = {"usd_per_hour": cap.usd_per_hour, "usd_per_day": cap.usd_per_day}
    if not any(value is not None for value in told.values()):
        raise ConfigError(
            f"configuration {path}: limits.providers.{name} is empty; give usd_per_hour or "
            "usd_per_day"
        )
    for key, value in told.items():
        if value is not None and not 0.0 < value < math.inf:
            raise ConfigError(
                f"configuration {path}: limits.providers.{name}.{key} is {value}; "
                "it must be finite and greater than 0"
            )
