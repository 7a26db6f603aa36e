"""The /v1 endpoints: parse, place, answer."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any

import msgspec

from steelyard.domain.decision import Decision
from steelyard.errors import PoolTimeoutError, SteelyardBugError
from steelyard.gateway import sse
from steelyard.gateway.chat import ChatRenderer, parse_chat
from steelyard.gateway.completions import CompletionRenderer, parse_completion
from steelyard.gateway.connection import while_connected
from steelyard.gateway.embeddings import embeddings_object, input_texts, parse_embeddings
from steelyard.gateway.errors_http import RequestError
from steelyard.gateway.exchange import Exchange
from steelyard.gateway.generation import (
    AnswerHead,
    AnswerParts,
    Generation,
    Renderer,
    collect,
)
from steelyard.gateway.headers import TaskHeaders, cost_header, decision_headers, task_headers
from steelyard.gateway.prefix import Prefixes, chat_prefixes
from steelyard.gateway.settings import GatewaySettings
from steelyard.gateway.tasks import RequestTask, context_tokens, surely_too_long
from steelyard.gateway.wire import EmbeddingsRequest, parse_json
from steelyard.pools.backend import LlmChunk
from steelyard.runtime.dispatcher import Dispatcher, Settlement

_MODELS_PATH = "/v1/models"
_OTHER_PATH = "other"


class DataPlane:
    """Answers requests under /v1.

    Args:
        settings: The gateway's settings.
        dispatcher: Places and runs steps.
    """

    def __init__(self, settings: GatewaySettings, dispatcher: Dispatcher) -> None:
        self._settings = settings
        self._limits = settings.limits
        self._dispatcher = dispatcher
        self._created = int(dispatcher.now_s())
        self._posts: dict[str, Callable[[Exchange], Awaitable[None]]] = {
            "/v1/chat/completions": self._chat,
            "/v1/completions": self._completion,
            "/v1/embeddings": self._embeddings,
        }

    def route(self, path: str) -> str:
        """Under which name is a path counted? Paths that clients make up are one name."""
        if path in self._posts or path == _MODELS_PATH:
            return path
        return f"{_MODELS_PATH}/{{model}}" if path.startswith(_MODELS_PATH + "/") else _OTHER_PATH

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request.

        Args:
            exchange: The request.

        Raises:
            SteelyardError: What went wrong; nothing was sent then, or a stream has begun.
        """
        path = exchange.path
        post = self._posts.get(path)
        if post is not None:
            _check_method(exchange, "POST")
            await post(exchange)
        elif path == _MODELS_PATH or path.startswith(_MODELS_PATH + "/"):
            _check_method(exchange, "GET")
            await self._models(exchange)
        else:
            known = ", ".join([*self._posts, _MODELS_PATH])
            msg = f"{exchange.method} {path[:80]!r} is not served here; there are {known}"
            raise RequestError(msg, status=404, code="unknown_path")

    # ------------------------------------------------------------- generation

    async def _chat(self, exchange: Exchange) -> None:
        generation = parse_chat(await self._document(exchange))
        await self._generate(exchange, generation, "chat", "chatcmpl")

    async def _completion(self, exchange: Exchange) -> None:
        generation = parse_completion(await self._document(exchange))
        await self._generate(exchange, generation, "completion", "cmpl")

    async def _generate(
        self, exchange: Exchange, generation: Generation, name: str, id_prefix: str
    ) -> None:
        self._check_model(generation.request.model)
        self._check_length(generation)
        headers = task_headers(exchange)
        work = self._answer(exchange, generation, headers, (name, id_prefix))
        await self._while_connected(exchange, work)

    async def _answer(
        self,
        exchange: Exchange,
        generation: Generation,
        headers: TaskHeaders,
        names: tuple[str, str],
    ) -> None:
        name, id_prefix = names
        request = generation.request
        limit = request.max_output_tokens
        with RequestTask(self._dispatcher, headers, self._settings.on_miss) as task:
            all_answers = None if limit is None else limit * request.n
            step = task.step(name, request.model, generation.prefixes, all_answers)
            exchange.step_key = step.key
            request = msgspec.structs.replace(request, deadline_s=task.remaining_s)
            head = AnswerHead(
                id=f"{id_prefix}-{step.task_id}-{step.step_id}",
                created=int(self._dispatcher.now_s()),
                model=request.model,
            )
            renderer = _renderer(generation, head)
            items = self._dispatcher.serve_llm_once(step, request, journal=task.journal)
            answer = _Answer(exchange, generation, renderer, step.task_id)
            async with aclosing(items):
                async for item in items:
                    await answer.take(item)
        await answer.finish()

    # ------------------------------------------------------------- embeddings

    async def _embeddings(self, exchange: Exchange) -> None:
        asked = parse_embeddings(await self._document(exchange))
        self._check_model(asked.model)
        headers = task_headers(exchange)
        await self._while_connected(exchange, self._embed(exchange, asked, headers))

    async def _embed(
        self, exchange: Exchange, asked: EmbeddingsRequest, headers: TaskHeaders
    ) -> None:
        texts = input_texts(asked)
        messages: list[dict[str, Any]] = [{"content": text} for text in texts]
        length = chat_prefixes(asked.model, messages, []).input_tokens
        with RequestTask(self._dispatcher, headers, self._settings.on_miss) as task:
            # No hashes: an embedding leaves nothing in a cache that another step could use.
            prefixes = Prefixes(hashes=(), tokens=(), input_tokens=length)
            step = task.step("embedding", asked.model, prefixes, 0)
            exchange.step_key = step.key
            decision, vectors, settlement = await self._dispatcher.embed(
                step, texts, asked.model, journal=task.journal
            )
        body = msgspec.json.encode(embeddings_object(asked, vectors, settlement))
        sent = [*decision_headers(step.task_id, decision), cost_header(settlement.cost_usd)]
        await exchange.respond(200, body, sent)

    # ----------------------------------------------------------------- models

    async def _models(self, exchange: Exchange) -> None:
        name = exchange.path.removeprefix(_MODELS_PATH).removeprefix("/")
        if name:
            self._check_model(name)
            body = self._model(name)
        else:
            models = [self._model(model) for model in self._dispatcher.models()]
            body = {"object": "list", "data": models}
        await exchange.respond(200, msgspec.json.encode(body), [])

    def _model(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "steelyard",
            "max_model_len": context_tokens(self._dispatcher, name),
        }

    # ----------------------------------------------------------------- shared

    async def _document(self, exchange: Exchange) -> dict[str, Any]:
        body = await exchange.body(self._limits.body_bytes, self._limits.body_timeout_s)
        return parse_json(body, self._limits.json_depth)

    async def _while_connected(self, exchange: Exchange, work: Coroutine[None, None, None]) -> None:
        limit_s = self._limits.request_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                exchange.left = not await while_connected(exchange, work)
        except TimeoutError as error:
            msg = f"the answer was not complete within {limit_s:g} s and was given up"
            raise PoolTimeoutError(msg) from error

    def _check_model(self, model: str) -> None:
        models = self._dispatcher.models()
        if model not in models:
            msg = f"the model {model[:80]!r} does not exist; there are {', '.join(models)}"
            raise RequestError(msg, status=404, param="model", code="model_not_found")

    def _check_length(self, generation: Generation) -> None:
        model, tokens = generation.request.model, generation.prefixes.input_tokens
        if surely_too_long(self._dispatcher, model, tokens):
            raise RequestError(
                f"the prompt has about {tokens} tokens; {model} takes "
                f"{context_tokens(self._dispatcher, model)} with the answer; shorten the prompt",
                param="messages" if generation.request.kind == "chat" else "prompt",
                code="context_length_exceeded",
            )


class _Answer:
    """Sends the answer of one generation, streamed or whole."""

    def __init__(
        self, exchange: Exchange, generation: Generation, renderer: Renderer, task_id: str
    ) -> None:
        self._exchange = exchange
        self._generation = generation
        self._renderer = renderer
        self._task_id = task_id
        self._decision: Decision | None = None
        self._settlement: Settlement | None = None
        self._parts: list[AnswerParts] = []

    async def take(self, item: Decision | LlmChunk | Settlement) -> None:
        """Take the next thing that the dispatcher says."""
        if isinstance(item, LlmChunk):
            if self._generation.stream:
                await self._send(item)
            else:
                collect(self._parts, item)
        elif isinstance(item, Decision):
            # Another decision is a retry: what the failed attempt said does not count.
            self._decision = item
            self._exchange.pool = item.pool
            self._parts.clear()
        else:
            self._settlement = item

    async def finish(self) -> None:
        """Send the end of the answer."""
        if self._settlement is None or self._decision is None:
            raise SteelyardBugError(f"a step of task {self._task_id} ended without a settlement")
        if self._generation.stream:
            await self._begin()
            last = b""
            if self._generation.include_usage:
                last = sse.event(self._renderer.usage_chunk(self._settlement))
            await self._exchange.end(last + sse.DONE)
            return
        body = msgspec.json.encode(self._renderer.answer(self._parts, self._settlement))
        headers = decision_headers(self._task_id, self._decision)
        headers.append(cost_header(self._settlement.cost_usd))
        await self._exchange.respond(200, body, headers)

    async def _send(self, chunk: LlmChunk) -> None:
        payload = self._renderer.chunk(chunk)
        if payload is not None:
            # Only now: until the first piece an error can still have its own HTTP status.
            await self._begin()
            await self._exchange.write(sse.event(payload))

    async def _begin(self) -> None:
        if not self._exchange.status and self._decision is not None:
            await self._exchange.begin_stream(decision_headers(self._task_id, self._decision))


def _renderer(generation: Generation, head: AnswerHead) -> Renderer:
    with_usage = generation.stream and generation.include_usage
    kind = ChatRenderer if generation.request.kind == "chat" else CompletionRenderer
    return kind(head, include_usage=with_usage)


def _check_method(exchange: Exchange, method: str) -> None:
    if exchange.method != method:
        msg = f"{exchange.path} takes {method}, not {exchange.method[:20]!r}"
        allow = [(b"allow", method.encode())]
        raise RequestError(msg, status=405, code="method_not_allowed", headers=allow)
