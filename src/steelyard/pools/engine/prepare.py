"""From a request to tokens and sampling: every check that must come before the engine."""

import math
import secrets
from typing import Any

import msgspec

from steelyard.errors import PoolRejectedError
from steelyard.pools.backend import JsonObject, LlmRequest
from steelyard.pools.dialects import constraints
from steelyard.pools.engine.adapter import EngineAdapter, EngineSettings, Sampling
from steelyard.pools.engine.grammar import schema_grammar
from steelyard.pools.engine.messages import plain_messages
from steelyard.pools.engine.schema import checked_schema
from steelyard.pools.engine.tooling import ToolPlan, plan_tools

MAX_ANSWERS = 4
MAX_STOP_STRINGS = 16
MAX_STOP_CHARS = 256
_SEED_BITS = 63
# Fields of the OpenAI request that would change the answer and that the engine cannot honour.
_UNSUPPORTED = (
    *("logit_bias", "suffix", "echo", "audio", "prediction", "web_search_options"),
    *("regex", "ebnf"),
)


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A checked request: its prompt's tokens, and one sampling per answer."""

    token_ids: list[int]
    samplings: list[Sampling]
    uses_tools: bool


def prepare(request: LlmRequest, adapter: EngineAdapter, settings: EngineSettings) -> Prepared:
    """What must the engine do for the request?

    Raises:
        PoolRejectedError: The engine cannot or must not do it; the message says why.
    """
    _check_limits(request)
    plan = plan_tools(request, settings.default_max_string_chars)
    token_ids = adapter.encode(_prompt(request, plan, adapter))
    room_tokens = adapter.context_tokens - len(token_ids)
    if not token_ids:
        raise PoolRejectedError("The prompt is empty; send at least one token.")
    if room_tokens < 1:
        raise PoolRejectedError(
            f"The prompt has {len(token_ids)} tokens or more; {settings.model} takes "
            f"{adapter.context_tokens} with the answer. Shorten the prompt."
        )
    schema = _schema(request, plan, settings)
    grammar = None if schema is None else schema_grammar(schema, settings.default_max_string_chars)
    if schema is not None and grammar is None:
        schema_text = msgspec.json.encode(schema).decode()
    else:
        schema_text = None
    limit = request.max_output_tokens
    first = Sampling(
        max_output_tokens=room_tokens if limit is None else min(limit, room_tokens),
        temperature=1.0 if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        seed=secrets.randbits(_SEED_BITS) if request.seed is None else abs(request.seed),
        top_k=_number(request.raw_body, "top_k", 1, 100_000, integer=True),
        presence_penalty=_number(request.raw_body, "presence_penalty", -2, 2) or 0.0,
        frequency_penalty=_number(request.raw_body, "frequency_penalty", -2, 2) or 0.0,
        repetition_penalty=_number(request.raw_body, "repetition_penalty", 0.01, 10) or 1.0,
        logprobs=request.logprobs,
        grammar=grammar,
        json_schema=schema_text,
    )
    samplings = [msgspec.structs.replace(first, seed=first.seed + i) for i in range(request.n)]
    return Prepared(token_ids=token_ids, samplings=samplings, uses_tools=plan is not None)


def _prompt(request: LlmRequest, plan: ToolPlan | None, adapter: EngineAdapter) -> str:
    if request.kind == "completion":
        return request.prompt
    messages = plain_messages(request.messages)
    if plan is not None:
        own = messages[0]["content"] + "\n\n" if messages[0]["role"] == "system" else ""
        rest = messages[1:] if own else messages
        # First in the prompt, so that all steps of an agent share it as a cached prefix.
        messages = [{"role": "system", "content": own + plan.instructions}, *rest]
    return adapter.render_chat(messages)


def _schema(
    request: LlmRequest, plan: ToolPlan | None, settings: EngineSettings
) -> dict[str, Any] | None:
    if plan is not None:
        return plan.schema
    if request.json_schema is not None:
        return checked_schema(request.json_schema, settings.default_max_string_chars)
    return {"type": "object"} if request.json_object else None


def _check_limits(request: LlmRequest) -> None:
    limit = request.max_output_tokens
    if limit is not None and limit < 1:
        raise PoolRejectedError(f"max_tokens is {limit}; ask for at least 1.")
    if not 1 <= request.n <= MAX_ANSWERS:
        raise PoolRejectedError(f"n is {request.n}; the embedded engine takes 1 to {MAX_ANSWERS}.")
    if request.top_logprobs:
        raise PoolRejectedError(
            f"top_logprobs is {request.top_logprobs}; the embedded engine knows the chosen "
            "token's log-probability only: send logprobs without top_logprobs."
        )
    _check_range("temperature", request.temperature, 0.0, 2.0)
    _check_range("top_p", request.top_p, 0.0, 1.0)
    if request.top_p == 0:
        raise PoolRejectedError("top_p is 0; for the likeliest token send temperature 0.")
    if len(request.stop) > MAX_STOP_STRINGS or not all(
        0 < len(text) <= MAX_STOP_CHARS for text in request.stop
    ):
        raise PoolRejectedError(
            f"stop takes up to {MAX_STOP_STRINGS} texts of 1 to {MAX_STOP_CHARS} characters."
        )
    for name in _UNSUPPORTED:
        if request.raw_body.get(name):
            raise PoolRejectedError(f"The embedded engine does not know {name}; leave it out.")
    for kind in constraints(request.raw_body):
        if kind != "json" or request.json_schema is None:
            raise PoolRejectedError(
                f"The embedded engine cannot be held to guided_{kind}; send a JSON schema as "
                "response_format."
            )


def _check_range(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not (math.isfinite(value) and low <= value <= high):
        raise PoolRejectedError(f"{name} is {value}; allowed: {low:g} to {high:g}.")


def _number(body: JsonObject, name: str, low: float, high: float, *, integer: bool = False) -> Any:  # noqa: ANN401 - an int or a float, as asked
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int if integer else int | float):
        raise PoolRejectedError(f"{name} is {value!r}; it must be a number.")
    _check_range(name, value, low, high)
    return value
