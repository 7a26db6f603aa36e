"""What was decided live is decided again on the log, and both give the same books."""

import asyncio
import random
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest

from steelyard.cli.demo.agent import catalogue_module
from steelyard.config.catalog_table import load_catalog
from steelyard.config.pool_settings import EmbeddedPoolSettings, PoolSettings, ToolPoolSettings
from steelyard.config.settings import Settings
from steelyard.domain.events import Event, PoolAdded, StepPlaced, StepRefused
from steelyard.domain.pool import LlmCurve, PoolSpec, ToolCurve
from steelyard.domain.task import LlmCall, Step, ToolCall
from steelyard.errors import PoolUnavailableError, SteelyardError
from steelyard.gateway.server import serve
from steelyard.gateway.settings import GatewaySettings
from steelyard.ledger.ledger import Ledger
from steelyard.placement.baselines import policy_named
from steelyard.placement.policy import CheapestFeasible, Policy
from steelyard.placement.replay import Replayed, replay
from steelyard.pools.backend import LlmRequest, ToolRequest
from steelyard.pools.endpoint import OpenAiEndpointPool
from steelyard.pools.scripted import ScriptedAnswer, ScriptedLlmPool
from steelyard.pools.scripted_tools import ScriptedToolPool, ScriptedToolRun
from steelyard.runtime.clock import WallClock
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.live import live_fleet
from steelyard.runtime.recorder import Recorder
from steelyard.runtime.runner import TaskLimits, TaskRunner
from steelyard.store.sqlite_log import SqliteEventLog, read_events

TASKS = 60
DOWN = PoolUnavailableError("the replica died")


def _llm_pool(name: str, rent: float, speed: float, replicas: int) -> PoolSpec:
    curve = LlmCurve(
        ttft_floor_s=0.01 / speed,
        prefill_s_per_token=0.001 / speed,
        itl_base_s=0.01 / speed,
        itl_slope_s=0.001,
        concurrency_cap=3,
        context_tokens=4096,
        predicted=True,
        source="made up for tests",
    )
    return _pool(name, rent, replicas, llm_curves={"m": curve})


def _pool(
    name: str,
    rent: float,
    replicas: int,
    llm_curves: dict[str, LlmCurve] | None = None,
    tools: ToolCurve | None = None,
) -> PoolSpec:
    return PoolSpec(
        name=name,
        provider="local",
        region="here",
        arch="x86_64",
        hardware="x86",
        offering="o",
        usd_per_hour=rent,
        replicas=replicas,
        llm_curves=llm_curves or {},
        tool_curve=tools,
    )


def _fleet() -> tuple[PoolSpec, ...]:
    tools = ToolCurve(
        relative_speed=1.5,
        cores=2.0,
        memory_bytes=10_000,
        start_s=0.0,
        slots=2,
        predicted=True,
        source="made up for tests",
    )
    return (
        _llm_pool("slow", 0.1, 1.0, 3),
        _llm_pool("fast", 1.0, 8.0, 1),
        _pool("tools", 0.2, 1, tools=tools),
    )


async def _agent(dispatcher: Dispatcher, number: int, chance: random.Random) -> None:
    """A task of five steps, some cut short; every second one has a deadline that is hard."""
    task_id = f"t{number}"
    deadline_s = dispatcher.now_s() + chance.choice([0.05, 1.0, 60.0]) if number % 2 else None
    dispatcher.open_task(task_id, f"agent-{number % 3}", deadline_s, chance.choice([None, 1e-4]))
    error: SteelyardError | None = None
    try:
        for step_id in range(5):
            step = _step(dispatcher, task_id, step_id, deadline_s, chance)
            if isinstance(step.call, ToolCall):
                await dispatcher.serve_tool(step, ToolRequest(tool="m:f", arguments={}))
            else:
                await _talk(dispatcher, step, cut_off=chance.random() < 0.2)
    except SteelyardError as raised:
        error = raised
    dispatcher.close_task(task_id, "succeeded" if error is None else "failed", error)


def _step(
    dispatcher: Dispatcher,
    task_id: str,
    step_id: int,
    deadline_s: float | None,
    chance: random.Random,
) -> Step:
    terms = dispatcher.task_terms(task_id)
    assert terms is not None
    hashes = tuple(1000 * int(task_id[1:]) + boundary for boundary in range(step_id + 1))
    call = LlmCall(
        model="m",
        input_tokens=100 * (step_id + 1),
        max_output_tokens=chance.randrange(10, 50),
        prefix_hashes=hashes,
        prefix_tokens=tuple(100 * (boundary + 1) for boundary in range(step_id + 1)),
    )
    return Step(
        task_id=task_id,
        step_id=dispatcher.next_step_id(task_id),
        agent=terms.agent,
        name=f"step-{step_id}",
        call=ToolCall(tool="m:f", memory_bytes=100) if step_id % 3 == 2 else call,
        parents=dispatcher.parents(task_id, step_id),
        deadline_s=deadline_s,
        budget_usd=terms.budget_usd,
        on_miss=chance.choice(["run_late", "refuse"]),
    )


async def _talk(dispatcher: Dispatcher, step: Step, *, cut_off: bool) -> None:
    request = LlmRequest(kind="completion", model="m", prompt="x", max_output_tokens=8)
    async with aclosing(dispatcher.serve_llm(step, request)) as items:
        async for _ in items:
            await asyncio.sleep(0)
            if cut_off:
                return


async def _run(log: SqliteEventLog, policy: Policy) -> Ledger:
    recorder = Recorder(WallClock(), log)
    live = Ledger()
    recorder.subscribe(live.apply)
    for spec in _fleet():
        recorder.record(PoolAdded(t_s=recorder.now_s(), spec=spec))
    failing = tuple(
        ScriptedAnswer(error=DOWN) if number % 9 == 4 else ScriptedAnswer(input_tokens=90)
        for number in range(200)
    )
    tool_runs = (ScriptedToolRun(), ScriptedToolRun(error=DOWN), ScriptedToolRun(result=[1]))
    llm = {name: ScriptedLlmPool(failing, model="m") for name in ("slow", "fast")}
    tools = {"tools": ScriptedToolPool(tool_runs * 40)}
    dispatcher = Dispatcher(recorder, policy, llm, tools)
    chance = random.Random(5)  # noqa: S311 - nothing secret
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(_agent(dispatcher, number, chance)) for number in range(TASKS)]
        for number in range(6):
            await asyncio.sleep(0.005)
            dispatcher.replica_changed("slow", number % 3, up=number >= 3, reason="test")
    assert all(task.done() for task in running)
    await asyncio.wrap_future(log.durable())
    return live


@pytest.mark.parametrize("name", ["cheapest_feasible", "normalised_least_load", "prefix_affinity"])
def test_every_decision_of_a_live_run_comes_out_the_same_on_its_log(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / "log.db"
    policy = policy_named(name)
    with SqliteEventLog(path) as log:
        live = asyncio.run(_run(log, policy))
    events = list(read_events(path))
    replayed = list(replay(events, policy))
    asked = [event for event in events if isinstance(event, StepPlaced | StepRefused)]
    assert len(replayed) == len(asked) > TASKS
    assert [one.step for one in replayed if not one.same] == []
    assert Ledger.of(events) == live
    # The run was a hard one: retries, cancellations, failures.
    assert {attempt.outcome for attempt in live.attempts} == {"ok", "failed", "cancelled"}
    assert max(attempt.step.attempt for attempt in live.attempts) > 0


def test_a_changed_log_is_found_out(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with SqliteEventLog(path) as log:
        asyncio.run(_run(log, CheapestFeasible()))
    changed: list[Event] = []
    for event in read_events(path):
        if isinstance(event, StepPlaced) and not any(isinstance(e, StepPlaced) for e in changed):
            decision = msgspec.structs.replace(event.decision, predicted_cost_usd=1e-9)
            changed.append(msgspec.structs.replace(event, decision=decision))
        else:
            changed.append(event)
    differing = [one for one in replay(changed, CheapestFeasible()) if not one.same]
    assert differing[0].step.key == next(
        event.step.key for event in changed if isinstance(event, StepPlaced)
    )


def test_another_policy_can_be_compared(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with SqliteEventLog(path) as log:
        asyncio.run(_run(log, CheapestFeasible()))
    replayed: list[Replayed] = list(replay(read_events(path), policy_named("round_robin")))
    assert any(not one.same for one in replayed)
    assert {one.decided.policy for one in replayed} == {"round_robin"}


@pytest.mark.engine
def test_a_run_of_real_agents_on_the_real_engine_is_replayed_exactly(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    modules = ("bisect", "sched", "fnmatch")
    with SqliteEventLog(path) as log:
        live = asyncio.run(_run_agents(log, modules))
    events = list(read_events(path))
    replayed = list(replay(events, CheapestFeasible()))
    assert len(replayed) == 4 * len(modules)
    assert [one.step for one in replayed if not one.same] == []
    again = Ledger.of(events)
    assert again == live
    assert [task.status for task in again.tasks] == ["succeeded"] * len(modules)
    assert again.cost_usd == live.cost_usd > 0.0


async def _run_agents(log: SqliteEventLog, modules: tuple[str, ...]) -> Ledger:
    pools: dict[str, PoolSettings] = {
        "llm": EmbeddedPoolSettings(),
        "tools": ToolPoolSettings(slots=1),
    }
    model = EmbeddedPoolSettings().model
    live = Ledger()
    async with (
        live_fleet(Settings(pools=pools), load_catalog(), CheapestFeasible(), log) as fleet,
        serve(GatewaySettings(port=0), fleet) as server,
    ):
        for spec in fleet.state.pools:
            live.apply(PoolAdded(t_s=fleet.now_s(), spec=spec))
        fleet.subscribe(live.apply)
        client = OpenAiEndpointPool([server.base_url], [model])
        await client.start()
        runner = TaskRunner(fleet, client, model)
        limits = TaskLimits(deadline_after_s=60.0, budget_usd=0.01)
        await asyncio.gather(*(runner.run(catalogue_module, m, limits, m) for m in modules))
        await client.close()
    return live
