"""The demo's first half: start engine and gateway, run the agents, record everything."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import uvloop

from steelyard.cli.demo.agent import MODULES, catalogue_module
from steelyard.config.catalog_table import Catalog
from steelyard.config.choices import EngineChoice
from steelyard.config.environment import usable_cores
from steelyard.config.pool_settings import (
    EmbeddedPoolSettings,
    PoolSettings,
    ToolPoolSettings,
)
from steelyard.config.settings import Settings
from steelyard.errors import SandboxUnavailableError
from steelyard.gateway.server import serve
from steelyard.gateway.settings import GatewaySettings
from steelyard.placement.policy import CheapestFeasible
from steelyard.pools.endpoint import OpenAiEndpointPool
from steelyard.pools.engine.choice import installed_engines
from steelyard.pools.sandbox.confinement import SandboxLimits
from steelyard.pools.sandbox.launch import find_sandbox
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.live import live_fleet
from steelyard.runtime.runner import TaskLimits, TaskOutcome, TaskRunner
from steelyard.store.sqlite_log import SqliteEventLog

MODEL = "smollm2-135m"
LIMITS = TaskLimits(deadline_after_s=60.0, budget_usd=0.0005)
_TOOL_POOL = "local-tools"
# Tasks in flight at once; each is an agent waiting for its own steps.
_TASKS_AT_ONCE = 8

Say = Callable[[str], None]
# (tasks done, all tasks)
Tick = Callable[[int, int], None]


def local_pools() -> dict[str, PoolSettings]:
    """The pools that every machine can offer: engines on all cores but one, tools on that one.

    Each core is priced once, so that the costs add up to the machine's rent. Which library or
    precision is the fastest is not measured, as `up` does: that takes longer than the demo.
    """
    engines = max(1, usable_cores() - 1)
    installed = installed_engines()
    library: EngineChoice = installed[0] if installed else "auto"
    return {
        "local-llm": EmbeddedPoolSettings(
            replicas=engines, model=MODEL, engine=library, precision="native"
        ),
        _TOOL_POOL: ToolPoolSettings(slots=2, cores=1.0),
    }


def run_agents(
    log_path: Path, pools: dict[str, PoolSettings], catalog: Catalog, say: Say, tick: Tick
) -> list[TaskOutcome]:
    """Run one task per module through a real gateway, and record the log.

    Args:
        log_path: Where the event log goes; an old one is replaced.
        pools: What to run on.
        catalog: Prices and speeds.
        say: Told of every stage.
        tick: Told whenever a task has ended.

    Returns:
        How the tasks ended, in the order of `MODULES`.
    """
    for stale in (log_path, *(log_path.with_name(log_path.name + end) for end in ("-wal", "-shm"))):
        stale.unlink(missing_ok=True)
    with (
        SqliteEventLog(log_path) as log,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(_run(log, Settings(pools=pools), catalog, say, tick))


async def _confined(pools: dict[str, PoolSettings], say: Say) -> dict[str, PoolSettings]:
    """Let the demo run on a machine that cannot confine tools, and say so.

    The demo's tools are our own, and read nothing but the standard library. Everywhere else such a
    machine is refused.
    """
    try:
        await find_sandbox("auto", SandboxLimits())
    except SandboxUnavailableError as error:
        say(f"the demo's own tools run without a sandbox: {error}")
        tools = ToolPoolSettings(slots=2, cores=1.0, sandbox="off")
        return {**pools, _TOOL_POOL: tools}
    return pools


async def _run(
    log: SqliteEventLog, settings: Settings, catalog: Catalog, say: Say, tick: Tick
) -> list[TaskOutcome]:
    pools = await _confined(settings.pools, say)
    settings = msgspec.structs.replace(settings, pools=pools)
    async with (
        live_fleet(settings, catalog, CheapestFeasible(), log, say) as dispatcher,
        serve(GatewaySettings(port=0), dispatcher) as server,
    ):
        say(f"running {len(MODULES)} agents through the gateway at {server.base_url}")
        client = OpenAiEndpointPool([server.base_url], [MODEL])
        await client.start()
        try:
            return await _run_all(dispatcher, client, tick)
        finally:
            await client.close()


async def _run_all(
    dispatcher: Dispatcher, client: OpenAiEndpointPool, tick: Tick
) -> list[TaskOutcome]:
    runner = TaskRunner(dispatcher, client, MODEL)
    places = asyncio.Semaphore(_TASKS_AT_ONCE)
    done = 0

    async def one(module: str) -> TaskOutcome:
        nonlocal done
        async with places:
            outcome = await runner.run(catalogue_module, f"demo-{module}", LIMITS, module)
        done += 1
        tick(done, len(MODULES))
        return outcome

    async with asyncio.TaskGroup() as group:
        running = [group.create_task(one(module)) for module in MODULES]
    return [task.result() for task in running]
