"""From the settings of a pool to a running one: its backend started, watched, calibrated."""

import asyncio
from collections.abc import Callable, Mapping

import msgspec

from steelyard.config.aliases import AliasSettings, aliases_of, with_aliases
from steelyard.config.catalog_table import Catalog, load_catalog
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
from steelyard.config.ray_pools import replica_settings
from steelyard.config.ray_settings import RayPoolSettings
from steelyard.config.spend_caps import capped
from steelyard.domain.pool import PoolSpec, SpendCap
from steelyard.errors import MissingExtraError
from steelyard.pools.aliased import aliased
from steelyard.pools.backend import LlmBackend, ToolBackend
from steelyard.pools.sandbox.confinement import SandboxLimits
from steelyard.pools.sandbox.launch import Sandbox, find_sandbox
from steelyard.runtime.calibration import calibrate, calibrate_embeddings
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.ray_pools import ray_engines, ray_tools

_CALIBRATION_LIMIT_S = 30.0
_NOTHING_TO_RENT = Catalog(offerings=(), llm_fits={}, tool_fits={})
# Told what is being done, for progress displays.
Progress = Callable[[str], None]


class PoolWatch:
    """Tells the dispatcher of replicas that come and go, and of those that did before it was.

    Args:
        pool: Name of the pool.
    """

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self._dispatcher: Dispatcher | None = None
        # The last that was told of each replica, for a dispatcher that comes later.
        self._last: dict[int, tuple[bool, bool, bool]] = {}

    def attach(self, dispatcher: Dispatcher | None) -> None:
        """Tell this dispatcher from now on; first which replicas are down already.

        Args:
            dispatcher: It knows the pool; None to tell nobody.
        """
        self._dispatcher = dispatcher
        for replica, (up, draining, rented) in self._last.items():
            if dispatcher is not None and not up:
                dispatcher.replica_changed(
                    self._pool,
                    replica,
                    up=False,
                    reason="down at the start",
                    draining=draining,
                    rented=rented,
                )

    async def __call__(self, replica: int, up: bool) -> None:
        """A replica came or went."""
        await self.told(replica, up=up, reason="ready" if up else "its process or connection ended")

    async def told(
        self, replica: int, *, up: bool, reason: str, draining: bool = False, rented: bool = True
    ) -> None:
        """A replica came, went or is to go; see `ReplicaChanged`."""
        self._last[replica] = (up, draining, rented)
        if self._dispatcher is not None:
            self._dispatcher.replica_changed(
                self._pool, replica, up=up, reason=reason, draining=draining, rented=rented
            )


class RunningPool(msgspec.Struct, frozen=True, kw_only=True):
    """A pool whose backend runs.

    Attributes:
        settings: What was asked for.
        spec: What is known of it by its models' own names.
        backend: Its backend, which knows no aliases.
        watch: Tells of its replicas.
        aliases: Its model that each further name means.
    """

    settings: PoolSettings
    spec: PoolSpec
    backend: LlmBackend | ToolBackend
    watch: PoolWatch
    aliases: dict[str, str] = {}

    @property
    def known_as(self) -> PoolSpec:
        """What the policy knows of it, by all names of its models."""
        return with_aliases(self.spec, self.aliases)

    @property
    def llm(self) -> LlmBackend | None:
        """Its backend by all names of its models, where it serves any."""
        backend = self.backend
        return None if isinstance(backend, ToolBackend) else aliased(backend, self.aliases)

    @property
    def tools(self) -> ToolBackend | None:
        """Its backend, where it runs tools."""
        return self.backend if isinstance(self.backend, ToolBackend) else None

    async def close(self) -> None:
        """Stop the backend; nobody is told any more."""
        self.watch.attach(None)
        await self.backend.close()


class PoolStarter:
    """Starts pools.

    Args:
        catalog: Prices and speeds; None reads those of the package when a pool names an offering.
        progress: Told what is being done.
        caps: Spend caps by provider; for pools that start from now on.
    """

    def __init__(
        self,
        catalog: Catalog | None,
        progress: Progress,
        caps: Mapping[str, SpendCap] | None = None,
    ) -> None:
        self._catalog = catalog
        self.progress = progress
        self.caps: Mapping[str, SpendCap] = caps or {}

    def spec(self, name: str, pool: PoolSettings) -> PoolSpec:
        """What must the policy know of a pool, its provider's cap included? See `pool_spec`."""
        if isinstance(pool, EndpointPoolSettings) and pool.offering is None:
            # The catalogue takes 12 MB, and a gateway to endpoints alone has no use for it.
            return capped(pool_spec(name, pool, _NOTHING_TO_RENT), self.caps)
        if self._catalog is None:
            self._catalog = load_catalog()
        return capped(pool_spec(name, pool, self._catalog), self.caps)

    async def start(
        self, name: str, pool: PoolSettings, aliases: Mapping[str, AliasSettings]
    ) -> RunningPool:
        """Start a pool, and calibrate it where its figures are not given.

        Args:
            name: Its name.
            pool: What it is.
            aliases: Further names of models, of all pools.

        Returns:
            The pool, which the caller closes.

        Raises:
            ConfigError: It cannot be started as configured.
            PoolUnavailableError: It died while starting.
        """
        spec = self.spec(name, pool)
        watch = PoolWatch(name)
        if spec.tool_curve is not None:
            self.progress(f"starting the tools of pool {name}")
            tools = await _tool_backend(name, pool, watch)
            await tools.start()
            return RunningPool(settings=pool, spec=spec, backend=tools, watch=watch)
        self.progress(f"starting pool {name}")
        backend = await _llm_backend(name, pool, watch, self.progress)
        started = RunningPool(
            settings=pool,
            spec=spec,
            backend=backend,
            watch=watch,
            aliases=aliases_of(name, pool, aliases),
        )
        try:
            await backend.start(watch)
            one = replica_settings(pool) if isinstance(pool, RayPoolSettings) else pool
            if isinstance(one, EmbeddedPoolSettings) and one.figures is None:
                self.progress(f"calibrating pool {name}")
                spec = await _calibrated(spec, one, backend, self.progress)
            spec = with_memory(spec, backend)
        except BaseException:
            await started.close()
            raise
        return msgspec.structs.replace(started, spec=spec)


async def _calibrated(
    spec: PoolSpec, pool: EmbeddedPoolSettings, backend: LlmBackend, progress: Progress
) -> PoolSpec:
    measure = calibrate_embeddings if pool.task == "embeddings" else calibrate
    curve = spec.llm_curves[pool.model]
    try:
        async with asyncio.timeout(_CALIBRATION_LIMIT_S):
            curve = await measure(backend, pool.model, curve)
    except TimeoutError:
        # A start must not hang on a busy machine; steps that run correct the guess.
        progress(
            f"calibrating took over {_CALIBRATION_LIMIT_S:g} s; {pool.model} starts on a guess"
        )
    # An engine may have room for less than the model could read; texts to embed are counted apart.
    context_tokens = getattr(backend, "context_tokens", 0) if pool.task == "generate" else 0
    if context_tokens:
        curve = msgspec.structs.replace(curve, context_tokens=context_tokens)
    return msgspec.structs.replace(spec, llm_curves={pool.model: curve})


def with_memory(spec: PoolSpec, backend: LlmBackend) -> PoolSpec:
    """How many tokens of context does a replica hold? As its engine tells, where it does.

    Args:
        spec: The pool; what its settings say counts.
        backend: Its engines, started. Thin: those of this machine tell, members of a Ray pool and
            endpoints do not.

    Returns:
        The specification with its key-value memory.
    """
    cache_tokens = getattr(backend, "cache_tokens", 0)
    if spec.kv_tokens is not None or not cache_tokens:
        return spec
    return msgspec.structs.replace(spec, kv_tokens=cache_tokens, kv_tokens_source="engine")


async def _tool_backend(name: str, pool: PoolSettings, watch: PoolWatch) -> ToolBackend:
    if isinstance(pool, McpPoolSettings):
        return await _mcp_backend(name, pool)
    if isinstance(pool, RayPoolSettings):
        return ray_tools(name, pool, watch)
    if not isinstance(pool, ToolPoolSettings):
        raise TypeError(f"pool {name} runs no tools")
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


async def _llm_backend(
    name: str, pool: PoolSettings, watch: PoolWatch, progress: Progress
) -> LlmBackend:
    """Each kind of pool loads its own dependencies, and only when it is configured."""
    if isinstance(pool, RayPoolSettings):
        return ray_engines(name, pool, watch)
    if isinstance(pool, EndpointPoolSettings):
        from steelyard.pools.endpoint import OpenAiEndpointPool  # noqa: PLC0415
        from steelyard.pools.endpoint_terms import EndpointTraits  # noqa: PLC0415

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
    chosen = await choose_engine(
        pool.engine, model, processor_description(), memory, pool.precision
    )
    progress(f"pool {name} runs on {chosen}: {chosen.reason}")
    settings = EngineSettings(
        adapter=chosen.engine,
        precision=chosen.precision,
        cache_folder=str(memory.parent),
        model=pool.model,
        max_streams=pool.concurrency_cap,
    )
    return EmbeddedEnginePool(replicas=pool.replicas, model_path=pool.model_path, settings=settings)
