"""Pools on a real Ray cluster of virtual nodes, from a configuration file to the log."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.pools.ray.conftest import ARM_SPOT, X86, Nodes

from steelyard.config.catalog_table import load_catalog
from steelyard.config.settings import load_settings
from steelyard.domain.decision import Decision
from steelyard.domain.events import AttemptFinished, ReplicaChanged
from steelyard.domain.task import LlmCall, Step, ToolCall
from steelyard.errors import ConfigError
from steelyard.placement.policy import CheapestFeasible
from steelyard.pools.backend import LlmChunk, LlmRequest, ToolRequest
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.live import live_fleet
from steelyard.store.sqlite_log import SqliteEventLog

pytestmark = [
    pytest.mark.ray,
    # Ray's own warnings are not ours.
    pytest.mark.filterwarnings("ignore"),
]
TOOLS = """
[pools.{name}]
kind = "ray"
runs = "tools"
ray_address = "{address}"
labels = {labels}
min_replicas = {least}
max_replicas = {most}
slots = 2
sandbox = "off"
python_paths = ["{paths}"]
"""


def tools_toml(address: str, labels: dict[str, str], least: int, most: int, name: str = "t") -> str:
    told = "{" + ", ".join(f'{key} = "{value}"' for key, value in labels.items()) + "}"
    paths = Path(__file__).parent
    return TOOLS.format(
        name=name, address=address, labels=told, least=least, most=most, paths=paths
    )


@asynccontextmanager
async def fleet(folder: Path, text: str) -> AsyncGenerator[tuple[Dispatcher, list[Any]], None]:
    """A fleet of a configuration, and its events from now on."""
    config = folder / "steelyard.toml"
    config.write_text(text, encoding="utf-8")
    settings = load_settings(config)
    with SqliteEventLog(settings.store.path) as log:
        async with live_fleet(settings, load_catalog(), CheapestFeasible(), log) as dispatcher:
            events: list[Any] = []
            dispatcher.subscribe(events.append)
            yield dispatcher, events


async def run_tool(dispatcher: Dispatcher, task: int, name: str, **arguments: Any) -> Any:
    tool = f"cluster_tools:{name}"
    step = Step(task_id=f"t{task}", step_id=0, agent="a", name=name, call=ToolCall(tool=tool))
    request = ToolRequest(tool=tool, arguments=arguments, timeout_s=150.0)
    _, outcome, _ = await dispatcher.serve_tool(step, request)
    return outcome.result


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not holds():  # noqa: ASYNC110 - another process gives no event
            await asyncio.sleep(0.05)


async def test_labels_that_no_node_has_are_refused_in_one_line(
    nodes: Nodes, tmp_path: Path
) -> None:
    nodes.add(1, X86)
    with pytest.raises(ConfigError, match=r"pools\.t: no node has provider=azure; there are"):
        async with fleet(tmp_path, tools_toml(nodes.address, {"provider": "azure"}, 1, 1)):
            pass
    with pytest.raises(ConfigError, match="room for 1 of 2 replicas"):
        async with fleet(tmp_path, tools_toml(nodes.address, {"provider": "gcp"}, 2, 2)):
            pass


async def test_steps_on_a_lost_node_run_elsewhere_and_none_is_lost_or_doubled(
    nodes: Nodes, tmp_path: Path
) -> None:
    # One replica on each of two nodes, and room for one more on a third.
    lost = nodes.add(1, ARM_SPOT)
    nodes.add(1, X86)
    gate = tmp_path / "gate"
    async with fleet(tmp_path, tools_toml(nodes.address, {"arch": "in(arm64,x86_64)"}, 2, 2)) as (
        dispatcher,
        events,
    ):
        nodes.add(1, X86)
        waits = [
            asyncio.create_task(
                run_tool(
                    dispatcher,
                    number,
                    "note_and_wait",
                    folder=str(tmp_path),
                    mark=f"runs{number}",
                    gate=str(gate),
                )
            )
            for number in range(4)
        ]
        await until(lambda: all((tmp_path / f"runs{n}").exists() for n in range(4)))
        nodes.lose(lost)
        await until(lambda: _ups(events) >= 1)
        gate.touch()
        assert await asyncio.gather(*waits) == [f"runs{n}" for n in range(4)]
        squares = [run_tool(dispatcher, 10 + n, "square", number=n) for n in range(20)]
        assert await asyncio.gather(*squares) == [n * n for n in range(20)]
        ended = [one for one in events if isinstance(one, AttemptFinished)]
        fine = [one.task_id for one in ended if one.outcome == "ok"]
        assert sorted(fine) == sorted({f"t{n}" for n in (*range(4), *range(10, 30))})
        failed = [one.error_code for one in ended if one.outcome == "failed"]
        assert failed == ["pool_unavailable", "pool_unavailable"]


def _ups(events: list[Any]) -> int:
    return sum(isinstance(one, ReplicaChanged) and one.up for one in events)


async def test_a_notice_moves_new_work_and_lets_what_runs_end(nodes: Nodes, tmp_path: Path) -> None:
    leaving = nodes.add(1, ARM_SPOT)
    gate = tmp_path / "gate"
    text = tools_toml(nodes.address, {"arch": "in(arm64,x86_64)"}, 1, 1)
    async with fleet(tmp_path, text) as (dispatcher, events):
        nodes.add(1, X86)
        arguments = {"folder": str(tmp_path), "mark": "old", "gate": str(gate)}
        old = asyncio.create_task(run_tool(dispatcher, 0, "note_and_wait", **arguments))
        await until((tmp_path / "old").exists)
        _notice(nodes.address, leaving)
        await until(lambda: any(isinstance(e, ReplicaChanged) and e.draining for e in events))
        await until(lambda: dispatcher.state.replicas_up("t") == 1)
        # The replica is another actor by now, and the old one still works.
        assert await run_tool(dispatcher, 1, "square", number=3) == 9
        assert not old.done()
        gate.touch()
        assert await old == "old"
        ended = [one for one in events if isinstance(one, AttemptFinished)]
        assert {one.outcome for one in ended} == {"ok"}


def _notice(address: str, node_id: str) -> None:
    """What a node's own watcher calls when the provider announces that it takes it back."""
    subprocess.run(  # noqa: S603 - no shell
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", address),
            *("--node-id", node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION"),
            *("--reason-message", "spot notice", "--deadline-remaining-seconds", "120"),
        ],
        check=True,
        capture_output=True,
    )


async def test_a_queue_brings_another_replica(nodes: Nodes, tmp_path: Path) -> None:
    nodes.add(2, X86)
    gate = tmp_path / "gate"
    text = tools_toml(nodes.address, {"provider": "gcp"}, 1, 2)
    async with fleet(tmp_path, text) as (dispatcher, _):
        assert dispatcher.state.replicas_up("t") == 1
        waits = [
            asyncio.create_task(
                run_tool(
                    dispatcher,
                    number,
                    "note_and_wait",
                    folder=str(tmp_path),
                    mark=f"runs{number}",
                    gate=str(gate),
                )
            )
            for number in range(3)
        ]
        await until(lambda: dispatcher.state.replicas_up("t") == 2)
        gate.touch()
        assert await asyncio.gather(*waits) == ["runs0", "runs1", "runs2"]


@pytest.mark.engine
async def test_an_engine_on_a_node_answers(nodes: Nodes, tmp_path: Path) -> None:
    nodes.add(1, X86)
    text = (
        '[pools.e]\nkind = "ray"\nruns = "engine"\nengine = "openvino"\nprecision = "native"\n'
        f'ray_address = "{nodes.address}"\nlabels = {{ provider = "gcp" }}\n'
    )
    async with fleet(tmp_path, text) as (dispatcher, _):
        model = dispatcher.models()[0]
        call = LlmCall(model=model, input_tokens=20, max_output_tokens=8)
        step = Step(task_id="t", step_id=0, agent="a", name="say", call=call)
        request = LlmRequest(
            kind="chat",
            model=model,
            messages=[{"role": "user", "content": "Say hello."}],
            max_output_tokens=8,
            temperature=0.0,
        )
        items = [item async for item in dispatcher.serve_llm(step, request)]
        assert isinstance(items[0], Decision)
        assert "".join(one.text for one in items if isinstance(one, LlmChunk))


async def test_a_cluster_tells_its_machines_and_takes_a_request_for_more(nodes: Nodes) -> None:
    spot = {"provider": "aws", "region": "us-east-1", "capacity_type": "spot"}
    nodes.add(1, {**spot, "instance_type": "m9g.large"})
    nodes.add(1, {**spot, "instance_type": "m9g.large"})
    program = (
        "import asyncio, sys\n"
        "from steelyard.pools.ray.machines import RayFleet\n"
        "fleet = RayFleet(sys.argv[1])\n"
        "print(asyncio.run(fleet.machines()))\n"
        "fleet.request({'aws/us-east-1/m9g.large/spot': 3}, {'aws/us-east-1/m9g.large/spot': 1})\n"
        "fleet.close()\n"
    )
    # In a process of its own, as the command line is.
    told = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, nodes.address, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await told.communicate()
    assert told.returncode == 0
    assert out.decode().strip() == "{'aws/us-east-1/m9g.large/spot': 2}"
