"""What does a minted key cost per request, in CPU time of the gateway's event loop?

Times the parts that a request with a key adds: finding the key, counting it against its rate,
reserving what the step may cost, hearing what it did cost, and settling. Prints one line of JSON
per part: median and range over rounds, of the mean time of one request.

    python benchmarks/keys.py --rounds 7 --requests 20000
"""

import argparse
import asyncio
import hashlib
import json
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path

from steelyard.config.environment import machine_description
from steelyard.domain.events import AttemptFinished, PoolAdded, Usage
from steelyard.domain.key import ApiKey, KeyTerms
from steelyard.domain.pool import LlmCurve, PoolSpec
from steelyard.domain.task import LlmCall, Step
from steelyard.gateway.auth import Authenticator
from steelyard.gateway.keys_books import KeyDesk, key_desk
from steelyard.gateway.settings import GatewaySettings
from steelyard.placement.policy import CheapestFeasible
from steelyard.runtime.clock import WallClock
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.recorder import Recorder
from steelyard.store.event_log import MemoryEventLog
from steelyard.store.open_store import open_store

BODY = b'{"model": "m", "max_tokens": 64, "messages": ' + b"x" * 2000 + b"}"
CURVE = LlmCurve(
    ttft_floor_s=0.01,
    prefill_s_per_token=0.0001,
    itl_base_s=0.01,
    itl_slope_s=0.0,
    concurrency_cap=16,
    context_tokens=32_768,
    predicted=True,
    source="made up",
)


class Head:
    """The head of a request."""

    path = "/v1/chat/completions"

    def __init__(self, token: str) -> None:
        self._value = f"Bearer {token}"

    def header(self, name: bytes) -> str | None:
        """The value of a header."""
        return self._value if name == b"authorization" else None


def pool(name: str) -> PoolSpec:
    """A pool that is paid per hour."""
    return PoolSpec(
        name=name,
        provider="p",
        region="r",
        arch="x86_64",
        hardware="x86",
        offering="o",
        usd_per_hour=1.0,
        replicas=1,
        llm_curves={"m": CURVE},
    )


def step(number: int) -> Step:
    """A step of 500 tokens and up to 64 more."""
    call = LlmCall(model="m", input_tokens=500, max_output_tokens=64)
    return Step(task_id="t", step_id=number, agent="unnamed", name="chat", call=call)


async def whole(desk: KeyDesk, check: Callable[[], ApiKey | None], count: int) -> None:
    """Requests with their keys, one after the other."""
    for number in range(count):
        key = check()
        if key is None:
            raise SystemExit("the key is not taken")
        use = desk.books.use(key)
        use.admit()
        asked = await use.reserve(step(number), 64, BODY)
        use.placed()
        use.spent(
            AttemptFinished(
                t_s=0.0,
                task_id="t",
                step_id=asked.step_id,
                attempt=0,
                outcome="ok",
                usage=Usage(input_tokens=500, output_tokens=64),
                cost_usd=1e-5,
            )
        )
        use.settle()


async def bare(count: int) -> None:
    """The same without keys: what the measured loop itself makes."""
    for number in range(count):
        step(number)
        AttemptFinished(
            t_s=0.0,
            task_id="t",
            step_id=number,
            attempt=0,
            outcome="ok",
            usage=Usage(input_tokens=500, output_tokens=64),
            cost_usd=1e-5,
        )


async def measure(folder: Path, rounds: int, requests: int, keys: int) -> None:
    """Run all rounds and print what they took."""
    recorder = Recorder(WallClock(), MemoryEventLog())
    for name in ("a", "b", "c"):
        recorder.record(PoolAdded(t_s=0.0, spec=pool(name)))
    dispatcher = Dispatcher(recorder, CheapestFeasible(), {}, {})
    terms = KeyTerms(name="n", budget_usd=1e6, requests_per_s=1e9, tokens_per_min=1e12)
    token = ""
    with open_store(folder / "s.db") as store:
        for number in range(keys):
            token = f"sk-sy-{number:016x}-{secrets.token_urlsafe(32)}"
            digest = hashlib.sha256(token.encode()).digest()
            key = ApiKey(key_id=f"{number:016x}", digest=digest, terms=terms, created_s=0.0)
            store.keys.put(key)
        async with key_desk(store.keys, dispatcher) as desk:
            check = Authenticator(GatewaySettings(require_key=True), desk.ring).check
            head = Head(token)
            took: dict[str, list[float]] = {"find": [], "all": [], "loop": []}
            for _ in range(rounds):
                took["find"].append(await _timed(_finding(lambda: check(head), requests), requests))
                took["all"].append(
                    await _timed(whole(desk, lambda: check(head), requests), requests)
                )
                took["loop"].append(await _timed(bare(requests), requests))
    for part, times_s in took.items():
        told = {
            "part": part,
            "us_per_request": round(1e6 * statistics.median(times_s), 2),
            "range_us": [round(1e6 * one, 2) for one in (min(times_s), max(times_s))],
            "keys": keys,
            "requests": requests,
            "rounds": rounds,
            "machine": machine_description(),
            "date": datetime.now(UTC).date().isoformat(),
        }
        print(json.dumps(told))


async def _finding(check: Callable[[], object], count: int) -> None:
    for _ in range(count):
        check()


async def _timed(work: Coroutine[object, object, None], count: int) -> float:
    """CPU seconds of this thread per request."""
    began_s = time.thread_time()
    await work
    return (time.thread_time() - began_s) / count


def main() -> None:
    """Parse the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--keys", type=int, default=1_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder), options.rounds, options.requests, options.keys))


if __name__ == "__main__":
    main()
