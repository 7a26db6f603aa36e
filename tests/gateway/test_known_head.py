"""Requests with the same head on one connection are answered alike, however they come."""

import asyncio
import json
from typing import Any

from tests.gateway.conftest import Start
from tests.gateway.raw_upstream import WHOLE, Call
from tests.gateway.test_quick import ANSWER, ASK, rig_of


def asked(body: Any, *more: str) -> bytes:
    data = json.dumps(body).encode()
    lines = ["Host: 127.0.0.1", f"Content-Length: {len(data)}", *more]
    head = "\r\n".join(["POST /v1/chat/completions HTTP/1.1", *lines])
    return head.encode() + b"\r\n\r\n" + data


async def answered(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
    return int(head.split()[1]), await reader.readexactly(length)


async def test_it_makes_no_difference_how_the_bytes_of_a_known_head_come(start: Start) -> None:
    async def script(call: Call) -> None:
        await call.send(ANSWER)

    longer = {**ASK, "messages": [{"role": "user", "content": "Hi " * 50}]}
    async with rig_of(start, script) as (rig, upstream, _), asyncio.timeout(20.0):
        reader, writer = await asyncio.open_connection(rig.server.host, rig.server.port)
        before = len(upstream.calls)
        pieces = (
            *((asked(ASK),), (asked(ASK),), (asked(longer),)),
            *((asked(ASK)[:40], asked(ASK)[40:]), (asked(longer)[:-9], asked(longer)[-9:])),
            *((asked(ASK) + asked(longer),), (asked(ASK, "X-More: 1"),), (asked(ASK),)),
        )
        count = 0
        for parts in pieces:
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
            for _ in range(b"".join(parts).count(b"POST")):
                assert await answered(reader) == (200, json.dumps(WHOLE).encode())
                count += 1
        assert len(upstream.calls) == before + count
        assert json.loads(upstream.calls[-1].body) == ASK
        writer.close()


async def test_a_known_head_is_refused_as_any_other(start: Start) -> None:
    async def script(call: Call) -> None:
        await call.send(ANSWER)

    async with rig_of(start, script) as (rig, _, _), asyncio.timeout(20.0):
        reader, writer = await asyncio.open_connection(rig.server.host, rig.server.port)
        bodies: list[Any] = [ASK, {**ASK, "model": "none"}, ASK, []]
        for body, status in zip(bodies, (200, 404, 200, 400), strict=True):
            writer.write(asked(body))
            assert (await answered(reader))[0] == status
        writer.write(asked(ASK, "Origin: http://elsewhere.example"))
        assert (await answered(reader))[0] == 403
        writer.close()
