"""From settings to a running fleet: pools started, recorded, watched, and closed at the end."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec

from steelyard.config.aliases import aliases_of, with_aliases
from steelyard.config.catalog_table import Catalog
from steelyard.config.environment import (
    cache_folder,
    processor_description,
    secret,
    tool_environment,
)
from steelyard.config.pool_settings import (
    EmbeddedPoolSettings,
    EndpointPoolSettings,
    McpPoolSettings,
    PoolSettings,
    ToolPoolSettings,
)
from steelyard.config.pool_specs import pool_spec
from steelyard.config.settings import Settings
from steelyard.domain.events import PoolAdded
from steelyard.domain.pool import PoolLimit, PoolSpec
from steelyard.errors import ConfigError, MissingExtraError
from steelyard.placement.policy import Policy
from steelyard.pools.aliased import aliased
from steelyard.pools.backend import LlmBackend, ReplicaWatcher, ToolBackend
from steelyard.pools.sandbox.confinement import SandboxLimits
from steelyard.pools.sandbox.launch import Sandbox, find_sandbox
from steelyard.runtime.calibration import calibrate, calibrate_embeddings
from steelyard.runtime.clock import WallClock
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.pool_limits import PoolLimits, agent_gate
from steelyard.runtime.recorder import Recorder
from steelyard.store.event_log import EventLog
from steelyard.store.event_store import EventStore

# Told what is being done, for progress displays.
Progress = Callable[[str], None]


@asynccontextmanager
async def live_fleet(
    settings: Settings,
    catalog: Catalog,
    policy: Policy,
    log: EventLog,
    progress: Progress = lambda _: None,
) -> AsyncGenerator[Dispatcher, None]:
    """Start all pools and dispatch to them while the block runs.

    Embedded pools without a figures file are calibrated when they are up, so that the first
    placement is made from figures of this machine.

    Args:
        settings: What to run.
        catalog: Prices and speeds.
        policy: Places steps.
        log: Where events are kept; it is not closed.
        progress: Told what is being done.

    Yields:
        The dispatcher.

    Raises:
        ConfigError: A pool cannot be started as configured.
        PoolUnavailableError: A pool died while starting.
    """
    recorder = Recorder(WallClock(), log)
    llm_pools: dict[str, LlmBackend] = {}
    tool_pools: dict[str, ToolBackend] = {}
    async with AsyncExitStack() as stack:
        watchers = _Watchers()
        for name, pool in settings.pools.items():
            spec = pool_spec(name, pool, catalog)
            if isinstance(pool, ToolPoolSettings | McpPoolSettings):
                progress(f"starting the tools of pool {name}")
                tools = await _tool_backend(name, pool)
                await tools.start()
                stack.push_async_callback(tools.close)
                tool_pools[name] = tools
            else:
                progress(f"starting pool {name}")
                backend = await _llm_backend(name, pool, progress)
                await backend.start(watchers.watcher(name))
                stack.push_async_callback(backend.close)
                aliases = aliases_of(name, pool, settings.aliases)
                llm_pools[name] = aliased(backend, aliases)
                if isinstance(pool, EmbeddedPoolSettings) and pool.figures is None:
                    progress(f"calibrating pool {name}")
                    spec = await _calibrated(spec, pool, backend)
                spec = with_aliases(spec, aliases)
            recorder.record(PoolAdded(t_s=recorder.now_s(), spec=spec))
        dispatcher = Dispatcher(
            recorder, policy, llm_pools, tool_pools, limits=_pool_limits(settings, log)
        )
        watchers.attach(dispatcher)
        try:
            yield dispatcher
        finally:
            watchers.attach(None)


def _pool_limits(settings: Settings, log: EventLog) -> PoolLimits:
    limits = {name: one.pool_limit() for name, one in settings.limits.pools.items()}
    limits |= {
        agent_gate(name): PoolLimit(starts=one.step_starts, per_s=one.per_s)
        for name, one in settings.limits.agents.items()
        if one.step_starts is not None
    }
    if not limits:
        return PoolLimits.none()
    if not isinstance(log, EventStore):
        raise ConfigError("limits need a store to count in; give store.path")
    return PoolLimits(log, limits)


class _Watchers:
    """Tells the dispatcher of replicas that come and go, and of those that did before it was."""

    def __init__(self) -> None:
        self._dispatcher: Dispatcher | None = None
        self._up: dict[tuple[str, int], bool] = {}

    def attach(self, dispatcher: Dispatcher | None) -> None:
        """Tell this dispatcher from now on; first which replicas are down already."""
        self._dispatcher = dispatcher
        for (pool, replica), up in self._up.items():
            if dispatcher is not None and not up:
                dispatcher.replica_changed(pool, replica, up=False, reason="down at the start")

    def watcher(self, pool: str) -> ReplicaWatcher:
        async def watch(replica: int, up: bool) -> None:
            self._up[(pool, replica)] = up
            if self._dispatcher is not None:
                reason = "ready" if up else "its process or connection ended"
                self._dispatcher.replica_changed(pool, replica, up=up, reason=reason)

        return watch


async def _calibrated(spec: PoolSpec, pool: EmbeddedPoolSettings, backend: LlmBackend) -> PoolSpec:
    measure = calibrate_embeddings if pool.task == "embeddings" else calibrate
    curve = await measure(backend, pool.model, spec.llm_curves[pool.model])
    # An engine may have room for less than the model could read; texts to embed are counted apart.
    context_tokens = getattr(backend, "context_tokens", 0) if pool.task == "generate" else 0
    if context_tokens:
        curve = msgspec.structs.replace(curve, context_tokens=context_tokens)
    return msgspec.structs.replace(spec, llm_curves={pool.model: curve})


async def _tool_backend(name: str, pool: ToolPoolSettings | McpPoolSettings) -> ToolBackend:
    if isinstance(pool, McpPoolSettings):
        return await _mcp_backend(name, pool)
    from steelyard.pools.tools import ProcessToolPool  # noqa: PLC0415 - only when configured

    python_paths = tuple(str(path.resolve()) for path in pool.python_paths)
    return ProcessToolPool(
        slots=pool.slots,
        python_paths=python_paths,
        environment=tool_environment(),
        sandbox=await _sandbox(pool, python_paths),
    )


async def _mcp_backend(name: str, pool: McpPoolSettings) -> ToolBackend:
    try:
        from steelyard.pools.mcp_tools import McpServer, McpToolBackend  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"pools.{name} is an MCP server and {error.name} is not installed; "
            "pip install 'steelyard[mcp]'"
        ) from error
    headers: dict[str, str] = {}
    if pool.api_key_env is not None:
        key = secret(pool.api_key_env, f"pools.{name}.api_key_env")
        headers["Authorization"] = f"Bearer {key}"
    sandbox = None
    if pool.command:
        sandbox = await _sandbox(pool, tuple(str(path.resolve()) for path in pool.readable))
    server = McpServer(
        command=pool.command,
        environment=tool_environment(),
        sandbox=sandbox,
        url=pool.url,
        headers=headers,
    )
    return McpToolBackend(name, server, pool.tools, pool.slots, pool.timeout_s)


async def _sandbox(
    pool: ToolPoolSettings | McpPoolSettings, readable: tuple[str, ...]
) -> Sandbox | None:
    if pool.sandbox == "off":
        return None
    limits = SandboxLimits(
        memory_bytes=pool.memory_bytes,
        processes=pool.processes,
        folder_bytes=pool.folder_bytes,
        cores=pool.cores,
    )
    return await find_sandbox(pool.sandbox, limits, readable)


async def _llm_backend(name: str, pool: PoolSettings, progress: Progress) -> LlmBackend:
    """Each kind of pool loads its own dependencies, and only when it is configured."""
    if isinstance(pool, EndpointPoolSettings):
        from steelyard.pools.endpoint import EndpointTraits, OpenAiEndpointPool  # noqa: PLC0415

        key = ""
        if pool.api_key_env is not None:
            key = secret(pool.api_key_env, f"pools.{name}.api_key_env")
        traits = EndpointTraits(engine=pool.engine, apis=pool.apis)
        return OpenAiEndpointPool(pool.base_urls, pool.models, api_key=key, traits=traits)
    if not isinstance(pool, EmbeddedPoolSettings):
        raise TypeError(f"pool {name} serves no models")
    if pool.task == "embeddings":
        from steelyard.pools.engine.embedding_pool import EmbeddingPool  # noqa: PLC0415

        return EmbeddingPool(replicas=pool.replicas, model_path=pool.model_path, model=pool.model)
    return await _engine_backend(name, pool, progress)


async def _engine_backend(name: str, pool: EmbeddedPoolSettings, progress: Progress) -> LlmBackend:
    from steelyard.pools.engine.adapter import EngineSettings  # noqa: PLC0415
    from steelyard.pools.engine.choice import choose_engine  # noqa: PLC0415
    from steelyard.pools.engine.model import find_model  # noqa: PLC0415
    from steelyard.pools.engine.pool import EmbeddedEnginePool  # noqa: PLC0415

    memory = cache_folder() / "engines.json"
    model = find_model(pool.model_path)
    chosen = await choose_engine(pool.engine, model, processor_description(), memory)
    progress(f"pool {name} runs on {chosen.engine}: {chosen.reason}")
    settings = EngineSettings(
        adapter=chosen.engine, model=pool.model, max_streams=pool.concurrency_cap
    )
    return EmbeddedEnginePool(replicas=pool.replicas, model_path=pool.model_path, settings=settings)
