"""/v1/responses: asked as a chat where pools speak chats alone, else handed on byte for byte."""

from collections.abc import Callable
from typing import Any

import msgspec

from steelyard.errors import SteelyardError
from steelyard.gateway.chat import parse_chat
from steelyard.gateway.errors_http import RequestError
from steelyard.gateway.exchange import Exchange
from steelyard.gateway.generation import Generation
from steelyard.gateway.headers import TaskHeaders, task_headers
from steelyard.gateway.hints import hints_of, with_affinity, with_session
from steelyard.gateway.keys_identity import keyed_headers
from steelyard.gateway.model_checks import check_length, check_model
from steelyard.gateway.prefix import chat_prefixes
from steelyard.gateway.responses_answer import ResponseAnswer
from steelyard.gateway.responses_chat import chat_document
from steelyard.gateway.responses_memory import ResponsesMemory, owner_of
from steelyard.gateway.responses_wire import ResponsesRequest, check_background
from steelyard.gateway.settings import GatewaySettings
from steelyard.gateway.tasks import RequestTask
from steelyard.gateway.tracing import traced_request
from steelyard.gateway.wire import parse_request
from steelyard.pools.backend import (
    LlmRequest,
    RelayBackend,
    RelayRequest,
)
from steelyard.pools.wire import names_once
from steelyard.runtime.dispatcher import Dispatcher

RESPONSES_PATH = "/v1/responses"
_UPSTREAM_PATH = "/responses"
_Json = dict[str, Any]
# Of two values under one name, we and the upstream could each read another one.
_READ_FIELDS = (b'"model"', b'"input"', b'"stream"', b'"previous_response_id"', b'"store"')


class _Question(msgspec.Struct, frozen=True, kw_only=True):
    """A request with everything that an answer needs.

    Attributes:
        asked: The request.
        document: Its body.
        generation: The same as a chat.
        body: What a pool with /responses is asked.
        previous_id: The response before, where it is kept here.
        owner: Who asks.
    """

    asked: ResponsesRequest
    document: _Json
    generation: Generation
    body: bytes
    previous_id: str | None
    owner: bytes


class Responses:
    """Answers what is under /v1/responses.

    Args:
        settings: The gateway's settings.
        dispatcher: Places and runs steps.
        document: Reads the body of a request.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        dispatcher: Dispatcher,
        document: Callable[[Exchange], _Json],
    ) -> None:
        self._settings = settings
        self._dispatcher = dispatcher
        self._document = document
        self._memory = ResponsesMemory(dispatcher.now_s)

    def change_settings(self, settings: GatewaySettings) -> None:
        """Answer later requests by these settings."""
        self._settings = settings

    def stored(self, exchange: Exchange) -> None:
        """Answer a request for a response that is kept, or to forget it.

        Args:
            exchange: GET or DELETE of `/v1/responses/ID`.

        Raises:
            RequestError: There is none.
        """
        response_id = exchange.path.removeprefix(RESPONSES_PATH + "/")
        owner = owner_of(exchange)
        body = self._memory.response(owner, response_id)
        if body is None:
            msg = f"no response {response_id[:80]!r} is kept here; they are kept for an hour"
            raise RequestError(msg, status=404, param="response_id", code="response_not_found")
        if exchange.method == "DELETE":
            self._memory.forget(owner, response_id)
            body = msgspec.json.encode({"id": response_id, "object": "response", "deleted": True})
        exchange.respond(200, body)

    async def create(self, exchange: Exchange) -> None:
        """Answer one request.

        Args:
            exchange: POST of /v1/responses.

        Raises:
            SteelyardError: What went wrong; nothing was sent then.
        """
        sent = task_headers(exchange)
        question = self._question(exchange, sent)
        generation = question.generation
        request = generation.request
        hints = hints_of(exchange, question.document)
        # The key first: a session that others name is a hint, and no reason to refuse.
        headers = with_session(keyed_headers(exchange.key, sent, request.model), hints)
        prefixes = with_affinity(generation.prefixes, request.model, hints, question.document)
        target: ResponseAnswer | None = None
        try:
            with RequestTask(self._dispatcher, headers, self._settings.on_miss) as task:
                limit = request.max_output_tokens
                step = task.step("response", request.model, prefixes, limit)
                if exchange.key is not None:
                    # With what is kept of the conversation: that is a prompt, too.
                    step = await exchange.key.reserve(step, limit, question.body)
                exchange.step_key = step.key
                if task.remaining_s is not None:
                    request = msgspec.structs.replace(request, deadline_s=task.remaining_s)
                request = traced_request(request, step, kept=self._settings.traced)
                target = ResponseAnswer(
                    exchange, question.asked, step, int(self._dispatcher.now_s())
                )
                path, dispatcher = _UPSTREAM_PATH, self._dispatcher
                relayed = RelayRequest(
                    request=request, body=question.body, stream=generation.stream, path=path
                )
                relay = dispatcher.relay_journalled if task.journal else dispatcher.relay_llm
                target.settled(await relay(step, relayed, target))
        except SteelyardError as error:
            if target is None or not target.begun:
                raise
            target.fail(error)
            return
        response = target.finish()
        if question.asked.store is not False and isinstance(response.get("id"), str):
            items, previous_id = question.asked.items, question.previous_id
            self._memory.keep(question.owner, response, items, previous_id)

    # ---------------------------------------------------------- the question

    def _question(self, exchange: Exchange, sent: TaskHeaders) -> _Question:
        document = self._document(exchange)
        asked = parse_request(document, ResponsesRequest)
        check_model(self._dispatcher, asked.model, exchange.key)
        owner = owner_of(exchange)
        check_background(document)
        # The log holds answers as chunks, which an answer that is handed on does not have.
        native = sent.step_id is None and self._all_native(asked.model)
        items, previous_id = asked.items, asked.previous_response_id
        body = exchange.body
        if not names_once(body, _READ_FIELDS):
            body = msgspec.json.encode(document)
        if previous_id is not None:
            earlier = self._memory.items(owner, previous_id)
            if earlier is not None:
                items = [*earlier, *items]
                own = {**document, "input": items}
                del own["previous_response_id"]
                body = msgspec.json.encode(own)
            # The server behind may know it. Then it must know the next ones, too: what is kept
            # here of them begins in the middle, and its chain, ending nowhere, is not used.
            elif not native:
                msg = (
                    f"previous_response_id = {previous_id[:80]!r} is not kept here; responses are "
                    "kept for an hour, in memory; send the whole input"
                )
                code = "previous_response_not_found"
                raise RequestError(msg, param="previous_response_id", code=code)
        make = _as_it_is if native else _as_chat
        generation = make(asked, document, items)
        tokens = generation.prefixes.input_tokens
        check_length(self._dispatcher, asked.model, tokens, "input")
        return _Question(
            asked=asked,
            document=document,
            generation=generation,
            body=body,
            previous_id=previous_id,
            owner=owner,
        )

    def _all_native(self, model: str) -> bool:
        """Can a request go out as it is, wherever the policy sends it?"""
        backends = self._dispatcher.backends(model)
        return bool(backends) and all(
            isinstance(one, RelayBackend) and one.relays(_UPSTREAM_PATH) for one in backends
        )


def _as_chat(asked: ResponsesRequest, document: _Json, items: list[_Json]) -> Generation:
    return parse_chat(chat_document(asked, document, items))


def _as_it_is(asked: ResponsesRequest, document: _Json, items: list[_Json]) -> Generation:
    """What the books and the policy need to know; the server behind judges the request."""
    messages = [_countable(item) for item in items]
    if asked.instructions:
        messages.insert(0, {"content": asked.instructions})
    request = LlmRequest(
        kind="chat",
        model=asked.model,
        messages=messages,
        max_output_tokens=asked.max_output_tokens,
        tools=asked.tools or [],
        raw_body=document,
    )
    prefixes = chat_prefixes(asked.model, messages, asked.tools or [])
    stream = bool(asked.stream)
    return Generation(request=request, prefixes=prefixes, stream=stream, include_usage=stream)


def _countable(item: _Json) -> _Json:
    """An item whose length can be estimated, whatever it is."""
    content = item.get("content")
    if isinstance(content, str):
        return item
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):  # pyright: ignore[reportUnknownVariableType]
        return item
    return {"content": msgspec.json.encode(item).decode()}
