"""Clients of a drill: numbered steps, asked again elsewhere after a failure."""

import asyncio
import random
import time
from collections import Counter

import aiohttp

GATEWAY_STEPS = 3
_CLIENTS = 20


class Clients:
    """Asks for numbered steps, and asks again elsewhere after a failure.

    Args:
        addresses: The gateways.
        tasks: How many tasks.
    """

    def __init__(self, addresses: list[str], tasks: int) -> None:
        self._addresses = addresses
        self._left = iter(range(tasks))
        self._drawn = random.Random(1)  # noqa: S311
        self.answers: dict[tuple[str, int], str] = {}
        self.again = 0
        self.statuses: Counter[int] = Counter()
        self.done = 0
        # When each answer came, or the connection broke, and its status; 0 without one.
        self.seen: list[tuple[float, int]] = []

    async def run(self) -> None:
        """Ask for all."""
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=30.0)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
            await asyncio.gather(*(self._client(http) for _ in range(_CLIENTS)))

    async def _client(self, http: aiohttp.ClientSession) -> None:
        for number in self._left:
            for step in range(GATEWAY_STEPS):
                await self._ask(http, f"asked-{number}", step)
            self.done += 1

    async def _ask(self, http: aiohttp.ClientSession, task_id: str, step: int) -> None:
        text = f"step {step} of {task_id}"
        body = {"model": "mock", "messages": [{"role": "user", "content": text}]}
        headers = {
            "Steelyard-Task": task_id,
            "Steelyard-Step": "ask",
            "Idempotency-Key": f"{task_id}/{step}",
        }
        at = self._drawn.randrange(len(self._addresses))
        while True:
            url = f"{self._addresses[at]}/v1/chat/completions"
            wait_s = 0.1
            try:
                async with http.post(url, json=body, headers=headers) as answer:
                    told = await answer.json()
                    self._saw(answer.status)
                    if answer.status == 200:
                        content = told["choices"][0]["message"]["content"]
                        self.answers[(task_id, step)] = content
                        return
                    wait_s = float(answer.headers.get("Retry-After", wait_s))
            except (aiohttp.ClientError, TimeoutError):
                self._saw(0)
            self.again += 1
            at = (at + 1) % len(self._addresses)
            await asyncio.sleep(wait_s)

    def _saw(self, status: int) -> None:
        self.statuses[status] += 1
        self.seen.append((time.monotonic(), status))
