"""`steelyard run`: agents of a file as durable tasks on local or configured pools."""

import asyncio
import importlib
import signal
import sys
import traceback
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import uvloop

from steelyard.cli.demo.live import local_pools
from steelyard.cli.limits import check_id, limits_of, seconds
from steelyard.cli.store_choice import opened_store
from steelyard.cli.telemetry import telling, wants_traces
from steelyard.config.catalog_table import load_catalog
from steelyard.config.limits import LimitSettings
from steelyard.config.pool_settings import EmbeddedPoolSettings, PoolSettings, ToolPoolSettings
from steelyard.config.settings import Settings, load_settings
from steelyard.domain.events import TaskFinished
from steelyard.errors import ConfigError, SteelyardError
from steelyard.gateway.server import serve
from steelyard.gateway.settings import GatewaySettings
from steelyard.placement.baselines import policy_named
from steelyard.pools.endpoint import OpenAiEndpointPool
from steelyard.pools.engine.embedding_model import has_packaged_model
from steelyard.runtime.definitions import AgentTask
from steelyard.runtime.live import live_fleet
from steelyard.runtime.open_tasks import TaskLimits
from steelyard.runtime.worker import TaskOrder, Worker, WorkerSettings
from steelyard.store.event_store import EventStore

AnyAgent = AgentTask[Any, ..., Any]

# Leases are renewed four times in their length: a worker may stall for a part of that.
_LEAST_LEASE_S = 0.5


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The task that is asked for.

    Attributes:
        arguments: A JSON object.
        deadline: A duration such as `60s`; None without one.
        budget_usd: What it may cost; None without a limit.
        task_id: Its id; None makes one.
        priority: Higher ones are taken first.
        key: A second task with the same key is the first one; empty without.
        lease: Duration after which others take over this worker's tasks when it is silent; None
            for the usual one.
    """

    arguments: str
    deadline: str | None
    budget_usd: float | None
    task_id: str | None
    priority: int = 0
    key: str = ""
    lease: str | None = None

    @property
    def worker(self) -> WorkerSettings:
        """How the worker works; raises ConfigError when the lease makes no sense."""
        if self.lease is None:
            return WorkerSettings()
        lease_s = seconds("--lease", self.lease)
        if lease_s < _LEAST_LEASE_S:
            raise ConfigError(
                f"--lease is {lease_s:g} s; take at least {_LEAST_LEASE_S:g} s, or a busy worker "
                "loses its tasks"
            )
        return WorkerSettings(lease_s=lease_s)

    @property
    def names_a_task(self) -> bool:
        """Is anything said that only a task of its own can have?"""
        usual = Wanted(arguments="{}", deadline=None, budget_usd=None, task_id=None)
        return msgspec.structs.replace(self, lease=None) != usual

    @property
    def order(self) -> TaskOrder:
        """Priority and key."""
        return TaskOrder(priority=self.priority, key=self.key)

    @property
    def limits(self) -> TaskLimits:
        """Deadline and budget; raises ConfigError when one makes no sense."""
        return limits_of(self.deadline, self.budget_usd)


class _Served(NamedTuple):
    """What the worker runs, and how."""

    agents: tuple[AnyAgent, ...]
    worker: WorkerSettings


def run_program(
    program: str, wanted: Wanted, config: Path | None, store: str, *, as_json: bool
) -> bool:
    """Run one task of a file, or serve its agents until stopped.

    Args:
        program: `FILE.py:AGENT`, or `FILE.py`.
        wanted: The task, where an agent is named.
        config: Configuration; None takes local pools and `steelyard.db`.
        store: Store instead of the configuration's; empty for that one.
        as_json: Print the outcome as JSON.

    Returns:
        Whether the task succeeded; True for serving.

    Raises:
        SteelyardError: The file, the input or the configuration is wrong.
    """
    file, of_agent, name = program.partition(":")
    if of_agent and not name:
        raise ConfigError(f"{program} names no agent; write {file}:AGENT, or {file} to serve all")
    agents = _agents(Path(file))
    agent = _named(agents, name, file) if name else None
    arguments = _arguments(wanted.arguments)
    if agent is not None:
        _check_arguments(agent, arguments)
    elif wanted.names_a_task:
        raise ConfigError(
            f"{program} names no agent, so that there is no task to give an id, input, deadline, "
            f"budget, priority or key; write {file}:AGENT"
        )
    if wanted.task_id is not None:
        check_id("--id", wanted.task_id)
    asked = (wanted.limits, arguments, wanted.order)
    settings = Settings(pools=_pools_here()) if config is None else load_settings(config)
    settings = _with_tools_of(settings, Path(file).resolve().parent)
    settings = _with_limits_of(settings, tuple(agents.values()))
    task_id = wanted.task_id
    if agent is not None and task_id is None:
        task_id = f"{agent.name}-{uuid.uuid4().hex[:8]}"
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        served = _Served(tuple(agents.values()), wanted.worker)
        ended = runner.run(_run(settings, store, served, agent, (task_id, *asked)))
    if ended is None:
        return True
    _print(ended, as_json=as_json)
    return ended.status == "succeeded"


def _pools_here() -> dict[str, PoolSettings]:
    """The demo's pools, and embeddings where their model is installed.

    The embeddings pay for a core of their own, though they compute beside the tools: on a machine
    with two cores the shares add up to three.
    """
    pools = local_pools()
    if has_packaged_model():
        pools["local-embeddings"] = EmbeddedPoolSettings(task="embeddings")
    return pools


def _chat_models(settings: Settings, models: tuple[str, ...]) -> list[str]:
    """Which of the models generate text?"""
    silent = {
        pool.model
        for pool in settings.pools.values()
        if isinstance(pool, EmbeddedPoolSettings) and pool.task == "embeddings"
    }
    return [model for model in models if model not in silent]


async def _run(
    settings: Settings,
    where: str,
    served: _Served,
    agent: AnyAgent | None,
    asked: tuple[str | None, TaskLimits, dict[str, Any], TaskOrder],
) -> TaskFinished | None:
    task_id, limits, arguments, order = asked
    with opened_store(settings.store, where) as store:
        async with _worker(settings, store, served) as worker:
            if agent is None or task_id is None:
                _say(f"serving {', '.join(one.name for one in served.agents)} from {store.where}")
                await _until_stopped()
                return None
            task_id = await worker.submit(agent, task_id, limits, arguments, order=order)
            _say(f"task {task_id} in {store.where}")
            return await worker.result(task_id)


@asynccontextmanager
async def _worker(
    settings: Settings, store: EventStore, served: _Served
) -> AsyncGenerator[Worker, None]:
    """Pools, a gateway of their own for the agents' questions, and a worker."""
    policy = policy_named(settings.policy.name)
    limits = settings.limits.agents
    agents = tuple(one.limited(limits[one.name].agent_limit()) for one in served.agents)
    async with (
        live_fleet(settings, load_catalog(), policy, store, _say) as dispatcher,
        telling(settings, dispatcher),
        serve(
            GatewaySettings(port=0, traced=wants_traces(settings.telemetry)), dispatcher
        ) as server,
    ):
        models = dispatcher.models()
        client = OpenAiEndpointPool([server.base_url], models or ("none",))
        await client.start()
        try:
            gateway = (client, next(iter(_chat_models(settings, models)), "none"))
            async with Worker(
                store, dispatcher, gateway, agents, served.worker
            ).working() as worker:
                yield worker
        finally:
            await client.close()


async def _until_stopped() -> None:
    stop = asyncio.Event()
    for sign in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sign, stop.set)
    await stop.wait()


def _agents(file: Path) -> dict[str, AnyAgent]:
    """The agents of a file, by the names they have there."""
    if not file.is_file() or file.suffix != ".py":
        raise ConfigError(f"{file} is no Python file; write FILE.py:AGENT, or FILE.py")
    # Under its own name, since tool workers import it by that, too.
    sys.path.insert(0, str(file.resolve().parent))
    try:
        module = importlib.import_module(file.stem)
    except SteelyardError:
        raise
    except Exception as error:  # the CLI's boundary: a user's module raises anything
        raise ConfigError(
            f"{file} cannot be imported: {type(error).__name__}: {error}{_place(error, file)}"
        ) from error
    # What a user's module holds is known at run time alone.
    found: dict[str, AnyAgent] = {
        name: cast("AnyAgent", one)
        for name, one in vars(module).items()
        if isinstance(one, AgentTask)
    }
    if not found:
        raise ConfigError(f"{file} holds no agent; mark an async function with @steelyard.task()")
    return found


def _place(error: BaseException, file: Path) -> str:
    """The line of the user's file in which an error arose."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [one.lineno for one in frames if one.filename == str(file.resolve())]
    return f" (line {lines[-1]})" if lines else ""


def _named(agents: dict[str, AnyAgent], name: str, file: str) -> AnyAgent:
    by_name = {**{one.name: one for one in agents.values()}, **agents}
    if name not in by_name:
        raise ConfigError(f"{file} holds no agent {name}; it holds {', '.join(sorted(agents))}")
    return by_name[name]


def _arguments(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ConfigError(f"--input {text!r} is no JSON object: {error}") from error


def _check_arguments(agent: AnyAgent, arguments: dict[str, Any]) -> None:
    """Refuse what the agent cannot be called with, before there is a task."""
    try:
        agent.arguments(**arguments)
    except TypeError as error:
        raise ConfigError(f"--input does not suit agent {agent.name}: {error}") from error


def _with_tools_of(settings: Settings, folder: Path) -> Settings:
    """Let tool workers import from the file's folder."""
    pools = {
        name: msgspec.structs.replace(pool, python_paths=(*pool.python_paths, folder))
        if isinstance(pool, ToolPoolSettings)
        else pool
        for name, pool in settings.pools.items()
    }
    return msgspec.structs.replace(settings, pools=pools)


def _with_limits_of(settings: Settings, agents: tuple[AnyAgent, ...]) -> Settings:
    """Let the agents' own limits hold where the configuration says nothing of them."""
    own = {one.name: LimitSettings.of(one.limit) for one in agents}
    limits = msgspec.structs.replace(settings.limits, agents={**own, **settings.limits.agents})
    return msgspec.structs.replace(settings, limits=limits)


def _print(ended: TaskFinished, *, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(ended).decode())
        return
    note = " (wrapped up)" if ended.wrapped_up else ""
    _say(f"task {ended.task_id} {ended.status}{note}{': ' if ended.error else ''}{ended.error}")
    if ended.result is not None:
        print(msgspec.json.format(msgspec.json.encode(ended.result)).decode())


def _say(what: str) -> None:
    print(f"steelyard: {what}", file=sys.stderr, flush=True)
