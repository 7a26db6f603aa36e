"""Is the model served, and can the prompt fit? The same refusals for every path."""

from steelyard.gateway.errors_http import RequestError
from steelyard.gateway.keys_use import KeyUse
from steelyard.gateway.tasks import context_tokens, surely_too_long
from steelyard.pools.backend import RelayBackend
from steelyard.runtime.dispatcher import Dispatcher


def check_model(dispatcher: Dispatcher, model: str, use: KeyUse | None) -> None:
    """Refuse a model that no pool serves.

    Args:
        dispatcher: Knows the pools.
        model: Name of the model.
        use: The request's key; None without a minted one.

    Raises:
        RequestError: No pool serves it; the message names those that are, and that the key is for.
    """
    models = dispatcher.models()
    if model not in models:
        models = tuple(one for one in models if use is None or use.may_use(one))
        msg = f"the model {model[:80]!r} does not exist; there are {', '.join(models)}"
        raise RequestError(msg, status=404, param="model", code="model_not_found")


def check_relayed(dispatcher: Dispatcher, model: str, unusual: str) -> None:
    """Refuse what only an endpoint may know, where another pool could be asked.

    Args:
        dispatcher: Knows the pools.
        model: Name of the model.
        unusual: The field that asks for it, and its value.

    Raises:
        RequestError: Not every pool of the model is an endpoint.
    """
    if not all(isinstance(one, RelayBackend) for one in dispatcher.backends(model)):
        raise RequestError(
            f"{unusual} is not known here; ask a model whose pools are all endpoints, or send one "
            "of function, text, json_object and json_schema",
            param=unusual.partition(" = ")[0],
        )


def check_kept(unusual: str) -> None:
    """Refuse tools whose calls cannot be kept, where the caller numbers its steps.

    Args:
        unusual: As in `check_relayed`.

    Raises:
        RequestError: The log holds calls of functions alone; others would be answered without
            their content.
    """
    if unusual.startswith("tools["):
        raise RequestError(
            f"{unusual} is not kept in the log, which numbered steps are; send tools of type "
            "function, or no Idempotency-Key",
            param=unusual.partition(" = ")[0],
        )


def check_length(dispatcher: Dispatcher, model: str, tokens: int, param: str) -> None:
    """Refuse a prompt that surely fits no pool.

    Args:
        dispatcher: Knows the pools.
        model: Name of the model.
        tokens: Estimated length of the prompt.
        param: Field that holds the prompt, for the message.

    Raises:
        RequestError: It is too long even if the estimate is too high by half.
    """
    if surely_too_long(dispatcher, model, tokens):
        raise RequestError(
            f"the prompt has about {tokens} tokens; {model} takes "
            f"{context_tokens(dispatcher, model)} with the answer; shorten the prompt",
            param=param,
            code="context_length_exceeded",
        )
