"""`steelyard run`: agents of a file as durable tasks on local or configured pools."""

import asyncio
import importlib
import re
import signal
import sys
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import uvloop

from steelyard.cli.demo.live import local_pools
from steelyard.config.catalog_table import load_catalog
from steelyard.config.settings import (
    EmbeddedPoolSettings,
    PoolSettings,
    Settings,
    ToolPoolSettings,
    load_settings,
)
from steelyard.domain.events import TaskFinished
from steelyard.errors import ConfigError
from steelyard.gateway.server import serve
from steelyard.gateway.settings import GatewaySettings
from steelyard.placement.baselines import policy_named
from steelyard.pools.endpoint import OpenAiEndpointPool
from steelyard.pools.engine.embedding_model import has_packaged_model
from steelyard.runtime.definitions import AgentTask
from steelyard.runtime.live import live_fleet
from steelyard.runtime.open_tasks import TaskLimits
from steelyard.runtime.worker import Worker
from steelyard.store.event_store import EventStore
from steelyard.store.open_store import open_store

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

AnyAgent = AgentTask[Any, ..., Any]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The task that is asked for.

    Attributes:
        arguments: A JSON object.
        deadline: A duration such as `60s`; None without one.
        budget_usd: What it may cost; None without a limit.
        task_id: Its id; None makes one.
    """

    arguments: str
    deadline: str | None
    budget_usd: float | None
    task_id: str | None

    @property
    def limits(self) -> TaskLimits:
        """Deadline and budget; raises ConfigError when one makes no sense."""
        after_s = None if self.deadline is None else seconds(self.deadline)
        if self.budget_usd is not None and not self.budget_usd > 0.0:
            raise ConfigError(f"--budget is {self.budget_usd} USD; it must be greater than 0")
        return TaskLimits(deadline_after_s=after_s, budget_usd=self.budget_usd)


def seconds(duration: str) -> float:
    """How long is a duration, in seconds?

    Args:
        duration: A number with ms, s, m, h or d; seconds without a unit.

    Raises:
        ConfigError: It is none.

    >>> seconds("90s"), seconds("1.5m"), seconds("2")
    (90.0, 90.0, 2.0)
    """
    found = _DURATION.fullmatch(duration)
    if found is None:
        raise ConfigError(f"{duration!r} is no duration; write a number with ms, s, m, h or d")
    return float(found.group(1)) * _SECONDS[found.group(2) or "s"]


def run_program(program: str, wanted: Wanted, config: Path | None, *, as_json: bool) -> bool:
    """Run one task of a file, or serve its agents until stopped.

    Args:
        program: `FILE.py:AGENT`, or `FILE.py`.
        wanted: The task, where an agent is named.
        config: Configuration; None takes local pools and `steelyard.db`.
        as_json: Print the outcome as JSON.

    Returns:
        Whether the task succeeded; True for serving.

    Raises:
        SteelyardError: The file, the input or the configuration is wrong.
    """
    file, _, name = program.partition(":")
    agents = _agents(Path(file))
    agent = _named(agents, name, file) if name else None
    asked = (wanted.limits, _arguments(wanted.arguments))
    settings = Settings(pools=_pools_here()) if config is None else load_settings(config)
    settings = _with_tools_of(settings, Path(file).resolve().parent)
    task_id = wanted.task_id
    if agent is not None and task_id is None:
        task_id = f"{agent.name}-{uuid.uuid4().hex[:8]}"
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        ended = runner.run(_run(settings, tuple(agents.values()), agent, (task_id, *asked)))
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
    agents: tuple[AnyAgent, ...],
    agent: AnyAgent | None,
    asked: tuple[str | None, TaskLimits, dict[str, Any]],
) -> TaskFinished | None:
    task_id, limits, arguments = asked
    with open_store(settings.store.path) as store:
        async with _worker(settings, store, agents) as worker:
            if agent is None or task_id is None:
                _say(f"serving {', '.join(one.name for one in agents)} from {store.where}")
                await _until_stopped()
                return None
            _say(f"task {task_id} in {store.where}")
            await worker.submit(agent, task_id, limits, arguments)
            return await worker.result(task_id)


@asynccontextmanager
async def _worker(
    settings: Settings, store: EventStore, agents: tuple[AnyAgent, ...]
) -> AsyncGenerator[Worker, None]:
    """Pools, a gateway of their own for the agents' questions, and a worker."""
    policy = policy_named(settings.policy.name)
    async with (
        live_fleet(settings, load_catalog(), policy, store, _say) as dispatcher,
        serve(GatewaySettings(port=0), dispatcher) as server,
    ):
        models = dispatcher.models()
        client = OpenAiEndpointPool([server.base_url], models or ("none",))
        await client.start()
        try:
            gateway = (client, next(iter(_chat_models(settings, models)), "none"))
            async with Worker(store, dispatcher, gateway, agents).working() as worker:
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
    module = importlib.import_module(file.stem)
    # What a user's module holds is known at run time alone.
    found: dict[str, AnyAgent] = {
        name: cast("AnyAgent", one)
        for name, one in vars(module).items()
        if isinstance(one, AgentTask)
    }
    if not found:
        raise ConfigError(f"{file} holds no agent; mark an async function with @steelyard.task()")
    return found


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


def _with_tools_of(settings: Settings, folder: Path) -> Settings:
    """Let tool workers import from the file's folder."""
    pools = {
        name: msgspec.structs.replace(pool, python_paths=(*pool.python_paths, folder))
        if isinstance(pool, ToolPoolSettings)
        else pool
        for name, pool in settings.pools.items()
    }
    return msgspec.structs.replace(settings, pools=pools)


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
