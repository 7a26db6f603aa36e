"""Any OpenAI-compatible server as a pool: vLLM, SGLang, a vendor, or Steelyard's own gateway."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence

import msgspec

from steelyard.errors import (
    ConfigError,
    PoolError,
    PoolProtocolError,
    PoolRejectedError,
    PoolTimeoutError,
    PoolUnavailableError,
)
from steelyard.pools.backend import (
    Cut,
    Embeddings,
    Ended,
    LlmChunk,
    LlmRequest,
    RelayedAnswer,
    RelayRequest,
    RelayTarget,
    ReplicaWatcher,
)
from steelyard.pools.chunked_answer import ChunkedAnswer
from steelyard.pools.dialects import Engine, spoken_relay, spoken_request
from steelyard.pools.endpoint_errors import ErrorReader
from steelyard.pools.endpoint_terms import EndpointLimits, EndpointTraits, checked_url
from steelyard.pools.http_client import HttpHost, HttpRequest, header_lines
from steelyard.pools.http_connection import StaleConnectionError
from steelyard.pools.quick_relay import QuickRelay
from steelyard.pools.relay import Relay, WholeBody
from steelyard.pools.relays import relay_for
from steelyard.pools.wire import parse_object, parse_usage, relayed_body, request_body


class OpenAiEndpointPool:
    """Equal OpenAI-compatible servers; each base URL is a replica.

    Redirects are never followed, and the key is in no message.

    Args:
        base_urls: One per replica, up to and with `/v1`.
        models: Names of the models; empty asks the first server at `start`.
        api_key: Sent as a bearer token; empty for none.
        limits: How long to wait.
        headers: Sent with every request.
        traits: What the servers offer, and whose words they read.

    Raises:
        ConfigError: A base URL is no http(s) URL, or a key or header cannot be sent.
    """

    def __init__(
        self,
        base_urls: Sequence[str],
        models: Sequence[str] = (),
        api_key: str = "",
        limits: EndpointLimits | None = None,
        headers: Mapping[str, str] | None = None,
        traits: EndpointTraits | None = None,
    ) -> None:
        urls = tuple(checked_url(url) for url in base_urls)
        if not urls:
            raise ConfigError("An endpoint pool needs at least one base URL.")
        if not api_key.isprintable() or not api_key.isascii():
            raise ConfigError("The API key of an endpoint pool has characters no header can hold.")
        self._limits = limits if limits is not None else EndpointLimits()
        sent = {"Accept-Encoding": "identity", "Accept": "*/*", **(headers or {})}
        if api_key:
            sent["Authorization"] = f"Bearer {api_key}"
        self._hosts = tuple(
            HttpHost(
                url,
                tuple(sent.items()),
                self._limits.connect_s,
                self._limits.gap_s,
                self._limits.connections,
            )
            for url in urls
        )
        self._errors = tuple(ErrorReader(url, api_key) for url in urls)
        self._models = tuple(models)
        traits = traits if traits is not None else EndpointTraits()
        self._engine: Engine = traits.engine
        self._paths = frozenset(("", "/embeddings", *(f"/{api}" for api in traits.apis)))
        self._watch: ReplicaWatcher | None = None
        self._is_started = False
        self._probes: dict[int, asyncio.Task[None]] = {}
        self._markings: set[asyncio.Task[None]] = set()

    @property
    def replicas(self) -> int:
        """How many replicas are there, up or down?"""
        return len(self._hosts)

    @property
    def supports_embeddings(self) -> bool:
        """Does `embed` work? It is passed on; the server decides."""
        return True

    def models(self) -> tuple[str, ...]:
        """Which models are served?"""
        return self._models

    async def start(self, watch: ReplicaWatcher | None = None) -> None:
        """Open the client; ask for the models when none were named.

        Args:
            watch: Called when a server stops answering, or answers again.

        Raises:
            PoolError: The models were to be asked for, and the server does not answer.
        """
        self._watch = watch
        self._is_started = True
        if not self._models:
            try:
                self._models = await self._fetch_models(0)
            except BaseException:
                await self.close()
                raise

    async def close(self) -> None:
        """Close all connections."""
        self._is_started = False
        probes, self._probes = list(self._probes.values()), {}
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)
        for host in self._hosts:
            host.close()

    async def complete(self, request: LlmRequest, replica: int) -> AsyncGenerator[LlmChunk, None]:
        """Answer a request, piece by piece; closing the iterator closes the connection at once.

        The first chunk carries the response headers and no text. The last one carries the usage,
        and `raw` only if the upstream sent it in a chunk of its own.

        Args:
            request: What is asked.
            replica: Number of the base URL.

        Raises:
            PoolError: As in `LlmBackend.complete`.
        """
        request = spoken_request(request, self._engine)
        answer = ChunkedAnswer(request, self._errors[replica])
        asked = HttpRequest(
            "POST", _path(request), request_body(request), _more(request.extra_headers)
        )
        limit_s = self._limits.first_token_s
        working = asyncio.create_task(
            self._exchange(replica, asked, answer, limit_s, request.deadline_s)
        )
        try:
            async for chunk in answer.chunks(working):
                yield chunk
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    def relays(self, path: str) -> bool:
        """Can `relay` be asked this path?"""
        return path in self._paths

    async def relay(self, asked: RelayRequest, replica: int, target: RelayTarget) -> RelayedAnswer:
        """Answer a request byte for byte; cancelling closes the connection at once.

        Raises:
            PoolError: As in `LlmBackend.complete`.
        """
        asked = spoken_relay(asked, self._engine)
        relay = relay_for(asked, target, self._errors[replica])
        request = asked.request
        body = asked.body if asked.path else relayed_body(asked)
        sent = HttpRequest("POST", asked.path or _path(request), body, _more(request.extra_headers))
        limit_s = self._limits.first_token_s if asked.stream else self._limits.answer_s
        await self._exchange(replica, sent, relay, limit_s, request.deadline_s)
        return relay.answer()

    def relay_now(
        self, asked: RelayRequest, replica: int, target: RelayTarget, ended: Ended
    ) -> Cut | None:
        """As `relay`, within one call, where a connection is free and the server is up.

        Args:
            asked: What is asked, without a deadline.
            replica: Number of the base URL.
            target: Takes a stream's events.
            ended: Called once, with what is left to be sent or with the error.

        Returns:
            What cuts it; None where `relay` must do it, and nothing was sent.
        """
        if not self._is_started or self._probes or asked.path:
            return None
        limits, host = self._limits, self._hosts[replica]
        limit_s = limits.first_token_s if asked.stream else limits.answer_s
        if self._engine:
            asked = spoken_relay(asked, self._engine)
        path = "/chat/completions" if asked.request.kind == "chat" else "/completions"
        quick = QuickRelay(self, ended, (replica, path, limit_s), relayed_body(asked))
        quick.relay = relay = Relay(asked, target, self._errors[replica], quick)
        connection = host.send_now(path, quick.body, relay, limit_s)
        if connection is None:
            # As in `QuickRelay.set_result`.
            quick.relay = None
            return None
        quick.sent(connection)
        return quick

    def resend(self, quick: QuickRelay) -> "asyncio.Task[None]":
        """Send once more, on a new connection."""
        return asyncio.create_task(self._send_anew(quick))

    def note_failure(self, quick: QuickRelay, error: PoolError) -> None:
        """A server that cannot be reached is down, as `_exchange` has it."""
        relay = quick.relay
        if isinstance(error, PoolUnavailableError) and relay is not None and not relay.status:
            marking = asyncio.create_task(self._mark(quick.replica, up=False))
            self._markings.add(marking)
            marking.add_done_callback(self._markings.discard)

    async def _send_anew(self, quick: QuickRelay) -> None:
        relay = quick.relay
        if relay is None:
            return
        request = HttpRequest("POST", quick.path, quick.body)
        host = self._hosts[quick.replica]
        try:
            quick.sent(await host.send(request, relay, quick.wait_s, fresh=True))
        except PoolError as error:
            relay.fail(error)

    async def embed(
        self,
        texts: list[str],
        model: str,
        replica: int,
        extra_headers: Mapping[str, str] | None = None,
    ) -> Embeddings:
        """Turn texts into vectors.

        Args:
            texts: The texts.
            model: Name of the model.
            replica: Number of the replica.
            extra_headers: HTTP headers for this request.

        Raises:
            PoolError: As in `LlmBackend.complete`.
        """
        body = msgspec.json.encode({"model": model, "input": texts, "encoding_format": "float"})
        more = _more(extra_headers or {})
        raw = parse_object(
            await self._whole(replica, HttpRequest("POST", "/embeddings", body, more))
        )
        usage = parse_usage(raw)
        try:
            rows = sorted(raw["data"], key=lambda row: row["index"])
            return Embeddings(
                vectors=tuple(tuple(float(x) for x in row["embedding"]) for row in rows),
                input_tokens=usage.input_tokens if usage is not None else 0,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PoolProtocolError(
                f"The upstream's embeddings have another shape: {error}."
            ) from error

    async def _fetch_models(self, replica: int) -> tuple[str, ...]:
        raw = parse_object(await self._whole(replica, HttpRequest("GET", "/models")))
        try:
            return tuple(str(entry["id"]) for entry in raw["data"])
        except (KeyError, TypeError) as error:
            raise PoolProtocolError(
                f"The upstream's models have another shape: {error}."
            ) from error

    # --------------------------------------------------------------- private

    async def _whole(self, replica: int, asked: HttpRequest) -> bytes:
        handler = WholeBody(self._errors[replica])
        await self._exchange(replica, asked, handler, self._limits.first_token_s, None)
        return handler.body

    async def _exchange(
        self,
        replica: int,
        asked: HttpRequest,
        handler: WholeBody,
        limit_s: float,
        deadline_s: float | None,
    ) -> None:
        """Send a request and wait until its answer is whole; whatever ends it early cuts it."""
        if not self._is_started:
            raise PoolUnavailableError("The endpoint pool is not started.")
        try:
            if deadline_s is None:
                await self._send(replica, asked, handler, limit_s)
            else:
                async with asyncio.timeout(deadline_s):
                    await self._send(replica, asked, handler, limit_s)
        except TimeoutError as error:
            url = self._hosts[replica].url
            raise PoolTimeoutError(f"{url} sent no answer for {deadline_s:g} s.") from error
        except PoolUnavailableError:
            if not handler.status:
                await self._mark(replica, up=False)
            raise
        except PoolRejectedError:
            # It answers, if only that it lists no models; a probe learns nothing else of it.
            if self._probes:
                await self._mark(replica, up=True)
            raise
        if self._probes:
            await self._mark(replica, up=True)

    async def _send(
        self, replica: int, asked: HttpRequest, handler: WholeBody, limit_s: float
    ) -> None:
        """A connection that ended unused while we sent gets one more try, on a new one."""
        for fresh in (False, True):
            connection = await self._hosts[replica].send(asked, handler, limit_s, fresh=fresh)
            handler.flows(connection)
            try:
                await handler.ended()
            except StaleConnectionError:
                if fresh:
                    raise
                handler.renew()
            else:
                return
            finally:
                handler.flows(None)
                connection.drop(handler)

    async def _mark(self, replica: int, *, up: bool) -> None:
        is_down = replica in self._probes
        if up and is_down:
            probe = self._probes.pop(replica)
            if probe is not asyncio.current_task():
                probe.cancel()
        elif not up and not is_down and self._is_started:
            self._probes[replica] = asyncio.create_task(self._probe(replica))
        if up == is_down and self._watch is not None:
            await self._watch(replica, up)

    async def _probe(self, replica: int) -> None:
        while True:
            await asyncio.sleep(self._limits.probe_s)
            with contextlib.suppress(PoolError):
                # Marks the replica as up when it answers; that ends this task.
                await self._fetch_models(replica)
            if self._probes.get(replica) is not asyncio.current_task():
                return


def _path(request: LlmRequest) -> str:
    return "/chat/completions" if request.kind == "chat" else "/completions"


def _more(headers: Mapping[str, str]) -> bytes:
    try:
        return header_lines(headers.items())
    except ConfigError as error:
        raise PoolRejectedError(str(error)) from error
