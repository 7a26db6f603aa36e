"""Clients of the drill: tasks of three numbered steps at a steady rate, asked again until told."""

import asyncio
import json
import time
from collections import Counter

import aiohttp

STEPS = 3
_PATIENCE_S = 60.0


class Clients:
    """Starts tasks at a steady rate, whatever becomes of those before.

    Args:
        url: The gateway.
        key: Its key.
        deadline_s: Of a task, from its first request on.
        budget_usd: Of a task.
    """

    def __init__(self, url: str, key: str, deadline_s: float, budget_usd: float) -> None:
        self._url = f"{url}/v1/chat/completions"
        self._key = key
        self._deadline_s, self._budget_usd = deadline_s, budget_usd
        self._running: set[asyncio.Task[None]] = set()
        self._http: aiohttp.ClientSession | None = None
        # The key's budget is used up: asking again is in vain.
        self._is_barred = False
        self.answers: dict[str, str] = {}
        self.took_s: dict[str, float] = {}
        self.statuses: Counter[str] = Counter()
        self.given_up: list[str] = []

    async def __aenter__(self) -> "Clients":
        timeout = aiohttp.ClientTimeout(total=_PATIENCE_S)
        connector = aiohttp.TCPConnector(limit=0)
        self._http = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self

    async def __aexit__(self, *error: object) -> None:
        for one in self._running:
            one.cancel()
        if self._http is not None:
            await self._http.close()

    def start(self, task_id: str) -> None:
        """Start a task."""
        running = asyncio.create_task(self._run(task_id))
        self._running.add(running)
        running.add_done_callback(self._running.discard)

    async def all_told(self) -> None:
        """Wait until all that were started are done."""
        while self._running:
            await asyncio.wait(self._running)

    async def _run(self, task_id: str) -> None:
        begun_s = time.monotonic()
        for step in range(STEPS):
            gives_up_s = time.monotonic() + _PATIENCE_S
            while not await self._told(task_id, step):
                if self._is_barred or time.monotonic() > gives_up_s:
                    self.given_up.append(f"{task_id}/{step}")
                    return
        self.took_s[task_id] = time.monotonic() - begun_s

    async def _told(self, task_id: str, step: int) -> bool:
        key = f"{task_id}/{step}"
        streams = (step + len(task_id)) % 2 == 0
        body = {
            "model": "mock",
            "messages": [{"role": "user", "content": key}],
            "stream": streams,
            "max_tokens": 16,
        }
        headers = {
            "Authorization": f"Bearer {self._key}",
            "Steelyard-Task": task_id,
            "Steelyard-Step": "ask",
            "Steelyard-Deadline": str(self._deadline_s),
            "Steelyard-Budget-Usd": str(self._budget_usd),
            "Idempotency-Key": key,
        }
        try:
            assert self._http is not None  # noqa: S101 - an invariant: entered
            async with self._http.post(self._url, json=body, headers=headers) as answer:
                text = await (_streamed(answer) if streams else _whole(answer))
                self.statuses[str(answer.status) if text else f"{answer.status}, no answer"] += 1
                wait_s = float(answer.headers.get("Retry-After", 0.2))
                is_last = answer.headers.get("x-should-retry") == "false"
                # Beside a 5xx it means that the gateway tried by itself: we may, later.
                self._is_barred = answer.status == 429 and is_last
        except (aiohttp.ClientError, TimeoutError) as error:
            self.statuses[type(error).__name__] += 1
            text, wait_s = "", 0.2
        if text:
            self.answers[key] = text
            return True
        await asyncio.sleep(wait_s)
        return False


async def _whole(answer: aiohttp.ClientResponse) -> str:
    told = await answer.json()
    if answer.status != 200:
        return ""
    return str(told["choices"][0]["message"]["content"]).split()[0]


async def _streamed(answer: aiohttp.ClientResponse) -> str:
    """The first word of a stream that came to its end; empty where it broke off."""
    words, ended = "", False
    async for line in answer.content:
        if line.startswith(b"data: [DONE]"):
            ended = True
        elif line.startswith(b"data: "):
            told = json.loads(line[6:])
            for choice in told.get("choices") or ():
                words += choice["delta"].get("content") or ""
            if "error" in told:
                return ""
    return words.split()[0] if ended and words and answer.status == 200 else ""
