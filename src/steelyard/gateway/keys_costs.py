"""What can a step cost at most? That much of its key's budget is set aside before it is placed.

The prompt counts with one token per byte of the request, and a margin for what a chat template
adds: no tokenizer makes more of a text. The answer counts with its limit, or with the model's whole
context where it has none. The price is that of the dearest pool that the step may go to.
"""

import re
from typing import NamedTuple

import msgspec

from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import LlmCall, Step
from steelyard.perf.cost import llm_step_usd

# What a chat template may add to a prompt, in tokens.
_TEMPLATE_TOKENS = 256
# Parts whose tokens have nothing to do with the length of the body.
_UNMEASURED = (
    *(b'"image_url"', b'"input_image"', b'"input_audio"', b'"file"', b'"input_file"'),
    # Those that are kept here were put in their place; these are kept at an endpoint.
    *(b'"previous_response_id"', b'"item_reference"'),
)
# ASCII that is written as an escape, as no program does without a reason.
_ESCAPED = re.compile(rb"\\u00[2-7]")
# Attempts that may have failed before the one that counts; they say nothing, and cost the floor.
_ATTEMPTS = 3.0
# The price is linear in both counts of tokens; taken apart and put together it may be off by a
# rounding, and must not be too low.
_ROUNDING = 1.0 + 1e-9
_MAX_KEPT = 1000


class _Rate(NamedTuple):
    """What steps of one model cost in one pool."""

    context_tokens: float
    floor_usd: float
    usd_per_input_token: float
    usd_per_output_token: float


class MostCosts:
    """Upper bounds of what steps cost, kept per model and list of allowed pools."""

    def __init__(self) -> None:
        self._pools: tuple[PoolSpec, ...] = ()
        self._rates: dict[tuple[str, tuple[str, ...]], tuple[_Rate, ...]] = {}

    def usd(
        self, pools: tuple[PoolSpec, ...], step: Step, output_tokens: int | None, body: bytes
    ) -> float:
        """What can a step cost at most?

        Args:
            pools: The fleet; the same tuple as before when nothing has changed.
            step: The step.
            output_tokens: Most tokens of all answers together; None of one without a limit.
            body: The request.

        Returns:
            USD; 0 where no pool could run it.
        """
        call = step.call
        if not isinstance(call, LlmCall):
            return 0.0
        rates = self._rates_of(pools, call.model, step.pools)
        text_tokens = float(len(body) + _TEMPLATE_TOKENS)
        if _is_unmeasured(body):
            text_tokens = float("inf")
        dearest = 0.0
        for context, floor_usd, input_usd, output_usd in rates:
            answers = context if output_tokens is None else float(output_tokens)
            prompt = min(context, text_tokens)
            usd = _ATTEMPTS * floor_usd + prompt * input_usd + answers * output_usd
            dearest = max(dearest, usd)
        return dearest * _ROUNDING

    def _rates_of(
        self, pools: tuple[PoolSpec, ...], model: str, allowed: tuple[str, ...]
    ) -> tuple[_Rate, ...]:
        if pools is not self._pools or len(self._rates) >= _MAX_KEPT:
            self._pools = pools
            self._rates = {}
        rates = self._rates.get((model, allowed))
        if rates is None:
            rates = tuple(
                _rate(spec, model)
                for spec in pools
                if model in spec.llm_curves and (not allowed or spec.name in allowed)
            )
            self._rates[(model, allowed)] = rates
        return rates


def _is_unmeasured(body: bytes) -> bool:
    """Has a request parts whose tokens have nothing to do with its length?"""
    if _ESCAPED.search(body):
        # `"image\\u005furl"` is the same name: as it is when written plainly.
        try:
            body = msgspec.json.encode(msgspec.json.decode(body))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return True
    return any(mark in body for mark in _UNMEASURED)


def _rate(spec: PoolSpec, model: str) -> _Rate:
    """The one cost function, taken apart."""
    floor_usd, input_usd, output_usd = (
        llm_step_usd(spec, model, tokens, spec.usd_per_hour)
        for tokens in ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0))
    )
    return _Rate(
        context_tokens=float(spec.llm_curves[model].context_tokens),
        floor_usd=floor_usd,
        usd_per_input_token=input_usd - floor_usd,
        usd_per_output_token=output_usd - floor_usd,
    )
