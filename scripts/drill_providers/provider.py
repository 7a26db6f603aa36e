"""A provider: OpenAI-compatible servers that number their answers and break on command.

Run by the drill as `python provider.py NAME ADDRESS PORT,PORT LOG`. A line on standard input says
how it answers from then on: `ok`; `error`: HTTP 500 and 429 with Retry-After in turns; `half`:
streams end in the middle and whole bodies are cut short. Its own log has a line of JSON for every
request that reached it.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks" / "gateway"))

import upstream as mock  # noqa: E402

FIRST_S, GAP_S, PIECES = 0.08, 0.02, 8
SERVICE_S = FIRST_S + PIECES * GAP_S
_BROKEN = b'{"error": {"message": "drill: out of order", "code": "drill"}}'
_USAGE = {"prompt_tokens": 20, "completion_tokens": PIECES, "total_tokens": 20 + PIECES}


class Desk:
    """What all servers of a provider share.

    Args:
        name: The provider.
        log: Its requests, a line each.
    """

    def __init__(self, name: str, log: TextIO) -> None:
        self.name = name
        self.mood = "ok"
        self.asked = 0
        self.answering: set[asyncio.Task[None]] = set()
        self._log = log

    def note(self, key: str, number: int, outcome: str) -> None:
        """Write down what became of a request."""
        line = {"t_s": time.time(), "key": key, "number": number, "outcome": outcome}
        self._log.write(json.dumps(line) + "\n")
        self._log.flush()


class Server(mock.Upstream):
    """One connection to a server of the provider."""

    desk: Desk

    def on_message_complete(self) -> None:
        """Answer, as the desk's mood has it."""
        if not self._body:
            super().on_message_complete()
            return
        asked = json.loads(b"".join(self._body))
        self._body = []
        desk = self.desk
        desk.asked += 1
        key, number = asked["messages"][-1]["content"], desk.asked
        if desk.mood == "error":
            desk.note(key, number, "error")
            self._write(_refusal(number))
            return
        streams = bool(asked.get("stream"))
        answering = asyncio.create_task(self._answer(key, number, streams=streams))
        desk.answering.add(answering)
        answering.add_done_callback(desk.answering.discard)

    async def _answer(self, key: str, number: int, *, streams: bool) -> None:
        desk = self.desk
        text = f"{desk.name}-{number}"
        is_half = desk.mood == "half"
        await asyncio.sleep(FIRST_S)
        if streams:
            self._write(mock.STREAM_HEAD + mock.piece({"role": "assistant", "content": text}))
        for _ in range(PIECES // 2 if is_half else PIECES):
            await asyncio.sleep(GAP_S)
            if streams:
                self._write(mock.piece({"content": " word"}))
        if not streams:
            whole = _whole(text)
            self._write(whole[: -len(whole) // 4] if is_half else whole)
        elif not is_half:
            self._write(mock.LAST + mock._chunk(mock._event([], _USAGE)) + mock.END)  # noqa: SLF001
        if is_half and self._transport is not None:
            self._transport.close()
        gone = self._transport is None
        desk.note(key, number, "half" if is_half else "left" if gone else "answered")

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


def _whole(text: str) -> bytes:
    message = {"role": "assistant", "content": text + " word" * PIECES}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    told = {"id": "drill", "object": "chat.completion", "created": 1, "model": mock.MODEL}
    return mock.response(json.dumps({**told, "choices": [choice], "usage": _USAGE}).encode())


def _refusal(number: int) -> bytes:
    head = b"HTTP/1.1 500 Internal Server Error\r\n"
    if number % 2:
        head = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\n"
    length = b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_BROKEN)
    return head + length + _BROKEN


async def main(name: str, address: str, ports: list[int], log: Path) -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    with log.open("a", encoding="ascii") as file:
        desk = Desk(name, file)
        made = type("Mine", (Server,), {"desk": desk})
        for port in ports:
            await loop.create_server(lambda: made(loop, PIECES, GAP_S), address, port)
        commands = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        print("ready", flush=True)
        while line := await commands.readline():
            desk.mood = line.decode().strip()
            print(desk.mood, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], [int(p) for p in sys.argv[3].split(",")],
                     Path(sys.argv[4])))  # fmt: skip
