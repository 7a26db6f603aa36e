"""Is the model served, and can the prompt fit? The same refusals for every path."""

from steelyard.gateway.errors_http import RequestError
from steelyard.gateway.tasks import context_tokens, surely_too_long
from steelyard.runtime.dispatcher import Dispatcher


def check_model(dispatcher: Dispatcher, model: str) -> None:
    """Refuse a model that no pool serves.

    Raises:
        RequestError: No pool serves it; the message names those that are.
    """
    models = dispatcher.models()
    if model not in models:
        msg = f"the model {model[:80]!r} does not exist; there are {', '.join(models)}"
        raise RequestError(msg, status=404, param="model", code="model_not_found")


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
