"""The server on its socket: ports, limits, slow clients, the end."""

import asyncio
import gc
import json
import logging
import random
import socket
import struct
import weakref
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import pytest
import uvloop
from tests.gateway.conftest import Rig, Start, pool_spec

from steelyard.domain.events import ReplicaChanged
from steelyard.errors import ConfigError
from steelyard.gateway.protocol import GatewayProtocol
from steelyard.gateway.server import serve
from steelyard.gateway.settings import GatewayLimits, GatewaySettings
from steelyard.pools.backend import LlmChunk, LlmRequest
from steelyard.pools.scripted import ScriptedAnswer, ScriptedLlmPool

BODY: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}


async def test_a_port_in_use_is_one_clear_line(start: Start) -> None:
    async with start() as rig:
        settings = GatewaySettings(port=rig.server.port)
        with pytest.raises(ConfigError, match=f"port {rig.server.port} is in use"):
            async with serve(settings, rig.dispatcher):
                pass


async def test_an_unknown_host_is_one_clear_line(start: Start) -> None:
    async with start() as rig:
        settings = GatewaySettings(host="no-such-host.invalid", port=0, api_keys=("k",))
        with pytest.raises(ConfigError, match=r"no-such-host\.invalid"):
            async with serve(settings, rig.dispatcher):
                pass


async def test_the_server_works_on_ipv6(start: Start) -> None:
    async with start(settings=GatewaySettings(host="::1")) as rig:
        assert rig.server.url == f"http://[::1]:{rig.server.port}"
        async with rig.http.get("/healthz") as response:
            assert response.status == 200


async def test_readiness_follows_the_replicas(start: Start) -> None:
    async with start() as rig:
        for up, status in ((False, 503), (True, 200)):
            rig.dispatcher.replica_changed("lab", 0, up=up, reason="test")
            async with rig.http.get("/readyz") as response:
                assert response.status == status
                told = await response.json()
            assert told["replicas_up"] == {"lab": int(up)}
        assert len(rig.of_kind(ReplicaChanged)) == 2


async def test_a_lost_pool_leaves_a_gateway_ready_while_another_serves(start: Start) -> None:
    async with start() as rig:
        rig.dispatcher.put_pool(pool_spec("spare", "scripted"), ScriptedLlmPool())
        for lost, status in (("lab", 200), ("spare", 503)):
            rig.dispatcher.replica_changed(lost, 0, up=False, reason="test")
            async with rig.http.get("/readyz") as response:
                assert response.status == status
                told = await response.json()
            assert lost in told["pools_down"]


async def test_unknown_paths_and_methods_have_openais_error_shape(start: Start) -> None:
    wrong = [
        ("/v1/nope", "POST", 404, "unknown_path"),
        ("/nope", "GET", 404, "unknown_path"),
        ("/v1/chat/completions", "GET", 405, "method_not_allowed"),
        ("/v1/models", "DELETE", 405, "method_not_allowed"),
        ("/v1/models/nope", "GET", 404, "model_not_found"),
    ]
    async with start() as rig:
        for path, method, status, code in wrong:
            async with rig.http.request(method, path) as response:
                assert response.status == status
                assert (await response.json())["error"]["code"] == code


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_413(start: Start, chunked: bool) -> None:
    async def parts() -> Any:
        for _ in range(40):
            yield b" " * 1000

    limits = GatewayLimits(body_bytes=10_000)
    async with start(settings=GatewaySettings(limits=limits)) as rig:
        data = parts() if chunked else b" " * 40_000
        async with rig.http.post("/v1/chat/completions", data=data) as response:
            assert response.status == 413
            assert response.headers["connection"] == "close"


async def test_an_encoded_body_is_415(start: Start) -> None:
    async with start() as rig:
        sent = {"Content-Encoding": "gzip"}
        async with rig.http.post("/v1/chat/completions", data=b"x", headers=sent) as response:
            assert response.status == 415


async def _raw(rig: Rig, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(rig.server.host, rig.server.port)
    writer.write(data)
    try:
        async with asyncio.timeout(5.0):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_a_slow_head_and_a_slow_body_are_given_up(start: Start) -> None:
    limits = GatewayLimits(head_timeout_s=0.05, body_timeout_s=0.05)
    async with start(settings=GatewaySettings(limits=limits)) as rig:
        assert await _raw(rig, b"") == b""
        assert await _raw(rig, b"GET /healthz HTTP/1.1\r\nHost: local") == b""
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
        assert (await _raw(rig, head)).startswith(b"HTTP/1.1 408")


async def test_a_flood_of_headers_is_431(start: Start) -> None:
    async with start(settings=GatewaySettings(limits=GatewayLimits(head_bytes=2000))) as rig:
        flood = b"".join(b"X-%d: y\r\n" % number for number in range(400))
        answer = await _raw(rig, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + flood)
        assert answer.startswith(b"HTTP/1.1 431")


async def test_ambiguous_bodies_are_400_and_close_the_connection(start: Start) -> None:
    ambiguous = [
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        b"Content-Length: -1\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
    ]
    async with start() as rig:
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
        for rest in ambiguous:
            assert (await _raw(rig, head + rest)).startswith(b"HTTP/1.1 400"), rest
        async with rig.http.get("/healthz") as response:
            assert response.status == 200


async def test_an_answer_that_takes_too_long_is_504(start: Start) -> None:
    pool = ScriptedLlmPool((ScriptedAnswer(before_first=asyncio.Event()),))
    settings = GatewaySettings(limits=GatewayLimits(request_timeout_s=0.05))
    async with start(pool, settings=settings) as rig:
        async with rig.http.post("/v1/chat/completions", json=BODY) as response:
            assert response.status == 504
        await pool.wait_in_flight(0)


async def test_a_stopping_server_lets_answers_finish(start: Start) -> None:
    pause = asyncio.Event()
    pool = ScriptedLlmPool((ScriptedAnswer(before_first=pause),))
    async with start(pool) as rig:
        async with serve(GatewaySettings(port=0), rig.dispatcher) as second:
            url = f"{second.base_url}/chat/completions"
            request = asyncio.create_task(rig.http.post(url, json=BODY).__aenter__())
            await pool.wait_in_flight(1)
            asyncio.get_running_loop().call_later(0.05, pause.set)
        response = await request
        assert response.status == 200
        assert (await response.json())["choices"][0]["message"]["content"] == "Hello world"
        response.close()


async def test_a_stopping_server_ends_what_takes_too_long(start: Start) -> None:
    pool = ScriptedLlmPool((ScriptedAnswer(before_first=asyncio.Event()),))
    limits = GatewayLimits(shutdown_timeout_s=0)
    async with start(pool) as rig:
        settings = GatewaySettings(port=0, limits=limits)
        async with serve(settings, rig.dispatcher) as second:
            url = f"{second.base_url}/chat/completions"
            request = asyncio.create_task(rig.http.post(url, json=BODY).__aenter__())
            await pool.wait_in_flight(1)
        response = await request
        assert response.status == 503
        response.close()
        await pool.wait_in_flight(0)


async def test_a_bug_is_500_without_its_details(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(ScriptedLlmPool):
        def models(self) -> tuple[str, ...]:
            return ("scripted",)

        async def embed(
            self,
            texts: list[str],
            model: str,
            replica: int,
            extra_headers: Mapping[str, str] | None = None,
        ) -> Any:
            raise ZeroDivisionError("internal detail")

    async with start(Broken()) as rig:
        body = {"model": "scripted", "input": "x"}
        async with rig.http.post("/v1/embeddings", json=body) as response:
            assert response.status == 500
            told = await response.text()
    assert "internal detail" not in told
    assert '"code":"bug"' in told
    assert "ZeroDivisionError" in caplog.text


async def test_the_access_log_is_one_line_of_json_per_request(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="steelyard.gateway.access")
    async with start(settings=GatewaySettings(access_log=True)) as rig:
        sent = {"Steelyard-Task": "t-1"}
        async with rig.http.post("/v1/chat/completions", json=BODY, headers=sent) as response:
            await response.read()
    [record] = [one for one in caplog.records if one.name == "steelyard.gateway.access"]
    line = json.loads(record.getMessage())
    assert (line["task_id"], line["step_id"], line["pool"]) == ("t-1", 0, "lab")
    assert (line["method"], line["status"]) == ("POST", 200)


def test_settings_are_shown_without_keys() -> None:
    settings = GatewaySettings(api_keys=("very-secret",))
    assert "very-secret" not in repr(settings)


async def test_a_client_that_does_not_read_holds_the_pool_back(start: Start) -> None:
    sent: list[int] = []

    class Counting(ScriptedLlmPool):
        async def complete(
            self, request: LlmRequest, replica: int
        ) -> AsyncGenerator[LlmChunk, None]:
            for number in range(4000):
                sent.append(number)
                yield LlmChunk(text="x" * 8192)
            yield LlmChunk(finish_reason="stop")

    async with start(Counting()) as rig:
        body = json.dumps({**BODY, "stream": True}).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        reader, writer = await asyncio.open_connection(rig.server.host, rig.server.port, limit=1024)
        writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        before = -1
        while not sent or len(sent) > before:
            before = len(sent)
            # By the time this is answered, the stream has gone as far as it can.
            async with rig.http.get("/healthz") as response:
                assert response.status == 200
        assert len(sent) < 3000
        received = await reader.read(-1)
        assert received.count(b"data: {") == 4001
        assert b"data: [DONE]" in received
        writer.close()


async def test_garbage_on_the_wire_breaks_nothing(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(7)  # noqa: S311
    body = json.dumps(BODY).encode()
    whole = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    whole += b"Content-Length: %d\r\n\r\n" % len(body) + body
    limits = GatewayLimits(head_timeout_s=0.1, body_timeout_s=0.1, idle_timeout_s=0)
    async with start(settings=GatewaySettings(limits=limits)) as rig:
        for _ in range(20):
            broken = [bytearray(whole) for _ in range(10)]
            for one in broken:
                for _ in range(chance.randrange(1, 6)):
                    one[chance.randrange(len(one))] = chance.randrange(256)
            answers = await asyncio.gather(*(_raw(rig, bytes(one)) for one in broken))
            assert all(not answer or answer.startswith(b"HTTP/1.1 ") for answer in answers)
            assert not any(answer.startswith(b"HTTP/1.1 500") for answer in answers)
        async with rig.http.post("/v1/chat/completions", json=BODY) as response:
            assert response.status == 200
    assert "Exception" not in caplog.text


def test_the_gateway_runs_on_uvloop_and_frees_the_place_of_a_client_that_left(
    start: Start,
) -> None:
    async def leave() -> None:
        pool = ScriptedLlmPool((ScriptedAnswer(before_first=asyncio.Event()),))
        async with start(pool) as rig:
            request = asyncio.ensure_future(rig.http.post("/v1/chat/completions", json=BODY))
            await pool.wait_in_flight(1)
            request.cancel()
            async with asyncio.timeout(5.0):
                await pool.wait_in_flight(0)
            assert pool.cancelled == 1

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(leave())


async def test_a_connection_that_was_reset_leaves_nothing_for_the_garbage_collector(
    start: Start,
) -> None:
    gc.collect()
    gc.disable()
    try:
        async with start() as rig:
            body = b'{"model":"scripted","messages":[{"role":"user","content":"Hi"}]}'
            head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            reader, writer = await asyncio.open_connection(rig.server.host, rig.server.port)
            writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            (served,) = _of_type(GatewayProtocol)
            gone = asyncio.Event()
            watch = weakref.ref(served, lambda _: gone.set())
            del served
            # Closed so, the server reads an error, and no end.
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
            await asyncio.wait_for(gone.wait(), 10.0)
            assert watch() is None
    finally:
        gc.enable()


def _of_type(kind: type[Any]) -> list[Any]:
    return [one for one in gc.get_objects() if isinstance(one, kind)]
