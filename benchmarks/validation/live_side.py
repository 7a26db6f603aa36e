"""The live side of `benchmarks/validate.py`: the fleet, its loads, and profiles in between."""

import argparse
import asyncio
import random
from pathlib import Path

import msgspec
from conversation import conversation
from profiles import Round, profile_round

from steelyard.config.catalog_table import load_catalog
from steelyard.config.pool_settings import EmbeddedPoolSettings, PoolSettings, ToolPoolSettings
from steelyard.config.settings import Settings
from steelyard.domain.events import AttemptFinished, Event, PoolAdded, StepPlaced
from steelyard.domain.pool import PoolSpec
from steelyard.gateway.server import serve
from steelyard.gateway.settings import GatewaySettings
from steelyard.ledger.ledger import Ledger
from steelyard.placement.policy import CheapestFeasible
from steelyard.pools.backend import LlmBackend
from steelyard.pools.endpoint import OpenAiEndpointPool
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.live import live_fleet
from steelyard.runtime.runner import TaskLimits, TaskRunner
from steelyard.store.sqlite_log import SqliteEventLog, read_events

WARM_UP, WARM_UP_TASKS = "warm-", 8
_DEADLINE_S = 60.0


class Live:
    """The live side while it runs.

    Args:
        asked: The command line.
        settings: Pools to run.

    Attributes:
        settings: Pools to run.
        rounds: Profiles around each load, by the load's name and pool.
    """

    def __init__(self, asked: argparse.Namespace, settings: Settings) -> None:
        self.asked = asked
        self.settings = settings
        self.rounds: dict[str, dict[str, list[Round]]] = {}
        self._backends: dict[str, LlmBackend] = {}
        self._taken = 0

    async def run(self, log_path: Path) -> None:
        """Warm up, run every load with profiles around its pieces, and write the log."""
        with SqliteEventLog(log_path) as log:
            async with (
                live_fleet(
                    _with_tools(self.settings), load_catalog(), CheapestFeasible(), log
                ) as dispatcher,
                serve(GatewaySettings(port=0), dispatcher) as server,
            ):
                self._backends = _unmeasured(dispatcher, self.settings)
                client = OpenAiEndpointPool([server.base_url], [self.asked.model])
                await client.start()
                runner = TaskRunner(dispatcher, client, self.asked.model)
                chance = random.Random(self.asked.seed)  # noqa: S311 - arrivals, not secrets
                for at in range(WARM_UP_TASKS):
                    await self._one(runner, f"{WARM_UP}{at}", chance)
                await asyncio.wrap_future(log.durable())
                per_s = _capacity_tasks_per_s(tuple(read_events(log_path)))
                print(f"capacity by the cost function: {per_s:.2f} tasks/s")
                for share in _shares(self.asked):
                    await self._load(runner, share, share * per_s)
                await client.close()

    async def _load(self, runner: TaskRunner, share: float, tasks_per_s: float) -> None:
        rounds = self.rounds[f"{share:g}"] = {name: [] for name in self._backends}
        pieces = self.asked.pieces
        for piece in range(pieces):
            await self._profile(rounds)
            # Whichever is first meets the machine as it is then: they take turns.
            passes = _passes(self.asked)
            for one in passes if piece % 2 == 0 else reversed(passes):
                first = self.asked.tasks * piece // pieces
                numbers = range(first, self.asked.tasks * (piece + 1) // pieces)
                await self._piece(runner, f"{one}{share:g}-", numbers, tasks_per_s)
        await self._profile(rounds)

    async def _piece(
        self, runner: TaskRunner, prefix: str, numbers: range, tasks_per_s: float
    ) -> None:
        # The second pass of a load has the same tasks at the same times.
        chance = random.Random(f"{self.asked.seed} {prefix[1:]}{numbers}")  # noqa: S311
        async with asyncio.TaskGroup() as group:
            for number in numbers:
                group.create_task(self._one(runner, f"{prefix}{number:05d}", chance))
                await asyncio.sleep(chance.expovariate(tasks_per_s))

    async def _one(self, runner: TaskRunner, name: str, chance: random.Random) -> None:
        limits = TaskLimits(deadline_after_s=_DEADLINE_S)
        seed = chance.randrange(1 << 30)
        await runner.run(conversation, name, limits, seed, self.asked.words, _mark(name))

    async def _profile(self, rounds: dict[str, list[Round]]) -> None:
        for name, backend in self._backends.items():
            rounds[name].append(await profile_round(backend, self.asked.model, self._taken))
        self._taken += 1


def _shares(asked: argparse.Namespace) -> list[float]:
    """The loads, as shares of the fleet's capacity."""
    return [float(share) for share in asked.loads.split(",")]


def _passes(asked: argparse.Namespace) -> str:
    """With which letters do the ids of a load's tasks begin, pass by pass?"""
    return "pq" if asked.repeat else "p"


def between_steps_s(ledger: Ledger) -> float:
    """Seconds of a task that are in none of its steps, per step, in the warm-up."""
    tasks = [task for task in ledger.tasks if task.task_id.startswith(WARM_UP)]
    steps = [one for one in ledger.attempts if one.step.task_id.startswith(WARM_UP)]
    whole_s = sum(task.finished_s - task.submitted_s for task in tasks)
    return max(0.0, whole_s - sum(one.latency_s for one in steps)) / max(1, len(steps))


def _mark(name: str) -> str:
    return "Topic" if name.startswith("q") else "Turn"


def _with_tools(settings: Settings) -> Settings:
    """The settings, with the agent's tools in sight."""
    here = Path(__file__).parent
    pools: dict[str, PoolSettings] = {
        name: msgspec.structs.replace(pool, python_paths=(*pool.python_paths, here))
        if isinstance(pool, ToolPoolSettings)
        else pool
        for name, pool in settings.pools.items()
    }
    return msgspec.structs.replace(settings, pools=pools)


def _unmeasured(dispatcher: Dispatcher, settings: Settings) -> dict[str, LlmBackend]:
    """The engines on this machine that bring no figures, as they run."""
    found: dict[str, LlmBackend] = {}
    for name, pool in settings.pools.items():
        if isinstance(pool, EmbeddedPoolSettings) and pool.figures is None:
            names = [spec.name for spec in dispatcher.state.pools if pool.model in spec.llm_curves]
            found[name] = dispatcher.backends(pool.model)[names.index(name)]
    return found


def _capacity_tasks_per_s(events: tuple[Event, ...]) -> float:
    """At how many of the warm-up's tasks per second is the first pool full?"""
    pools: dict[str, PoolSpec] = {}
    used_usd: dict[str, float] = {}
    placed: dict[tuple[str, int], str] = {}
    for event in events:
        if isinstance(event, PoolAdded):
            pools[event.spec.name] = event.spec
        elif isinstance(event, StepPlaced):
            placed[event.step.task_id, event.step.step_id] = event.decision.pool
        elif isinstance(event, AttemptFinished):
            pool = placed[event.task_id, event.step_id]
            used_usd[pool] = used_usd.get(pool, 0.0) + event.cost_usd
    rent_usd_per_s = {
        name: spec.usd_per_hour * spec.replicas / 3600.0 for name, spec in pools.items()
    }
    return min(WARM_UP_TASKS * rent_usd_per_s[name] / usd for name, usd in used_usd.items() if usd)
