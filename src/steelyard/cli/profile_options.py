"""From the options of `steelyard measure` to what is measured."""

from collections.abc import Callable
from typing import TypeVar

import msgspec

from steelyard.errors import ConfigError
from steelyard.runtime.profiling import SHORT_PLAN, ProfilePlan

_Number = TypeVar("_Number", int, float)
# What one request may hold, what of it may be known before, how many requests may be open.
_TOKENS = (1.0, 10_000_000.0)
_FRACS = (0.0, 1.0)
_STREAMS = (1.0, 100_000.0)


def profile_plan(
    lists: tuple[str, str, str],
    decode: tuple[int | None, int | None],
    repetitions: int | None,
    *,
    short: bool,
    chat: bool,
) -> ProfilePlan:
    """What is to be measured?

    Args:
        lists: Prompt lengths, cached shares and loads, comma-separated; empty for the default.
        decode: Tokens per answer, and of the prompts before them, 0 for short ones; None for the
            default.
        repetitions: Of every setting; None for the default.
        short: Whether the defaults are those of a rough look.
        chat: Whether chat calls are timed.

    Raises:
        ConfigError: A list holds something that is no number, or out of range.
    """
    plan = SHORT_PLAN if short else ProfilePlan()
    prompts, cached, loads = lists
    return msgspec.structs.replace(
        plan,
        prompt_tokens=_numbers("--prompts", prompts, int, _TOKENS) or plan.prompt_tokens,
        cached_fracs=_numbers("--cached", cached, float, _FRACS) or plan.cached_fracs,
        concurrencies=_numbers("--loads", loads, int, _STREAMS) or plan.concurrencies,
        output_tokens=plan.output_tokens if decode[0] is None else decode[0],
        decode_prompt_tokens=plan.decode_prompt_tokens if decode[1] is None else decode[1],
        repetitions=plan.repetitions if repetitions is None else repetitions,
        kind="chat" if chat else "completion",
    )


def _numbers(
    option: str, text: str, kind: Callable[[str], _Number], bounds: tuple[float, float]
) -> tuple[_Number, ...]:
    try:
        found = tuple(kind(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise ConfigError(f"{option} {text!r} is no comma-separated list of numbers") from None
    least, most = bounds
    for one in found:
        if not least <= one <= most:
            raise ConfigError(f"{option} {one} is not from {least:,.0f} to {most:,.0f}; correct it")
    return found
