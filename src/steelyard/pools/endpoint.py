"""Any OpenAI-compatible server as a pool: vLLM, SGLang, a vendor, or Steelyard's own gateway."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import aiohttp
import msgspec

from steelyard.errors import (
    ConfigError,
    PoolError,
    PoolOverloadedError,
    PoolProtocolError,
    PoolRejectedError,
    PoolTimeoutError,
    PoolUnavailableError,
)
from steelyard.pools.backend import (
    Embeddings,
    JsonObject,
    LlmChunk,
    LlmRequest,
    LlmUsage,
    ReplicaWatcher,
)
from steelyard.pools.sse import SseParser
from steelyard.pools.wire import (
    estimated_usage,
    parse_chunks,
    parse_object,
    parse_usage,
    request_body,
)

_MAX_ERROR_BYTES = 64 * 1024
_MAX_ANSWER_BYTES = 64 * 1024 * 1024
_MAX_MESSAGE_CHARS = 500
_READ_BYTES = 64 * 1024
_DEFAULT_RETRY_AFTER_S = 1.0


class EndpointLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How long to wait.

    Attributes:
        connect_s: For a connection.
        first_token_s: From sending the request to the first event.
        gap_s: From one event to the next.
        probe_s: Between looks at a server that is down.
    """

    connect_s: float = 5.0
    first_token_s: float = 120.0
    gap_s: float = 60.0
    probe_s: float = 5.0


class OpenAiEndpointPool:
    """Equal OpenAI-compatible servers; each base URL is a replica.

    Redirects are never followed, and the key is in no message.

    Args:
        base_urls: One per replica, up to and with `/v1`.
        models: Names of the models; empty asks the first server at `start`.
        api_key: Sent as a bearer token; empty for none.
        limits: How long to wait.
        headers: Sent with every request.

    Raises:
        ConfigError: A base URL is no http(s) URL, or the key cannot be in a header.
    """

    def __init__(
        self,
        base_urls: Sequence[str],
        models: Sequence[str] = (),
        api_key: str = "",
        limits: EndpointLimits | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._base_urls = tuple(_checked_url(url) for url in base_urls)
        if not self._base_urls:
            raise ConfigError("An endpoint pool needs at least one base URL.")
        if not api_key.isprintable() or not api_key.isascii():
            raise ConfigError("The API key of an endpoint pool has characters no header can hold.")
        self._models = tuple(models)
        self._api_key = api_key
        self._limits = limits if limits is not None else EndpointLimits()
        self._headers = dict(headers or {})
        self._session: aiohttp.ClientSession | None = None
        self._watch: ReplicaWatcher | None = None
        self._probes: dict[int, asyncio.Task[None]] = {}

    @property
    def replicas(self) -> int:
        """How many replicas are there, up or down?"""
        return len(self._base_urls)

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
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._limits.connect_s),
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity"},
        )
        if not self._models:
            try:
                self._models = await self._fetch_models(0)
            except BaseException:
                await self.close()
                raise

    async def close(self) -> None:
        """Close all connections."""
        probes, self._probes = list(self._probes.values()), {}
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)
        session, self._session = self._session, None
        if session is not None:
            await session.close()

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
        path = "/chat/completions" if request.kind == "chat" else "/completions"
        body = request_body(request)
        deadline_s = _deadline(request)
        async with self._post(replica, path, body, request.extra_headers, deadline_s) as response:
            yield LlmChunk(response_headers=dict(response.headers))
            answer = _Answer(request)
            objects = self._objects(response, replica, deadline_s)
            async with contextlib.aclosing(objects):
                async for raw in objects:
                    for chunk in answer.read(raw):
                        yield chunk
            yield answer.last()

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
        async with self._post(replica, "/embeddings", body, extra_headers or {}, None) as response:
            raw = parse_object(await self._whole(response, replica))
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
        async with self._open("GET", replica, "/models", None, {}, None) as response:
            raw = parse_object(await self._whole(response, replica))
        try:
            return tuple(str(entry["id"]) for entry in raw["data"])
        except (KeyError, TypeError) as error:
            raise PoolProtocolError(
                f"The upstream's models have another shape: {error}."
            ) from error

    def _post(
        self,
        replica: int,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        deadline_s: float | None,
    ) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._open("POST", replica, path, body, headers, deadline_s)

    @contextlib.asynccontextmanager
    async def _open(
        self,
        method: str,
        replica: int,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        deadline_s: float | None,
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        if self._session is None:
            raise PoolUnavailableError("The endpoint pool is not started.")
        url = self._base_urls[replica] + path
        sent = {**self._headers, **headers}
        if body is not None:
            sent["Content-Type"] = "application/json"
        if self._api_key:
            sent["Authorization"] = f"Bearer {self._api_key}"
        async with self._guarded(replica, self._limits.first_token_s, deadline_s):
            response = await self._session.request(
                method, url, data=body, headers=sent, allow_redirects=False
            )
        try:
            await self._check_status(response, replica)
            await self._mark(replica, up=True)
            yield response
        finally:
            # Not release(): an unfinished answer must stop the work upstream, now.
            response.close()

    @contextlib.asynccontextmanager
    async def _guarded(
        self, replica: int, patience_s: float, deadline_s: float | None
    ) -> AsyncGenerator[None, None]:
        """Turn what can go wrong on a connection into errors of the pool."""
        now_s = time.monotonic()
        left_s = patience_s if deadline_s is None else min(patience_s, max(0.0, deadline_s - now_s))
        url = self._base_urls[replica]
        try:
            async with asyncio.timeout(left_s):
                yield
        except aiohttp.ConnectionTimeoutError as error:
            await self._mark(replica, up=False)
            raise PoolUnavailableError(
                f"{url} took no connection within {self._limits.connect_s:g} s."
            ) from error
        except TimeoutError as error:
            raise PoolTimeoutError(f"{url} sent nothing for {left_s:g} s.") from error
        except aiohttp.ClientConnectionError as error:
            await self._mark(replica, up=False)
            raise PoolUnavailableError(self._clean(f"{url} is not reachable: {error}")) from error
        except aiohttp.ClientPayloadError as error:
            raise PoolUnavailableError(f"{url} broke off its answer.") from error
        except (aiohttp.ClientError, ValueError) as error:
            raise PoolProtocolError(
                self._clean(f"{url} cannot be understood: {type(error).__name__}: {error}")
            ) from error

    async def _objects(
        self, response: aiohttp.ClientResponse, replica: int, deadline_s: float | None
    ) -> AsyncGenerator[JsonObject, None]:
        """The JSON objects of the answer: the events of a stream, or the one whole answer."""
        if response.content_type != "text/event-stream":
            yield parse_object(await self._whole(response, replica))
            return
        parser = SseParser()
        patience_s = self._limits.first_token_s
        while True:
            async with self._guarded(replica, patience_s, deadline_s):
                received = await response.content.read(_READ_BYTES)
            patience_s = self._limits.gap_s
            for event in parser.feed(received) if received else parser.finish():
                if event == "[DONE]":
                    return
                raw = parse_object(event)
                if raw.get("error"):
                    raise self._error(_status_in(raw), msgspec.json.encode(raw), None, replica)
                yield raw
            if not received:
                return

    async def _whole(self, response: aiohttp.ClientResponse, replica: int) -> bytes:
        async with self._guarded(replica, self._limits.first_token_s, None):
            body = await response.content.read(_MAX_ANSWER_BYTES)
            parts = [body]
            while body and len(b"".join(parts)) <= _MAX_ANSWER_BYTES:
                body = await response.content.read(_MAX_ANSWER_BYTES)
                parts.append(body)
        return b"".join(parts)

    async def _check_status(self, response: aiohttp.ClientResponse, replica: int) -> None:
        if response.status == 200:
            return
        async with self._guarded(replica, self._limits.gap_s, None):
            body = await response.content.read(_MAX_ERROR_BYTES)
        raise self._error(response.status, body, response.headers.get("Retry-After"), replica)

    def _error(self, status: int, body: bytes, retry_after: str | None, replica: int) -> PoolError:
        said = self._clean(_message(body))
        text = f"{self._base_urls[replica]} answered {status}: {said}"
        error = _error_of(status, text, retry_after)
        error.upstream_code, error.upstream_message = _code(body), said
        return error

    def _clean(self, text: str) -> str:
        short = " ".join(text.split())[:_MAX_MESSAGE_CHARS]
        return short.replace(self._api_key, "***") if self._api_key else short

    async def _mark(self, replica: int, *, up: bool) -> None:
        is_down = replica in self._probes
        if up and is_down:
            probe = self._probes.pop(replica)
            if probe is not asyncio.current_task():
                probe.cancel()
        elif not up and not is_down and self._session is not None:
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


class _Answer:
    """What has been seen of an answer: is it whole, and what did it use?"""

    def __init__(self, request: LlmRequest) -> None:
        self._request = request
        self._texts: list[str] = []
        self._finished: set[int] = set()
        self._usage: LlmUsage | None = None
        self._usage_raw: JsonObject | None = None

    def read(self, raw: JsonObject) -> list[LlmChunk]:
        """Which chunks are to be sent on now?"""
        usage = parse_usage(raw)
        self._usage = usage if usage is not None else self._usage
        chunks = parse_chunks(raw)
        if usage is not None and not raw.get("choices"):
            self._usage_raw = raw
            return []
        for chunk in chunks:
            if chunk.text or chunk.tool_calls:
                pieces = [chunk.text, *(c.name + c.arguments for c in chunk.tool_calls)]
                self._texts.append("".join(pieces))
            if chunk.finish_reason is not None:
                self._finished.add(chunk.index)
        return chunks

    def last(self) -> LlmChunk:
        """The chunk with the usage.

        Raises:
            PoolUnavailableError: The answer ended before it was whole.
        """
        if not self._finished:
            raise PoolUnavailableError("The upstream ended its answer without a finish_reason.")
        usage = self._usage or estimated_usage(self._request, self._texts)
        return LlmChunk(usage=usage, raw=self._usage_raw)


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or "@" in url or "?" in url:
        shown = url.rpartition("@")[2]
        raise ConfigError(
            f"The base URL {shown!r} must be http(s)://HOST[:PORT]/v1, without user and query."
        )
    return url.rstrip("/")


def _deadline(request: LlmRequest) -> float | None:
    return None if request.deadline_s is None else time.monotonic() + request.deadline_s


def _error_of(status: int, text: str, retry_after: str | None) -> PoolError:
    """Which error says what the upstream's status means for the caller?"""
    if status in {429, 503} and (status == 429 or retry_after is not None):
        return PoolOverloadedError(text, retry_after_s=_retry_after_s(retry_after))
    if status in {408, 504}:
        return PoolTimeoutError(text)
    # A refused key is the pool's fault, not the request's: another pool may answer.
    if status >= 500 or status in {401, 402, 403}:
        return PoolUnavailableError(text)
    if status >= 400:
        return PoolRejectedError(text)
    return PoolProtocolError(f"{text} (redirects are not followed)")


def _code(body: bytes) -> str:
    try:
        error = parse_object(body).get("error")
    except PoolProtocolError:
        return ""
    code = error.get("code") if isinstance(error, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return code if isinstance(code, str) else ""


def _message(body: bytes) -> str:
    try:
        error = parse_object(body).get("error")
    except PoolProtocolError:
        return body.decode("utf-8", "replace")
    message = error.get("message") if isinstance(error, dict) else error  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return str(message) if message else body.decode("utf-8", "replace")  # pyright: ignore[reportUnknownArgumentType]


def _status_in(raw: JsonObject) -> int:
    error = raw["error"]
    code = error.get("code") if isinstance(error, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return code if isinstance(code, int) and 400 <= code < 600 else 500


def _retry_after_s(value: str | None) -> float:
    if value is None:
        return _DEFAULT_RETRY_AFTER_S
    try:
        return min(3600.0, max(0.0, float(value)))
    except ValueError:
        pass
    try:
        return min(3600.0, max(0.0, parsedate_to_datetime(value).timestamp() - time.time()))
    except ValueError:
        return _DEFAULT_RETRY_AFTER_S
