"""Ten no-op nodes per thread on LangGraph, durability=sync; see benchmarks/tasks.py.

Called as `python tasks_langgraph.py PATH TASKS`. Prints one JSON object.
"""

import asyncio
import itertools
import json
import resource
import sys
import time
import uuid
from typing import TypedDict

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import StateGraph

PATH, TASKS = sys.argv[1], int(sys.argv[2])


class State(TypedDict):
    """What nodes hand on."""

    number: int


async def noop(state: State) -> State:
    """Count."""
    return {"number": state["number"] + 1}


def graph_of(saver: AsyncSqliteSaver):  # type: ignore[no-untyped-def]  # noqa: ANN201
    """Ten nodes in a row."""
    graph = StateGraph(State)
    names = [f"n{number}" for number in range(10)]
    for name in names:
        graph.add_node(name, noop)
    graph.set_entry_point(names[0])
    for before, after in itertools.pairwise(names):
        graph.add_edge(before, after)
    graph.set_finish_point(names[-1])
    return graph.compile(checkpointer=saver)


def cpu_s() -> float:
    """CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def main() -> None:
    """Measure."""
    async with AsyncSqliteSaver.from_conn_string(PATH) as saver:
        await saver.conn.execute("PRAGMA journal_mode=WAL")
        await saver.conn.execute("PRAGMA synchronous=FULL")
        graph = graph_of(saver)
        places = asyncio.Semaphore(100)

        async def one(_: int) -> None:
            async with places:
                config = {"configurable": {"thread_id": uuid.uuid4().hex}}
                await graph.ainvoke({"number": 0}, config, durability="sync")

        await one(0)
        few = max(10, TASKS // 5)
        start_s, start_cpu_s = time.perf_counter(), cpu_s()
        for number in range(few):
            await one(number)
        sequential = few / (time.perf_counter() - start_s)
        sequential_cpu_s = 1000 * (cpu_s() - start_cpu_s) / few
        start_s, start_cpu_s = time.perf_counter(), cpu_s()
        await asyncio.gather(*(one(number) for number in range(TASKS)))
        concurrent = TASKS / (time.perf_counter() - start_s)
    told = {
        "sequential": sequential,
        "concurrent": concurrent,
        "cpu_s_sequential": sequential_cpu_s,
        "cpu_s_concurrent": 1000 * (cpu_s() - start_cpu_s) / TASKS,
    }
    print(json.dumps(told), flush=True)


asyncio.run(main())
