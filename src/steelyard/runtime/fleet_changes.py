"""Changes of a fleet that runs: pools join, leave and change, and no step that runs is lost.

A pool that leaves takes no new steps at once; its backend is closed when the last step that was
placed there has ended. A pool whose backend changes gets the new one for later attempts; the old
one is closed when its own have ended. Prices and curves change from one step to the next.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from steelyard.config.aliases import AliasSettings, aliases_of
from steelyard.config.pool_settings import EmbeddedPoolSettings, PoolSettings
from steelyard.config.ray_pools import replica_settings
from steelyard.config.ray_settings import RayPoolSettings
from steelyard.config.settings import Settings
from steelyard.config.spend_caps import capped, check_providers, spend_caps
from steelyard.domain.pool import PoolLimit, PoolSpec
from steelyard.errors import ConfigError
from steelyard.placement.policy import Policy
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.pool_limits import PoolLimits, agent_gate
from steelyard.runtime.starting import PoolStarter, RunningPool

# How often it is looked whether the last step of a pool that leaves has ended.
_LOOK_S = 0.1
# Settings that say what a pool costs and how fast it is, and nothing about its backend.
_OF_SPEC = frozenset(
    (
        *("offering", "machine_frac", "usd_per_hour", "token_price", "curve"),
        *("provider", "region", "arch"),
    )
)


class LiveFleet:
    """The pools that run, and how they are changed.

    Args:
        dispatcher: Places steps in them.
        starter: Starts more.
        pools: Those that run, by name; changed in place, so that whoever closes them finds all.
        limits: Limits over all processes of the store.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        starter: PoolStarter,
        pools: dict[str, RunningPool],
        limits: PoolLimits,
    ) -> None:
        self.dispatcher = dispatcher
        self._starter = starter
        self._pools = pools
        self._limits = limits
        self._drains: set[asyncio.Task[None]] = set()

    async def change(self, settings: Settings, policy: Policy) -> str:
        """Make the fleet what settings say; nothing changes where one pool of them cannot start.

        Args:
            settings: What to run from now on.
            policy: What places steps from now on.

        Returns:
            What has changed, in one line.

        Raises:
            ConfigError: A pool cannot be started or changed as configured.
            PoolUnavailableError: A pool died while starting.
        """
        wanted, caps = settings.pools, spend_caps(settings.limits)
        specs_now = (self._starter.spec(name, pool) for name, pool in wanted.items())
        check_providers(settings.limits, specs_now)
        self._starter.caps = caps
        aliases = {name: aliases_of(name, pool, settings.aliases) for name, pool in wanted.items()}
        changed = {
            name: pool
            for name, pool in wanted.items()
            if name in self._pools
            and (
                (pool, aliases[name]) != (self._pools[name].settings, self._pools[name].aliases)
                or capped(self._pools[name].spec, caps) != self._pools[name].spec
            )
        }
        specs = {name: self._new_spec(name, pool) for name, pool in changed.items()}
        anew = {
            name: pool
            for name, pool in wanted.items()
            if name not in self._pools or (name in changed and specs[name] is None)
        }
        started = await self._start_all(anew, settings.aliases)
        # From here on nothing can fail, and no step is placed in between.
        for name, one in started.items():
            self._take_in(name, one)
        for name, spec in specs.items():
            if spec is not None:
                self._change(name, settings=changed[name], spec=spec, aliases=aliases[name])
        removed = [name for name in self._pools if name not in wanted]
        for name in removed:
            self._remove(name)
        self._limits.change(wanted_limits(settings))
        self.dispatcher.change_policy(policy)
        self.dispatcher.hedge_up_to(settings.gateway.hedge_frac)
        added = [name for name in started if name not in changed]
        parts = [("added", added), ("changed", [*changed]), ("removed", removed)]
        told = [f"{what} {', '.join(sorted(names))}" for what, names in parts if names]
        return "; ".join(told) or "the pools are as they were"

    async def close(self) -> None:
        """Wait for nothing any more; those who hold the pools close them."""
        for drain in self._drains:
            drain.cancel()
        await asyncio.gather(*self._drains, return_exceptions=True)

    def _new_spec(self, name: str, pool: PoolSettings) -> PoolSpec | None:
        """The new specification of a pool whose backend may stay; None where it may not."""
        known = self._pools[name]
        spec = self._starter.spec(name, pool)
        if spec.replicas < known.spec.replicas:
            raise ConfigError(
                f"pools.{name}: {spec.replicas} replicas instead of {known.spec.replicas} need a "
                "restart, or a pool of another name"
            )
        if _backend_settings(pool) != _backend_settings(known.settings):
            return None
        one = replica_settings(pool) if isinstance(pool, RayPoolSettings) else pool
        if known.spec.kv_tokens_source == "engine":
            spec = msgspec.structs.replace(
                spec, kv_tokens=known.spec.kv_tokens, kv_tokens_source="engine"
            )
        if isinstance(one, EmbeddedPoolSettings) and one.figures is None:
            # Calibrated when it started.
            return msgspec.structs.replace(spec, llm_curves=known.spec.llm_curves)
        return spec

    async def _start_all(
        self, wanted: dict[str, PoolSettings], aliases: Mapping[str, AliasSettings]
    ) -> dict[str, RunningPool]:
        started: dict[str, RunningPool] = {}
        try:
            for name, pool in wanted.items():
                started[name] = await self._starter.start(name, pool, aliases)
        except BaseException:
            for one in started.values():
                await one.close()
            raise
        return started

    def _take_in(self, name: str, started: RunningPool) -> None:
        before = self._pools.get(name)
        if before is not None:
            before.watch.attach(None)
        self._pools[name] = started
        self.dispatcher.put_pool(started.known_as, started.llm or started.backend)
        if before is not None:
            # Those that were up, too: a new backend's caches are empty, its failures none.
            for replica in range(started.spec.replicas):
                self.dispatcher.replica_changed(name, replica, up=True, reason="a new backend")
            self._drain(name, before)
        started.watch.attach(self.dispatcher)

    def _change(
        self, name: str, *, settings: PoolSettings, spec: PoolSpec, aliases: dict[str, str]
    ) -> None:
        known = msgspec.structs.replace(
            self._pools[name], settings=settings, spec=spec, aliases=aliases
        )
        self._pools[name] = known
        self.dispatcher.put_pool(known.known_as, known.llm or known.backend)

    def _remove(self, name: str) -> None:
        self.dispatcher.remove_pool(name)
        self._drain(name, self._pools.pop(name))

    def _drain(self, name: str, leaving: RunningPool) -> None:
        """Close a backend when all that was placed there by now has ended."""
        task = asyncio.create_task(self._closed_when_idle(name, leaving))
        self._drains.add(task)
        task.add_done_callback(self._drains.discard)

    async def _closed_when_idle(self, name: str, leaving: RunningPool) -> None:
        placed = self.dispatcher.state.open_attempts(name)
        try:
            # A listener for every event of every request would cost more than a look.
            while placed & self.dispatcher.state.open_attempts(name):  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_S)
        finally:
            if name not in self._pools:
                self.dispatcher.forget_pool(name)
            await leaving.close()
        self._starter.progress(f"pool {name}: closed what has left")


def wanted_limits(settings: Settings) -> dict[str, PoolLimit]:
    """Which limits do settings put on steps, by gate?"""
    limits = {name: one.pool_limit() for name, one in settings.limits.pools.items()}
    return limits | {
        agent_gate(name): PoolLimit(starts=one.step_starts, per_s=one.per_s)
        for name, one in settings.limits.agents.items()
        if one.step_starts is not None
    }


def _backend_settings(pool: PoolSettings) -> dict[str, Any]:
    """What a backend is started from. Figures count: without them it is calibrated."""
    told = msgspec.structs.asdict(pool)
    return {"kind": type(pool), **{key: told[key] for key in told if key not in _OF_SPEC}}
