"""Does a gateway that runs for long stay as it was? Mixed load, good and bad, for N seconds.

Run as `python scripts/soak.py --seconds 3600`. A real gateway (`steelyard up`, log on disk, keys)
stands before two upstreams, one of which fails a tenth of its requests: in the head, by hanging
up, in mid-stream. Clients ask whole and streamed, leave before the first byte and in mid-stream,
send what is wrong, and present a key that is unknown; every minute the configuration is reloaded.
After a warm-up of a tenth of the time (a minute at most), memory, open files and threads of the
gateway are read once a second.

It fails when memory grows by more than `--mb-per-hour` (slope by least squares; in runs of less
than ten minutes by more than 10 MB in all), when open files or threads are more at the end than
after the warm-up, when a request is answered other than expected, or when the gateway logs a
traceback or refuses a reload. Choices are drawn from `--seed`.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp

KEY = "sk-soak-0123456789"
_CLIENTS = 12
_PAUSE_S = 0.02
_RELOAD_S = 60.0
_CONFIG = """
[gateway]
port = {port}
api_keys_file = "keys"
# Tasks that requests name end within the warm-up, not ten minutes later.
task_idle_s = 20
[store]
path = "log.db"
[pools.lab]
kind = "endpoint"
base_urls = ["http://127.0.0.1:{bad}/v1", "http://127.0.0.1:{good}/v1"]
models = ["mock"]
usd_per_hour = {rent}
curve = {{ concurrency_cap = 64 }}
"""
_PIECE = b'data: {"choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}\n\n'
_LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
_WHOLE = json.dumps(
    {
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "An answer."},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 12, "completion_tokens": 3},
    }
).encode()


class Upstream:
    """Answers; one that is bad fails every tenth request, in three ways by turns."""

    def __init__(self, *, bad: bool) -> None:
        self._bad = bad
        self._asked = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = 0
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                body = await reader.readexactly(length)
                await self._answer(body, writer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            return
        finally:
            writer.close()

    async def _answer(self, body: bytes, writer: asyncio.StreamWriter) -> None:
        self._asked += 1
        fault = self._asked // 10 % 3 if self._bad and self._asked % 10 == 0 else -1
        await asyncio.sleep(0.01)
        if fault == 0:
            writer.write(b"HTTP/1.1 500 Broken\r\nContent-Length: 2\r\n\r\n{}")
        elif fault == 1:
            raise ConnectionResetError
        elif b'"stream": true' in body:
            await self._stream(writer, breaks=fault == 2)
        else:
            head = (
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            )
            writer.write(head % len(_WHOLE) + _WHOLE)
        await writer.drain()

    async def _stream(self, writer: asyncio.StreamWriter, *, breaks: bool) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
        writer.write(b"Transfer-Encoding: chunked\r\n\r\n")
        for number in range(10):
            writer.write(b"%x\r\n%b\r\n" % (len(_PIECE), _PIECE))
            await writer.drain()
            await asyncio.sleep(0.005)
            if breaks and number == 4:
                raise ConnectionResetError
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(_LAST), _LAST))


class Clients:
    """What clients do, and whether they were answered as is right."""

    def __init__(self, url: str, seed: int) -> None:
        self._url = url
        self._random = random.Random(seed)  # noqa: S311 - a choice of load, nothing secret
        self._acts = (self.whole, self.named, self.streamed, self.leaves, self.cuts, self.wrong)
        self.counts: Counter[str] = Counter()
        self.unexpected: list[str] = []

    async def go_on(self, until_s: float) -> None:
        """Do one thing after another until then."""
        async with aiohttp.ClientSession(self._url) as http:
            while time.monotonic() < until_s:
                act = self._random.choices(self._acts, (5, 2, 4, 1, 1, 1))[0]
                self.counts[act.__name__] += 1
                try:
                    await act(http)
                except (aiohttp.ClientError, TimeoutError) as error:
                    self.unexpected.append(f"{act.__name__}: {error!r}")
                await asyncio.sleep(_PAUSE_S)

    def _body(self, *, stream: bool = False) -> dict[str, Any]:
        text = f"Question {self._random.randrange(10_000)} " * self._random.randrange(1, 200)
        return {"model": "mock", "stream": stream, "messages": [{"role": "user", "content": text}]}

    def _post(self, http: aiohttp.ClientSession, body: Any, headers: dict[str, str]) -> Any:  # noqa: ANN401
        sent = {"Authorization": f"Bearer {KEY}", **headers}
        return http.post("/v1/chat/completions", json=body, headers=sent)

    def _expect(self, what: str, status: int, *allowed: int) -> None:
        if status not in allowed:
            self.unexpected.append(f"{what}: {status}")

    async def whole(self, http: aiohttp.ClientSession) -> None:
        """Ask for a whole answer."""
        async with self._post(http, self._body(), {}) as answer:
            await answer.read()
            self._expect("whole", answer.status, 200)

    async def named(self, http: aiohttp.ClientSession) -> None:
        """Ask for a task with a name."""
        # Without a deadline: a task keeps its first one, and what failed after it is not retried.
        headers = {"Steelyard-Task": f"task-{self._random.randrange(1000)}"}
        async with self._post(http, self._body(), headers) as answer:
            await answer.read()
            self._expect("named", answer.status, 200)

    async def streamed(self, http: aiohttp.ClientSession) -> None:
        """Read a stream to its end."""
        async with self._post(http, self._body(stream=True), {}) as answer:
            text = await answer.read()
            self._expect("streamed", answer.status, 200)
            # An upstream that dies in mid-stream ends it with an error event.
            if not text.endswith(b"data: [DONE]\n\n") and b'"error"' not in text:
                self.unexpected.append(f"streamed: ends with {text[-80:]!r}")
            self.counts["streams with an error event"] += b'"error"' in text

    async def leaves(self, http: aiohttp.ClientSession) -> None:
        """Leave before the answer, often."""
        try:
            async with asyncio.timeout(self._random.uniform(0.0, 0.01)):
                async with self._post(http, self._body(), {}) as answer:
                    await answer.read()
        except TimeoutError:
            self.counts["left before the answer"] += 1

    async def cuts(self, http: aiohttp.ClientSession) -> None:
        """Leave in mid-stream."""
        async with self._post(http, self._body(stream=True), {}) as answer:
            await answer.content.readany()
            answer.close()

    async def wrong(self, http: aiohttp.ClientSession) -> None:
        """Ask what cannot be answered."""
        kind = self._random.randrange(4)
        body: Any = ({**self._body(), "model": "none"}, [1], {"model": "mock"}, self._body())[kind]
        headers = {"Authorization": "Bearer sk-unknown"} if kind == 3 else {}
        async with self._post(http, body, headers) as answer:
            await answer.read()
            self._expect(f"wrong {kind}", answer.status, (404, 400, 400, 401)[kind])


def looks(pid: int) -> tuple[float, int, int]:
    """Resident MB, open files and threads of a process, from /proc."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    resident_mb = int(fields["VmRSS"].split()[0]) * 1024 / 1e6
    return resident_mb, len(list(Path(f"/proc/{pid}/fd").iterdir())), int(fields["Threads"])


def slope_per_hour(seen: list[tuple[float, float]]) -> float:
    """Slope of a line through (seconds, value) by least squares, per hour."""
    mean_t = sum(t for t, _ in seen) / len(seen)
    mean_v = sum(v for _, v in seen) / len(seen)
    spread = sum((t - mean_t) ** 2 for t, _ in seen)
    return 3600.0 * sum((t - mean_t) * (v - mean_v) for t, v in seen) / spread if spread else 0.0


class Watch:
    """Looks at the gateway's process, and reloads its configuration."""

    def __init__(self, pid: int, folder: Path, ports: dict[str, int]) -> None:
        self._pid = pid
        self._folder = folder
        self._ports = ports
        self.seen: list[tuple[float, float, int, int]] = []
        self.reloads = 0

    def configure(self) -> None:
        """Write the configuration; the rent changes with every reload."""
        text = _CONFIG.format(**self._ports, rent=1.0 + self.reloads % 2)
        (self._folder / "steelyard.toml").write_text(text)

    async def go_on(self, started_s: float, warm_s: float, until_s: float) -> None:
        """Look once a second, reload once a minute."""
        next_reload_s = started_s + _RELOAD_S
        while (now_s := time.monotonic()) < until_s:
            if now_s >= next_reload_s:
                next_reload_s += _RELOAD_S
                self.reloads += 1
                self.configure()
                os.kill(self._pid, signal.SIGHUP)
            if now_s - started_s >= warm_s:
                self.seen.append((now_s - started_s, *looks(self._pid)))
            await asyncio.sleep(1.0)


async def settled(pid: int, files: int) -> tuple[float, int, int]:
    """How does the gateway look when all clients are gone? Waits for idle connections to end."""
    for _ in range(30):
        now = looks(pid)
        if now[1] <= files:
            return now
        await asyncio.sleep(1.0)
    return now


async def soak(given: argparse.Namespace, folder: Path) -> list[str]:
    """Run it; returns what is wrong."""
    ports = {"port": given.port, "bad": given.port + 1, "good": given.port + 2}
    servers = [
        await asyncio.start_server(Upstream(bad=name == "bad").serve, "127.0.0.1", ports[name])
        for name in ("bad", "good")
    ]
    (folder / "keys").write_text(KEY + "\n")
    (folder / "keys").chmod(0o600)
    config = folder / "steelyard.toml"
    log = (folder / "output.txt").open("wb")
    command = [sys.executable, "-m", "steelyard", "up", "--config", str(config)]
    Watch(0, folder, ports).configure()
    # Started before there is anything to wait for.
    process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)  # noqa: S603, ASYNC220
    try:
        url = f"http://127.0.0.1:{given.port}"
        await ready(url, process)
        idle = looks(process.pid)
        watch, clients = Watch(process.pid, folder, ports), Clients(url, given.seed)
        started_s = time.monotonic()
        until_s, warm_s = started_s + given.seconds, min(60.0, given.seconds / 10.0)
        await asyncio.gather(
            watch.go_on(started_s, warm_s, until_s),
            *(clients.go_on(until_s) for _ in range(_CLIENTS)),
        )
        # What the pool keeps open to the upstreams is bounded by what ran at once.
        end = await settled(process.pid, idle[1] + 2 * _CLIENTS)
        wrong = judged(watch, clients, given, (idle, end))
    finally:
        process.terminate()
        try:
            status = process.wait(30.0)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        for server in servers:
            server.close()
        log.close()
    if status not in {0, -signal.SIGTERM, 128 + signal.SIGTERM}:
        wrong.append(f"the gateway ended with status {status}")
    output = (folder / "output.txt").read_text(errors="replace")
    for mark in ("Traceback", "never retrieved", "reload refused"):
        wrong += [f"it said: {one}" for one in output.splitlines() if mark in one][:5]
    return wrong


async def ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    """Wait until the gateway answers."""
    async with aiohttp.ClientSession(url) as http:
        for _ in range(300):
            if process.poll() is not None:
                raise RuntimeError(f"the gateway ended with status {process.returncode}")
            try:
                async with http.get("/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.2)
    raise RuntimeError("the gateway was not ready within a minute")


def judged(
    watch: Watch,
    clients: Clients,
    given: argparse.Namespace,
    looked: tuple[tuple[float, int, int], tuple[float, int, int]],
) -> list[str]:
    """Print what was seen; returns what is wrong with it."""
    idle, end = looked
    slope = slope_per_hour([(t, mb) for t, mb, _, _ in watch.seen])
    first, last = watch.seen[0], watch.seen[-1]
    print(f"requests: {dict(clients.counts)}, reloads: {watch.reloads}")
    print(f"MB: idle {idle[0]:.1f}, warm {first[1]:.1f}, last {last[1]:.1f}; {slope:+.1f} per hour")
    print(f"open files: idle {idle[1]}, most {max(one[2] for one in watch.seen)}, end {end[1]}")
    print(f"threads: idle {idle[2]}, most {max(one[3] for one in watch.seen)}, end {end[2]}")
    wrong = [f"unexpected: {told} ({n}x)" for told, n in Counter(clients.unexpected).items()]
    is_short = given.seconds < 600.0
    if (last[1] - first[1] > 10.0) if is_short else slope > given.mb_per_hour:
        wrong.append(f"memory grows: {first[1]:.1f} to {last[1]:.1f} MB, {slope:+.1f} per hour")
    if end[1] > idle[1] + 2 * _CLIENTS:
        wrong.append(f"files stay open: {idle[1]} before the load, {end[1]} after it")
    if end[2] > first[3]:
        wrong.append(f"threads stay: {first[3]} after the warm-up, {end[2]} at the end")
    return wrong


def main() -> None:
    """Soak and judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, default=18400)
    parser.add_argument("--mb-per-hour", type=float, default=10.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wrong = asyncio.run(soak(given, Path(folder)))
    for one in wrong:
        print(f"WRONG {one}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
