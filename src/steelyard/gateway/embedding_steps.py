"""Steps of models of embeddings: an endpoint's answer is handed on whole, others are made here."""

from collections.abc import Callable
from typing import Any

import msgspec

from steelyard.gateway.exchange import Exchange, json_lines
from steelyard.gateway.headers import TaskHeaders, cost_line, decision_lines
from steelyard.gateway.keys_use import starts_of
from steelyard.gateway.prefix import Prefixes
from steelyard.gateway.settings import GatewaySettings
from steelyard.gateway.tasks import RequestTask
from steelyard.gateway.tracing import traced_request
from steelyard.gateway.whole_answer import WholeAnswer
from steelyard.pools.backend import Embeddings, LlmRequest, RelayRequest
from steelyard.runtime.dispatcher import Dispatcher, Settlement

_JSON = json_lines([])


class EmbeddingStep(msgspec.Struct, frozen=True, kw_only=True):
    """What a request asks of a model of embeddings.

    Attributes:
        name: Under which its size and time are learned.
        model: Name of the model.
        input_tokens: About how many tokens go in.
        texts: To embed here, in order; not read where it is handed on.
        path: The endpoint's path, where it is handed on; empty where vectors are made here.
        prompt: What goes in, as one text, where it is handed on.
        body: What the endpoint is sent.
    """

    name: str
    model: str
    input_tokens: int
    texts: list[str]
    path: str = ""
    prompt: str = ""
    body: bytes = b""


async def answer_step(
    exchange: Exchange,
    dispatcher: Dispatcher,
    settings: GatewaySettings,
    headers: TaskHeaders,
    asked: EmbeddingStep,
    tell: Callable[[Embeddings, Settlement], dict[str, Any]],
) -> None:
    """Run such a step and send its answer.

    Args:
        exchange: The request.
        dispatcher: Places and runs it.
        settings: The gateway's settings.
        headers: What is known of its task; no numbered step is handed on, as the log holds vectors.
        asked: The step.
        tell: Makes the answer of vectors that were made here.

    Raises:
        SteelyardError: What went wrong; nothing was sent then.
    """
    with RequestTask(dispatcher, headers, settings.on_miss) as task:
        # No hashes: an embedding leaves nothing in a cache that another step could use.
        prefixes = Prefixes(hashes=(), tokens=(), input_tokens=asked.input_tokens)
        step = task.step(asked.name, asked.model, prefixes, 0)
        if exchange.key is not None:
            step = await exchange.key.reserve(step, 0, exchange.body)
        exchange.step_key = step.key
        if asked.path:
            request = LlmRequest(
                kind="completion",
                model=asked.model,
                prompt=asked.prompt,
                deadline_s=task.remaining_s,
            )
            request = traced_request(request, step, kept=settings.traced)
            relayed = RelayRequest(request=request, body=asked.body, stream=False, path=asked.path)
            target = WholeAnswer(exchange)
            settlement = await dispatcher.relay_llm(step, relayed, target)
            decision, answer = target.placement, target.body
        else:
            decision, vectors, settlement = await dispatcher.embed(
                *(step, asked.texts, asked.model),
                journal=task.journal,
                starts=starts_of(exchange.key),
            )
            answer = msgspec.json.encode(tell(vectors, settlement))
    exchange.pool = decision.pool
    lines = decision_lines(step.task_id, decision) + cost_line(settlement.cost_usd)
    exchange.respond(200, answer, _JSON + lines)
