"""The /v1 endpoints: parse, place, answer."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import msgspec

from steelyard.domain.task import Step
from steelyard.errors import PoolError
from steelyard.gateway.answer import Answer
from steelyard.gateway.chat import parse_chat
from steelyard.gateway.completions import parse_completion
from steelyard.gateway.embeddings import EMBEDDINGS_PATH, EmbeddingsDesk
from steelyard.gateway.errors_http import RequestError, too_large
from steelyard.gateway.exchange import Exchange
from steelyard.gateway.generation import Generation
from steelyard.gateway.headers import NOTHING, says_anything, task_headers
from steelyard.gateway.hints import (
    hints_of,
    names_anyone,
    names_session,
    with_affinity,
    with_session,
)
from steelyard.gateway.keys_identity import keyed_headers
from steelyard.gateway.model_checks import check_kept, check_length, check_model, check_relayed
from steelyard.gateway.overdue import Overdue
from steelyard.gateway.quick import QuickEnds, QuickRequest
from steelyard.gateway.rerank import RERANK_PATH, Rerank
from steelyard.gateway.responses import RESPONSES_PATH, Responses
from steelyard.gateway.settings import GatewaySettings
from steelyard.gateway.tasks import RequestTask, context_tokens, llm_call
from steelyard.gateway.tracing import traced_request
from steelyard.gateway.wire import parse_json
from steelyard.pools.backend import RelayRequest
from steelyard.runtime.dispatcher import Dispatcher

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
        self._overdue = Overdue()
        self._created = int(dispatcher.now_s())
        self._parsers: dict[str, Callable[[dict[str, Any]], Generation]] = {
            "/v1/chat/completions": parse_chat,
            "/v1/completions": parse_completion,
        }
        self._responses = Responses(settings, dispatcher, self._document)
        self._rerank = Rerank(settings, dispatcher, self._document)
        self._embeddings = EmbeddingsDesk(settings, dispatcher, self._document)
        self._posts: dict[str, Callable[[Exchange], Awaitable[None]]] = {
            "/v1/chat/completions": self._text,
            "/v1/completions": self._text,
            EMBEDDINGS_PATH: self._embeddings.create,
            RESPONSES_PATH: self._responses.create,
            RERANK_PATH: self._rerank.create,
        }

    def change_settings(self, settings: GatewaySettings) -> None:
        """Answer later requests by these settings."""
        self._settings = settings
        self._limits = settings.limits
        self._responses.change_settings(settings)
        self._rerank.change_settings(settings)
        self._embeddings.change_settings(settings)

    def route(self, path: str) -> str:
        """Under which name is a path counted? Paths that clients make up are one name."""
        if path in self._posts or path == _MODELS_PATH:
            return path
        if path.startswith(RESPONSES_PATH + "/"):
            return f"{RESPONSES_PATH}/{{response}}"
        return f"{_MODELS_PATH}/{{model}}" if path.startswith(_MODELS_PATH + "/") else _OTHER_PATH

    def admit(self, exchange: Exchange) -> None:
        """Refuse a request by its head alone.

        Args:
            exchange: The request, without its body.

        Raises:
            RequestError: Nothing like this is served here, or its body cannot be read.
        """
        path = exchange.path
        if path in self._posts:
            _check_method(exchange, "POST")
            _check_body(exchange, self._limits.body_bytes)
        elif path == _MODELS_PATH or path.startswith(_MODELS_PATH + "/"):
            _check_method(exchange, "GET")
        elif path.startswith(RESPONSES_PATH + "/"):
            _check_method(exchange, "GET", "DELETE")
        else:
            known = ", ".join([*self._posts, _MODELS_PATH])
            msg = f"{exchange.method} {path[:80]!r} is not served here; there are {known}"
            raise RequestError(msg, status=404, code="unknown_path")

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request.

        Args:
            exchange: The request, whole and not refused.

        Raises:
            SteelyardError: What went wrong; nothing was sent then, or a stream has begun.
        """
        post = self._posts.get(exchange.path)
        if post is None:
            is_response = exchange.path.startswith(RESPONSES_PATH)
            (self._responses.stored if is_response else self._models)(exchange)
            return
        self._start_timer(exchange)
        await post(exchange)

    def _start_timer(self, exchange: Exchange) -> None:
        limit_s = self._limits.request_timeout_s
        self._overdue.begin(exchange, limit_s, asyncio.get_running_loop())

    def ended(self, exchange: Exchange) -> None:
        """A request is over, in whatever way."""
        self._overdue.end(exchange)

    def begin_quick(self, exchange: Exchange, ends: QuickEnds) -> bool:
        """Answer a request in callbacks alone, where it is that simple.

        Args:
            exchange: The request, whole.
            ends: Told of its end.

        Returns:
            Whether it is being answered; False: nothing has happened.

        Raises:
            SteelyardError: Something is wrong with the request.
        """
        parse = self._parsers.get(exchange.path)
        if parse is None or exchange.refusal is not None:
            return False
        # A key's budget is reserved in the store, for which a task must wait.
        if exchange.key is not None or not _is_plain(exchange):
            return False
        exchange.parsed = generation = self._checked(exchange, parse)
        request, dispatcher = generation.request, self._dispatcher
        prefixes = generation.prefixes
        if names_anyone(request.raw_body):
            hints = hints_of(exchange, request.raw_body)
            if hints.task is not None:
                return False
            prefixes = with_affinity(prefixes, request.model, hints, request.raw_body)
        limit = request.max_output_tokens
        if limit is not None:
            limit *= request.n
        call = llm_call(dispatcher, request.model, prefixes, limit)
        step = Step(
            task_id=dispatcher.new_task_id(),
            step_id=0,
            agent=NOTHING.agent,
            name=request.kind,
            call=call,
            on_miss=self._settings.on_miss,
        )
        answer = Answer(exchange, generation, step, dispatcher.now_s)
        asked = RelayRequest(request=request, body=exchange.body, stream=generation.stream)
        quick = QuickRequest(exchange, asked, answer, ends)
        whole = quick.whole = dispatcher.relay_whole(step, call, asked, quick)
        if whole is None:
            return False
        exchange.step_key = step.key
        answer.placed(whole.decision)
        exchange.answer_by(quick)
        self._start_timer(exchange)
        return True

    async def go_on(self, quick: QuickRequest, error: PoolError) -> None:
        """See what can be done about a quick request whose first attempt failed.

        Args:
            quick: The request; its attempt is recorded.
            error: Why it failed.

        Raises:
            SteelyardError: Nothing, or the next attempts failed, too.
        """
        step, answer = quick.answer.step, quick.answer
        with RequestTask(self._dispatcher, NOTHING, self._settings.on_miss, step.task_id):
            answer.settled(await self._dispatcher.relay_llm(step, quick.asked, answer, error))
        answer.finish()

    # ------------------------------------------------------------- generation

    async def _text(self, exchange: Exchange) -> None:
        generation = exchange.parsed
        if generation is None:
            generation = self._checked(exchange, self._parsers[exchange.path])
        await self._generate(exchange, generation)

    def _checked(
        self, exchange: Exchange, parse: Callable[[dict[str, Any]], Generation]
    ) -> Generation:
        generation = parse(self._document(exchange))
        request = generation.request
        tokens = generation.prefixes.input_tokens
        if tokens >= self._dispatcher.context_tokens(request.model):
            # Too long perhaps, or for a model that nobody serves.
            check_model(self._dispatcher, request.model, exchange.key)
            param = "messages" if request.kind == "chat" else "prompt"
            check_length(self._dispatcher, request.model, tokens, param)
        if generation.unusual:
            check_relayed(self._dispatcher, request.model, generation.unusual)
        return generation

    async def _generate(self, exchange: Exchange, generation: Generation) -> None:
        request = generation.request
        hints = hints_of(exchange, request.raw_body)
        # The key first: a session that others name is a hint, and no reason to refuse.
        sent = keyed_headers(exchange.key, task_headers(exchange), request.model)
        headers = with_session(sent, hints)
        if headers.step_id is not None:
            check_kept(generation.unusual)
        prefixes = with_affinity(generation.prefixes, request.model, hints, request.raw_body)
        limit = request.max_output_tokens
        with RequestTask(self._dispatcher, headers, self._settings.on_miss) as task:
            all_answers = None if limit is None else limit * request.n
            name = request.kind
            step = task.step(name, request.model, prefixes, all_answers)
            if exchange.key is not None:
                most = all_answers
                if most is None and request.n > 1:
                    # Each of them may be as long as the context.
                    most = request.n * self._dispatcher.context_tokens(request.model)
                older: int | None = request.raw_body.get("max_tokens")
                if most is not None and older is not None:
                    # Of two limits, nobody knows which one an engine without a name goes by.
                    most = max(most, older * request.n)
                step = await exchange.key.reserve(step, most, exchange.body)
            exchange.step_key = step.key
            if task.remaining_s is not None:
                request = msgspec.structs.replace(request, deadline_s=task.remaining_s)
            request = traced_request(request, step, kept=self._settings.traced)
            answer = Answer(exchange, generation, step, self._dispatcher.now_s)
            asked = RelayRequest(request=request, body=exchange.body, stream=generation.stream)
            dispatcher = self._dispatcher
            relay = dispatcher.relay_journalled if task.journal else dispatcher.relay_llm
            answer.settled(await relay(step, asked, answer))
        answer.finish()

    # ----------------------------------------------------------------- models

    def _models(self, exchange: Exchange) -> None:
        # Clients write the slash in a name as %2F.
        name = unquote(exchange.path.removeprefix(_MODELS_PATH).removeprefix("/"))
        use = exchange.key
        if name:
            check_model(self._dispatcher, name, use)
            # Its refusal is all that is wanted.
            keyed_headers(use, NOTHING, name)
            body = self._model(name)
        else:
            names = [one for one in self._dispatcher.models() if use is None or use.may_use(one)]
            models = [self._model(model) for model in names]
            body = {"object": "list", "data": models}
        exchange.respond(200, msgspec.json.encode(body))

    def _model(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "steelyard",
            "max_model_len": context_tokens(self._dispatcher, name),
        }

    # ----------------------------------------------------------------- shared

    def _document(self, exchange: Exchange) -> dict[str, Any]:
        return parse_json(exchange.body, self._limits.json_depth)


def _is_plain(exchange: Exchange) -> bool:
    """Do the headers say nothing of tasks or sessions?"""
    headers = exchange.headers
    if headers.is_plain is None:
        headers.is_plain = not says_anything(exchange) and not names_session(exchange)
    return headers.is_plain


def _check_method(exchange: Exchange, *methods: str) -> None:
    if exchange.method not in methods:
        allowed = ", ".join(methods)
        msg = f"{exchange.path[:80]} takes {allowed}, not {exchange.method[:20]!r}"
        allow = [(b"allow", allowed.encode())]
        raise RequestError(msg, status=405, code="method_not_allowed", headers=allow)


def _check_body(exchange: Exchange, max_bytes: int) -> None:
    encoding = exchange.header(b"content-encoding") or "identity"
    if encoding.lower() != "identity":
        told = f"content-encoding {encoding[:80]!r} is not read; send plain"
        raise RequestError(told, status=415, param="content-encoding")
    declared = exchange.header(b"content-length") or "0"
    if declared.isdigit() and int(declared) > max_bytes:
        raise too_large(int(declared), max_bytes)
