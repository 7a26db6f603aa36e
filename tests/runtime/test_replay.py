"""Random task graphs, stopped anywhere: a replay takes the same path and repeats no result."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.domain.events import Event, StepRecorded, TaskFinished, TaskSubmitted
from steelyard.errors import NondeterminismError
from steelyard.placement.policy import CheapestFeasible
from steelyard.pools.scripted import ScriptedLlmPool
from steelyard.runtime.clock import WallClock
from steelyard.runtime.context import TaskContext
from steelyard.runtime.definitions import AgentTask
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.journal import Journal
from steelyard.runtime.open_tasks import TaskTerms
from steelyard.runtime.recorder import Recorder
from steelyard.runtime.runner import TaskOutcome, TaskRunner
from steelyard.store.event_log import MemoryEventLog

# A graph is a list of nodes: a number is a step that takes so many turns of the event loop, a list
# of graphs is a gather of branches.
Graph = list[Any]
graphs: st.SearchStrategy[Graph] = st.recursive(
    st.lists(st.integers(0, 4), min_size=1, max_size=4),
    lambda inner: st.lists(
        st.integers(0, 4) | st.lists(inner, min_size=1, max_size=3), min_size=1, max_size=4
    ),
    max_leaves=8,
)


class World:
    """What steps draw from: every run of a step gets another number."""

    def __init__(self) -> None:
        self.numbers = itertools.count()
        self.runs: Counter[str] = Counter()

    async def draw(self, label: str, turns: int, late: int) -> int:
        self.runs[label] += 1
        for _ in range(turns * late):
            await asyncio.sleep(0)
        return next(self.numbers)


def _agent(graph: Graph, world: World, late: list[int]) -> AgentTask[Any, [], Any]:
    async def walk(ctx: TaskContext, nodes: Graph, label: str) -> list[Any]:
        found: list[Any] = []
        for place, node in enumerate(nodes):
            name = f"{label}/{place}"
            if isinstance(node, int):
                found.append(await ctx.step(step, name, node))
            else:
                branches: list[Coroutine[Any, Any, list[Any]]] = [
                    walk(ctx, branch, f"{name}.{number}") for number, branch in enumerate(node)
                ]
                found.append(await ctx.gather(*branches))
        return found

    async def step(name: str, turns: int) -> int:
        return await world.draw(name, turns, late[0])

    async def function(ctx: TaskContext) -> list[Any]:
        return await walk(ctx, graph, "")

    return AgentTask(function, "walker")


def _run(agent: AgentTask[Any, [], Any], log: MemoryEventLog) -> TaskOutcome:
    dispatcher = Dispatcher(Recorder(WallClock(), log), CheapestFeasible(), {}, {})
    runner = TaskRunner(dispatcher, ScriptedLlmPool(), "none")
    terms = TaskTerms(agent=agent.name, deadline_s=None, budget_usd=None)

    async def drive() -> TaskOutcome:
        journal: Journal = dispatcher.take_task("t", terms, tuple(log.events))
        return await runner.drive(runner.prepare(agent, "t", terms, journal, {}), terms)

    return asyncio.run(drive())


def _until(events: list[Event], count: int) -> MemoryEventLog:
    """A log that was cut off by a crash."""
    log = MemoryEventLog()
    log.events = events[:count]
    return log


@given(graph=graphs, cut_frac=st.floats(0.0, 1.0), late=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_a_replay_from_any_point_keeps_every_recorded_result(
    graph: Graph, cut_frac: float, late: int
) -> None:
    world, pace = World(), [1]
    agent = _agent(graph, world, pace)
    log = _until([TaskSubmitted(t_s=0.0, task_id="t", agent="walker")], 1)
    whole = _run(agent, log)
    assert whole.status == "succeeded", whole.error
    once = dict(world.runs)
    assert set(once.values()) <= {1}

    # The crash leaves a first part of the log; the second run has another timing.
    cut = _until(log.events, 1 + round(cut_frac * (len(log.events) - 2)))
    kept = {one.path: one.result for one in cut.events if isinstance(one, StepRecorded)}
    pace[0] = late
    again = _run(agent, cut)
    assert again.status == "succeeded", again.error
    recorded = [one for one in cut.events if isinstance(one, StepRecorded)]
    assert len({one.path for one in recorded}) == len(recorded) == len(once)
    assert len({one.step_id for one in recorded}) == len(recorded)
    results = {one.path: one.result for one in recorded}
    assert kept.items() <= results.items()
    assert sum(world.runs.values()) == 2 * len(once) - len(kept)
    # A third run replays all of it, runs nothing, and returns the same.
    before = sum(world.runs.values())
    done = _until([one for one in cut.events if not isinstance(one, TaskFinished)], 10**6)
    third = _run(agent, done)
    assert (third.status, third.result) == ("succeeded", again.result)
    assert sum(world.runs.values()) == before


@given(graph=graphs, data=st.data())
@settings(max_examples=30, deadline=None)
def test_a_replay_of_another_program_is_refused(graph: Graph, data: st.DataObject) -> None:
    world = World()
    log = _until([TaskSubmitted(t_s=0.0, task_id="t", agent="walker")], 1)
    _run(_agent(graph, world, [1]), log)
    steps = [number for number, node in enumerate(graph) if isinstance(node, int)]
    if not steps:
        return
    place = data.draw(st.sampled_from(steps))
    other = [*graph[:place], graph[place] + 10, *graph[place + 1 :]]
    done = _until(log.events, len(log.events) - 1)
    outcome = _run(_agent(other, world, [0]), done)
    assert outcome.status == "failed"
    assert "asks for" in outcome.error


def test_a_program_that_ends_early_is_told_which_step_it_left_out() -> None:
    world = World()
    log = _until([TaskSubmitted(t_s=0.0, task_id="t", agent="walker")], 1)
    _run(_agent([1, 2], world, [1]), log)
    outcome = _run(_agent([1], world, [1]), _until(log.events, len(log.events) - 1))
    assert outcome.status == "failed"
    assert "without asking for its recorded local step 'step' at 1" in outcome.error
    assert NondeterminismError.code == "nondeterminism"


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_step_numbers_are_never_used_twice(cut: int) -> None:
    world = World()
    log = _until([TaskSubmitted(t_s=0.0, task_id="t", agent="walker")], 1)
    graph: Graph = [[[4, 0], [0, 4], [2]]]
    _run(_agent(graph, world, [3]), log)
    cut_log = _until(log.events, cut)
    _run(_agent(graph, world, [0]), cut_log)
    numbers = [one.step_id for one in cut_log.events if isinstance(one, StepRecorded)]
    assert sorted(numbers) == sorted(set(numbers))
