"""Two versions of Steelyard on one log: the one before keys and whole requests, and this one.

The older one is real: its source is taken from the repository's history.
"""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import get_args

import aiohttp
import pytest
from msgspec.structs import replace
from tests.cli.test_reload import Upstream, pool, until, upstreams
from tests.store.postgres_server import MISSING, PostgresServer, postgres_server

from steelyard.domain.decision import Decision, PoolVerdict, Refusal, Verdict
from steelyard.domain.events import (
    HEDGED_AWAY,
    AttemptFinished,
    Event,
    PoolRemoved,
    RequestServed,
    StepPlaced,
    StepRefused,
    TaskFinished,
    TaskSubmitted,
    Usage,
)
from steelyard.domain.task import LlmCall, Step
from steelyard.store.event_store import read_store
from steelyard.store.open_store import open_store
from steelyard.store.tasks import Submission

REPOSITORY = Path(__file__).resolve().parent.parent.parent
# The last versions whose logs were of version 3, and of version 4.
OLDER, LATER = "2000b82", "a77ddf1"
PROGRAM = [sys.executable, "-m", "steelyard"]
READ = (
    "import sys; from steelyard.store.event_store import read_store;"
    "from steelyard.store.open_store import open_store;"
    "store = open_store(sys.argv[1]); print(sum(1 for _ in read_store(store))); store.close()"
)
AGENT = """
import steelyard

async def ask(ctx, what):
    said = [{"role": "user", "content": what}]
    return (await ctx.llm(said, model="m", step=what, max_output_tokens=9)).text

@steelyard.task()
async def two(ctx):
    return await ask(ctx, "one") + await ask(ctx, "two")
"""


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The older version's source."""
    return _source(OLDER, tmp_path_factory.mktemp("older"))


def _source(commit: str, folder: Path) -> Path:
    command = ["git", "-C", str(REPOSITORY), "archive", commit, "src"]
    packed = subprocess.run(command, capture_output=True, check=False)  # noqa: S603
    if packed.returncode:
        pytest.skip(f"the repository's history does not reach back to {commit}")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder / "src"


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    if MISSING:
        pytest.skip(f"PostgreSQL is not installed: {MISSING}")
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "log.db")
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


class Version:
    """The program of one version in a folder of its own, on a store that others use, too."""

    def __init__(self, folder: Path, where: str, source: Path | None, upstream: Upstream) -> None:
        self.where = where
        self.folder = folder
        self.folder.mkdir()
        state = str(folder / "state")
        self.env = {**os.environ, "XDG_STATE_HOME": state, "PYTHONDONTWRITEBYTECODE": "1"}
        if source is not None:
            self.env["PYTHONPATH"] = str(source)
        text = f"[gateway]\nport = 0\n{pool(upstream)}"
        (folder / "steelyard.toml").write_text(text, encoding="utf-8")
        (folder / "agent.py").write_text(AGENT, encoding="utf-8")

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *arguments,
            cwd=self.folder,
            env=self.env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def program(self, *arguments: str) -> tuple[int | None, str, str]:
        process = await self.start(*PROGRAM, *arguments)
        out, told = await asyncio.wait_for(process.communicate(), 120.0)
        return process.returncode, out.decode(), told.decode()

    async def events_read(self) -> int:
        process = await self.start(sys.executable, "-c", READ, self.where)
        out, told = await asyncio.wait_for(process.communicate(), 120.0)
        assert process.returncode == 0, told.decode()
        return int(out)

    @asynccontextmanager
    async def up(self) -> AsyncGenerator["Gateway", None]:
        process = await self.start(*PROGRAM, "up", "--store", self.where)
        gateway = Gateway(process)
        try:
            await gateway.wait()
            yield gateway
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.communicate(), 60.0)
            assert process.returncode == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()


class Gateway:
    """One that runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.told = ""
        self.base_url = ""

    async def wait(self) -> None:
        assert self.process.stderr is not None
        async with asyncio.timeout(60.0):
            while not self.base_url:
                line = (await self.process.stderr.readline()).decode()
                assert line, self.told
                self.told += line
                if "serving" in line:
                    self.base_url = line.split(" at ")[1].split(" ")[0]

    async def ask(self, task: str = "") -> None:
        asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
        headers = {"Steelyard-Task": task} if task else {}
        url = f"{self.base_url}/chat/completions"
        async with (
            aiohttp.ClientSession() as http,
            http.post(url, json=asked, headers=headers) as response,
        ):
            told = await response.text()
        assert told.endswith("data: [DONE]\n\n"), told


def _stored(where: str) -> list[Event]:
    with open_store(where) as store:
        return list(read_store(store))


def _kinds(where: str) -> Counter[str]:
    with open_store(where) as store:
        bodies = [json.loads(body) for _, body in store.events().result()]
    return Counter(body["type"] for body in bodies)


async def test_old_and_new_share_a_log_until_it_is_upgraded(
    tmp_path: Path, where: str, older: Path
) -> None:
    async with upstreams("up") as up:
        old = Version(tmp_path / "old", where, older, up["up"])
        new = Version(tmp_path / "new", where, None, up["up"])
        async with old.up() as before:
            await before.ask("old-1")
            async with new.up() as after:
                assert "is of version 3" in after.told
                asked = [one.ask(name) for one in (before, after) for name in ("", "", "")]
                await asyncio.gather(*asked, before.ask("old-2"), after.ask("new-1"))
                # The old one leaves; the new one serves on.
                before.process.send_signal(signal.SIGTERM)
                await asyncio.gather(after.ask(), after.ask("new-2"))
        # Back to the old version: nothing is in its way, it reads all that the new one wrote.
        async with old.up() as again:
            await again.ask("old-3")
        assert await old.events_read() == len(_stored(where))
        assert str(RequestServed.__struct_config__.tag) not in _kinds(where)

        code, told, _ = await new.program("upgrade", "--store", where)
        assert (code, "was of version 3" in told) == (0, True)
        code, _, refused = await old.program("up", "--store", where)
        assert (code, "version" in refused, refused.count("\n")) == (2, True, 1), refused
        async with new.up() as last:
            assert "of version 3" not in last.told
            await last.ask("new-3")
            # Over the connection that is there by now; without one, a request goes the long way.
            await last.ask()
        assert _kinds(where)[str(RequestServed.__struct_config__.tag)] == 1
        ends = [one for one in _stored(where) if isinstance(one, TaskFinished)]
        assert up["up"].served == 14
    # Every request has ended once and for all: those without a name are tasks of their own.
    assert Counter(one.status for one in ends) == {"succeeded": 8}
    attempts = [one for one in _stored(where) if isinstance(one, AttemptFinished)]
    assert Counter(one.outcome for one in attempts) == {"ok": 14}


async def test_a_task_of_a_worker_that_was_killed_goes_on_in_the_new_version(
    tmp_path: Path, where: str, older: Path
) -> None:
    async with upstreams("up", hold_s=0.5) as up:
        old = Version(tmp_path / "old", where, older, up["up"])
        new = Version(tmp_path / "new", where, None, up["up"])
        run = ("run", "agent.py:two", "--id", "t", "--lease", "1s", "--store", where)
        options = ("--config", "steelyard.toml")
        process = await old.start(*PROGRAM, *run, *options)
        await until(lambda: up["up"].served == 2)
        process.kill()
        await process.communicate()
        code, out, told = await new.program(*run, *options)
        assert code == 0, told
        assert out.strip() == '"up..up.."'
        # The first step's answer was on disk, the second's was not.
        assert up["up"].served == 3
    oks = [one for one in _stored(where) if isinstance(one, AttemptFinished)]
    assert Counter(one.step_id for one in oks if one.outcome == "ok") == {
        one.step_id: 1 for one in oks
    }


async def test_a_worker_that_is_told_to_stop_hands_its_task_to_the_new_version_at_once(
    tmp_path: Path, where: str, older: Path
) -> None:
    async with upstreams("up", hold_s=0.5) as up:
        old = Version(tmp_path / "old", where, older, up["up"])
        new = Version(tmp_path / "new", where, None, up["up"])
        # Who waited for such a lease to run out would not be done in time.
        options = ("--lease", "10m", "--store", where, "--config", "steelyard.toml")
        process = await old.start(*PROGRAM, "run", "agent.py", *options)
        assert process.stderr is not None
        async with asyncio.timeout(60.0):
            while "serving two" not in (await process.stderr.readline()).decode():
                assert process.returncode is None
        with open_store(where) as store:
            event = TaskSubmitted(t_s=0.0, task_id="t", agent="two", deadline_s=None)
            store.submit(Submission(event=event)).result()
        await until(lambda: up["up"].served == 2)
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.communicate(), 60.0)
        assert process.returncode == 0
        run = ("run", "agent.py:two", "--id", "t")
        code, out, told = await new.program(*run, *options)
        assert code == 0, told
        assert out.strip() == '"up..up.."'
        # The first step's answer was on disk, the second's was not.
        assert up["up"].served == 3


@pytest.mark.parametrize("commit", [OLDER, LATER])
async def test_an_older_version_reads_every_new_word_of_this_one(
    tmp_path: Path, where: str, commit: str
) -> None:
    (tmp_path / "source").mkdir()
    source = _source(commit, tmp_path / "source")
    async with upstreams("up") as up:
        old = Version(tmp_path / "old", where, source, up["up"])
        assert await old.events_read() == 0
        with open_store(where) as store:
            before = store.version
            for event in _new_words():
                store.append(event)
        with open_store(where) as store:
            assert store.version == before
        assert await old.events_read() == len(_stored(where))


def _new_words() -> list[Event]:
    """Events with all that later versions added to them."""
    call = LlmCall(model="m", input_tokens=1, max_output_tokens=1)
    step = Step(
        task_id="t",
        step_id=0,
        agent="a",
        name="s",
        call=call,
        priority=1,
        trace_parent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )
    verdicts = tuple(PoolVerdict(pool=name, verdict=name) for name in get_args(Verdict))
    decision = Decision(
        pool="p",
        replica=0,
        predicted_wait_s=0.0,
        predicted_ttft_s=0.5,
        predicted_finish_s=1.0,
        predicted_cached_tokens=0,
        predicted_output_tokens=1.0,
        predicted_cost_usd=0.0,
        bid_usd_per_hour=0.0,
        slack_s=1.0,
        policy="cheapest",
        reason="",
        verdicts=verdicts,
        grace_s=1.0,
    )
    refusal = Refusal(
        cause="deadline",
        earliest_finish_s=None,
        policy="cheapest",
        verdicts=verdicts,
        retry_after_s=1.0,
    )
    usage = Usage()
    return [
        StepPlaced(t_s=1.0, step=step, decision=decision),
        StepRefused(t_s=1.0, step=step, refusal=refusal),
        StepRefused(t_s=1.0, step=step, refusal=replace(refusal, cause="spend_cap")),
        AttemptFinished(
            t_s=2.0,
            task_id="t",
            step_id=0,
            attempt=1,
            outcome="cancelled",
            error_code=HEDGED_AWAY,
            usage=usage,
            cost_usd=0.0,
        ),
        RequestServed(
            t_s=2.0,
            placed_s=1.0,
            step=step,
            decision=decision,
            outcome="ok",
            usage=usage,
            cost_usd=0.0,
        ),
        TaskFinished(t_s=3.0, task_id="t", status="succeeded", ended_s=2.0),
        PoolRemoved(t_s=4.0, pool="p"),
    ]
