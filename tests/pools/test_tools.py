"""Tools in real worker processes."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from steelyard.errors import (
    PoolRejectedError,
    PoolTimeoutError,
    PoolUnavailableError,
    ToolFailedError,
)
from steelyard.pools.backend import ToolBackend, ToolOutcome, ToolRequest
from steelyard.pools.tools import ProcessToolPool

MIB = 1024 * 1024


@pytest.fixture
async def pool() -> AsyncIterator[ProcessToolPool]:
    pool = ProcessToolPool(slots=1, python_paths=(str(Path(__file__).parent),))
    await pool.start()
    yield pool
    await pool.close()


async def run(pool: ToolBackend, name: str, **arguments: Any) -> ToolOutcome:
    return await pool.run(ToolRequest(tool=f"sample_tools:{name}", arguments=arguments))


async def test_returns_the_result_and_what_the_call_used(pool: ProcessToolPool) -> None:
    outcome = await run(pool, "burn", cpu_s=0.05)
    assert outcome.result > 0
    assert outcome.cpu_s >= 0.05
    assert outcome.wall_s >= 0.05
    assert outcome.max_memory_bytes > MIB


async def test_counts_the_peak_memory_of_each_call_on_its_own(pool: ProcessToolPool) -> None:
    large = await run(pool, "take", size_bytes=100 * MIB)
    small = await run(pool, "add", a=1, b=2)
    assert small.result == 3
    assert large.max_memory_bytes - small.max_memory_bytes > 50 * MIB


async def test_waiting_costs_wall_time_and_no_cpu_time(pool: ProcessToolPool) -> None:
    outcome = await run(pool, "sleep", wall_s=0.2)
    assert outcome.wall_s >= 0.2
    assert outcome.cpu_s < outcome.wall_s


async def test_keeps_its_worker_warm_over_calls_and_failures(pool: ProcessToolPool) -> None:
    first = (await run(pool, "pid")).result
    with pytest.raises(ToolFailedError):
        await run(pool, "fail", message="no")
    assert (await run(pool, "pid")).result == first


async def test_names_type_and_message_of_a_tool_that_raises(pool: ProcessToolPool) -> None:
    with pytest.raises(ToolFailedError, match="sample_tools:fail raised ValueError: too odd"):
        await run(pool, "fail", message="too odd")
    with pytest.raises(ToolFailedError, match="SystemExit: 7"):
        await run(pool, "leave")


@pytest.mark.parametrize("tool", ["sample_tools:nothing", "no_such_module:x", "add", ":", "json:"])
async def test_rejects_unknown_tools(pool: ProcessToolPool, tool: str) -> None:
    with pytest.raises(PoolRejectedError, match="No tool"):
        await pool.run(ToolRequest(tool=tool, arguments={}))


async def test_rejects_arguments_that_are_no_json(pool: ProcessToolPool) -> None:
    with pytest.raises(PoolRejectedError, match="cannot be sent"):
        await run(pool, "add", a=object(), b=1)


async def test_fails_a_result_that_is_no_json(pool: ProcessToolPool) -> None:
    with pytest.raises(ToolFailedError, match="not_json"):
        await run(pool, "not_json")


async def test_kills_a_tool_that_takes_too_long_and_goes_on(
    pool: ProcessToolPool, tmp_path: Path
) -> None:
    marker = tmp_path / "pid"
    request = ToolRequest(
        tool="sample_tools:spawn_and_sleep", arguments={"marker": str(marker)}, timeout_s=1.5
    )
    with pytest.raises(PoolTimeoutError, match=r"longer than 1\.5 s"):
        await pool.run(request)
    # What the tool has started is killed with it.
    await gone(int(marker.read_text()))
    assert (await run(pool, "add", a=2, b=2)).result == 4


async def gone(pid: int) -> None:
    async with asyncio.timeout(10):
        while is_alive(pid):  # noqa: ASYNC110 - a foreign process gives no event
            await asyncio.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_a_dying_worker_is_unavailable_and_comes_back(pool: ProcessToolPool) -> None:
    with pytest.raises(PoolUnavailableError, match="died"):
        await run(pool, "die")
    assert (await run(pool, "add", a=2, b=3)).result == 5


async def test_limits_the_memory_of_a_call_only(pool: ProcessToolPool) -> None:
    request = ToolRequest(
        tool="sample_tools:take", arguments={"size_bytes": 512 * MIB}, memory_bytes=64 * MIB
    )
    with pytest.raises(ToolFailedError, match="MemoryError"):
        await pool.run(request)
    assert (await run(pool, "take", size_bytes=100 * MIB)).result == 100 * MIB


async def test_cancelling_the_caller_kills_the_call(pool: ProcessToolPool) -> None:
    (worker,) = pool.pids()
    call = asyncio.create_task(run(pool, "sleep", wall_s=600))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await run(pool, "pid")).result in {worker, *pool.pids()}


async def test_workers_die_with_a_caller_that_is_killed() -> None:
    program = (
        "import asyncio\n"
        "from steelyard.pools.tools import ProcessToolPool\n"
        "async def main():\n"
        "    pool = ProcessToolPool(slots=1)\n"
        "    await pool.start()\n"
        "    print(pool.pids()[0], flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    caller = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )
    assert caller.stdout is not None
    worker = int(await caller.stdout.readline())
    assert is_alive(worker)
    caller.kill()
    await caller.wait()
    await gone(worker)


async def test_stray_prints_do_not_reach_the_pipe(pool: ProcessToolPool) -> None:
    assert (await run(pool, "shout", text="\x00\x00\x00\x01stray")).result.endswith("stray")


async def test_runs_coroutine_functions(pool: ProcessToolPool) -> None:
    assert (await run(pool, "answer_later")).result == 42


async def test_closing_fails_calls_that_run_and_that_wait() -> None:
    pool = ProcessToolPool(slots=1, python_paths=(str(Path(__file__).parent),))
    await pool.start()
    calls = [asyncio.create_task(run(pool, "sleep", wall_s=600)) for _ in range(3)]
    await asyncio.sleep(0)
    await pool.close()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [PoolUnavailableError] * 3
    with pytest.raises(PoolUnavailableError, match="not started"):
        await run(pool, "pid")


async def test_runs_as_many_at_once_as_it_has_slots() -> None:
    pool = ProcessToolPool(slots=2, python_paths=(str(Path(__file__).parent),))
    await pool.start()
    try:
        outcomes = await asyncio.gather(*(run(pool, "sleep", wall_s=0.2) for _ in range(2)))
        assert [outcome.result for outcome in outcomes] == ["slept", "slept"]
        assert len(set(pool.pids())) == 2
        assert os.getpid() not in pool.pids()
    finally:
        await pool.close()
