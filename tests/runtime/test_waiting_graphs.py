"""Random graphs of steps, sleeps and signals, parked and taken over wherever they wait."""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.domain.events import SignalSent, StepRecorded, TaskFinished, TaskResumed
from steelyard.placement.policy import CheapestFeasible
from steelyard.pools.scripted import ScriptedLlmPool
from steelyard.runtime.clock import WallClock
from steelyard.runtime.context import TaskContext
from steelyard.runtime.definitions import AgentTask
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.open_tasks import TaskLimits
from steelyard.runtime.recorder import Recorder
from steelyard.runtime.worker import Worker, WorkerSettings
from steelyard.store.sqlite_log import SqliteEventLog

# A list of nodes: "step", "sleep", "signal", or a list of graphs, which is a gather of branches.
Graph = list[Any]
leaves = st.sampled_from(["step", "sleep", "signal"])
graphs: st.SearchStrategy[Graph] = st.recursive(
    st.lists(leaves, min_size=1, max_size=3),
    lambda inner: st.lists(
        leaves | st.lists(inner, min_size=1, max_size=3), min_size=1, max_size=3
    ),
    max_leaves=5,
)
# Everything that only waits is parked almost at once.
EAGER = WorkerSettings(lease_s=5.0, look_s=0.01, park_s=0.0)
SLEEP_S = 0.03


def _agent(graph: Graph, ran: Counter[str]) -> AgentTask[Any, [], Any]:
    async def walk(ctx: TaskContext, nodes: Graph, label: str) -> list[Any]:
        found: list[Any] = []
        for place, node in enumerate(nodes):
            name = f"{label}/{place}"
            if node == "step":
                found.append(await ctx.step(step, name))
            elif node == "sleep":
                await ctx.sleep(SLEEP_S)
            elif node == "signal":
                found.append(await ctx.signal("go"))
            else:
                branches: list[Coroutine[Any, Any, list[Any]]] = [
                    walk(ctx, branch, f"{name}.{number}") for number, branch in enumerate(node)
                ]
                found.append(await ctx.gather(*branches))
        return found

    def step(name: str) -> int:
        ran[name] += 1
        return ran[name]

    async def function(ctx: TaskContext) -> list[Any]:
        return await walk(ctx, graph, "")

    return AgentTask(function, "walker")


def _count(graph: Graph) -> Counter[str]:
    found: Counter[str] = Counter()
    for node in graph:
        if isinstance(node, str):
            found[node] += 1
        else:
            for branch in node:
                found += _count(branch)
    return found


def _worker(store: SqliteEventLog, agent: AgentTask[Any, [], Any]) -> Worker:
    dispatcher = Dispatcher(Recorder(WallClock(), store), CheapestFeasible(), {}, {})
    return Worker(store, dispatcher, (ScriptedLlmPool(), "none"), (agent,), EAGER)


async def _run(path: Path, graph: Graph, ran: Counter[str], leave_after_s: float) -> TaskFinished:
    """Run on two workers, of which the first leaves in the middle."""
    agent = _agent(graph, ran)
    with SqliteEventLog(path) as one, SqliteEventLog(path) as two:
        async with _worker(two, agent).working() as stays:
            async with _worker(one, agent).working() as leaves_early:
                await leaves_early.submit(agent, "t", TaskLimits(), {})
                for number in range(_count(graph)["signal"]):
                    one.append(SignalSent(t_s=0.0, task_id="t", name="go", value=number))
                    await asyncio.sleep(leave_after_s)
            return await asyncio.wait_for(stays.result("t"), 30)


@given(graph=graphs, leave_after_s=st.sampled_from([0.0, 0.005, 0.02]))
@settings(max_examples=25, deadline=None)
def test_whatever_waits_is_parked_and_goes_on_with_nothing_lost_or_done_twice(
    graph: Graph, leave_after_s: float
) -> None:
    ran: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.db"
        ended = asyncio.run(_run(path, graph, ran, leave_after_s))
        with SqliteEventLog(path) as store:
            events = store.journal("t").result()
            rows = store.tasks(task_id="t").result()
    assert ended.status == "succeeded", ended.error
    assert [row.state for row in rows] == ["succeeded"]
    recorded = [one for one in events if isinstance(one, StepRecorded)]
    assert Counter(one.kind for one in recorded) == {
        {"step": "local"}.get(kind, kind): count for kind, count in _count(graph).items()
    }
    assert len({one.path for one in recorded}) == len({one.step_id for one in recorded})
    assert len({one.path for one in recorded}) == len(recorded)
    # Every signal was taken once, in the order in which they were sent.
    taken = [one.result for one in recorded if one.kind == "signal"]
    assert taken == sorted(set(taken)) == list(range(_count(graph)["signal"]))
    # A step runs again only where a worker left before it was recorded.
    changes = sum(isinstance(one, TaskResumed) for one in events)
    assert all(count <= 1 + changes for count in ran.values())
