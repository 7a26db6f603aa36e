"""What does a step cost? The one cost function: policy, ledger, planner and reports call it.

A step is charged for the seconds of a replica that it uses up when the replica is full, so that
the costs of all steps on a full replica add up to its rent. What stays unused is idle cost, which
the ledger shows on its own line and no step hides.
"""

import numpy as np

from steelyard.domain.events import Usage
from steelyard.domain.offering import TokenPrice
from steelyard.domain.pool import LlmCurve, PoolSpec, ToolCurve
from steelyard.domain.task import LlmCall, Step
from steelyard.domain.units import rental_usd
from steelyard.errors import SteelyardBugError
from steelyard.perf.predict import FloatArray, Number, itl_s


def llm_used_s(
    curve: tuple[Number, Number, Number, Number, Number],
    uncached_tokens: Number,
    output_tokens: Number,
) -> Number:
    """How many seconds of a full replica does an LLM step use up? Floats or arrays of shape [n].

    `ttft_floor/cap + uncached * prefill_s_per_token + output * itl(cap)/cap`: prefill has the
    replica for itself; the floor and every decoded token are shared by the whole batch. The curve
    holds decode alone (ADR 19): a gap that contained the prefill of others would count it twice.

    Args:
        curve: `ttft_floor_s, prefill_s_per_token, itl_base_s, itl_slope_s, concurrency_cap`.
        uncached_tokens: Prompt tokens that had to be computed.
        output_tokens: Tokens generated.

    Returns:
        Replica-seconds.
    """
    ttft_floor_s, prefill_s_per_token, itl_base_s, itl_slope_s, cap = curve
    decode_s = output_tokens * itl_s(itl_base_s, itl_slope_s, cap) / cap
    return ttft_floor_s / cap + uncached_tokens * prefill_s_per_token + decode_s


def llm_replica_s(curve: LlmCurve, uncached_tokens: float, output_tokens: float) -> float:
    """How many seconds of a full replica does an LLM step use up? See `llm_used_s`.

    Args:
        curve: Speed of the replica.
        uncached_tokens: Prompt tokens that had to be computed.
        output_tokens: Tokens generated.

    Returns:
        Replica-seconds.

    >>> curve = LlmCurve(ttft_floor_s=0.0, prefill_s_per_token=0.001, itl_base_s=0.01,
    ...     itl_slope_s=0.0025, concurrency_cap=4, context_tokens=8192, predicted=False, source="")
    >>> round(llm_replica_s(curve, 100, 40), 9)
    0.3
    """
    return llm_used_s(
        (
            curve.ttft_floor_s,
            curve.prefill_s_per_token,
            curve.itl_base_s,
            curve.itl_slope_s,
            float(curve.concurrency_cap),
        ),
        float(uncached_tokens),
        float(output_tokens),
    )


def tool_used_s(
    room: tuple[Number, Number, Number], cpu_s: Number, wall_s: Number, memory_bytes: Number
) -> FloatArray:
    """How many seconds of a full replica does a tool step use up? Floats or arrays of shape [n].

    The dominant share (Ghodsi et al., NSDI 2011) of cores and memory:
    `max(cpu / (speed * cores), wall * memory / replica memory)`.

    Args:
        room: `relative_speed, cores, memory_bytes` of the replica.
        cpu_s: CPU seconds on the reference core.
        wall_s: Seconds for which the memory was held.
        memory_bytes: Peak memory.

    Returns:
        Replica-seconds.
    """
    relative_speed, cores, room_bytes = room
    by_cpu_s = cpu_s / (relative_speed * cores)
    used_s: FloatArray = np.maximum(by_cpu_s, wall_s * memory_bytes / room_bytes)
    return used_s


def tool_replica_s(curve: ToolCurve, cpu_s: float, wall_s: float, memory_bytes: float) -> float:
    """How many seconds of a full replica does a tool step use up? See `tool_used_s`.

    Args:
        curve: Speed and room of the replica.
        cpu_s: CPU seconds on the reference core.
        wall_s: Seconds for which the memory was held.
        memory_bytes: Peak memory.

    Returns:
        Replica-seconds.

    >>> curve = ToolCurve(relative_speed=2.0, cores=4.0, memory_bytes=1000, start_s=0.0, slots=4,
    ...     predicted=False, source="")
    >>> tool_replica_s(curve, cpu_s=8.0, wall_s=3.0, memory_bytes=100)
    1.0
    """
    room = (curve.relative_speed, curve.cores, float(curve.memory_bytes))
    return float(tool_used_s(room, float(cpu_s), float(wall_s), float(memory_bytes)))


def priced_tokens_usd(
    prices: tuple[Number, Number, Number], uncached: Number, cached: Number, output: Number
) -> Number:
    """What does a vendor charge for a call? Floats or arrays of shape [n].

    Args:
        prices: USD per uncached input token, cached input token and output token.
        uncached: Input tokens that were computed.
        cached: Input tokens that the vendor read from its cache.
        output: Tokens generated.

    Returns:
        USD.
    """
    per_uncached, per_cached, per_output = prices
    return uncached * per_uncached + cached * per_cached + output * per_output


def token_usd(
    price: TokenPrice, input_tokens: float, cached_tokens: float, output_tokens: float
) -> float:
    """What does a vendor charge for a call?

    Args:
        price: The vendor's price list.
        input_tokens: The whole prompt.
        cached_tokens: Part of the prompt that the vendor read from its cache.
        output_tokens: Tokens generated.

    Returns:
        USD.
    """
    prices = (price.usd_per_input_token, price.usd_per_cached_token, price.usd_per_output_token)
    return priced_tokens_usd(prices, input_tokens - cached_tokens, cached_tokens, output_tokens)


def llm_step_usd(
    spec: PoolSpec, model: str, tokens: tuple[float, float, float], usd_per_hour: float
) -> float:
    """What does an LLM step cost in a pool?

    Args:
        spec: The pool.
        model: Model that the step uses.
        tokens: Input, cached and output tokens.
        usd_per_hour: Price of a replica-hour to charge: the rent, or the bid price.

    Returns:
        USD: the vendor's token price where the pool has one, the used replica time otherwise.
    """
    input_tokens, cached_tokens, output_tokens = tokens
    if spec.token_price is not None:
        return token_usd(spec.token_price, input_tokens, cached_tokens, output_tokens)
    curve = spec.llm_curves[model]
    used_s = llm_replica_s(curve, input_tokens - cached_tokens, output_tokens)
    return rental_usd(usd_per_hour, used_s)


def tool_step_usd(
    curve: ToolCurve, usage: tuple[float, float, float], usd_per_hour: float
) -> float:
    """What does a tool step cost in a pool?

    Args:
        curve: Speed and room of one replica of the pool.
        usage: CPU seconds on the reference core, wall seconds, peak memory in bytes.
        usd_per_hour: Price of a replica-hour to charge: the rent, or the bid price.

    Returns:
        USD.
    """
    cpu_s, wall_s, memory_bytes = usage
    return rental_usd(usd_per_hour, tool_replica_s(curve, cpu_s, wall_s, memory_bytes))


def attempt_usd(spec: PoolSpec, step: Step, usage: Usage) -> float:
    """What did an attempt cost in the pool that ran it, at the pool's rent or token price?

    Args:
        spec: The pool.
        step: The step.
        usage: What the attempt used.

    Returns:
        USD.

    Raises:
        SteelyardBugError: The pool cannot run such a step.
    """
    if isinstance(step.call, LlmCall):
        tokens = (float(usage.input_tokens), float(usage.cached_tokens), float(usage.output_tokens))
        return llm_step_usd(spec, step.call.model, tokens, spec.usd_per_hour)
    curve = spec.tool_curve
    if curve is None:
        raise SteelyardBugError(f"pool {spec.name} ran tool step {step.key} and has no tool_curve")
    reference_cpu_s = usage.cpu_s * curve.relative_speed
    return tool_step_usd(
        curve, (reference_cpu_s, usage.wall_s, float(usage.memory_bytes)), spec.usd_per_hour
    )
