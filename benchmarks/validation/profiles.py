"""How fast is the engine? Short profiles of the one that runs, before, between and after its load.

Engines are profiled as `steelyard measure` does it, a round at a time, and all rounds around a load
make one curve, of means: a shared machine's speed swings by half within seconds, and a load meets
its slow moments, too.
"""

import math
from collections.abc import Sequence

import msgspec

from steelyard.domain.pool import LlmCurve
from steelyard.ledger.ledger import Ledger
from steelyard.perf.predict import itl_s, prefill_s
from steelyard.perf.profile import Average, TimedRequest, fit_profile
from steelyard.pools.backend import LlmBackend
from steelyard.runtime.profiling import ProfilePlan, profile

# Prompts as short as what the validation's conversations add at a time: a line through longer ones
# has no floor, since attention makes long prompts dearer by the token. Streams as loads of up to
# two thirds have them: beyond four, gaps leave the line.
_ROUND = ProfilePlan(
    prompt_tokens=(32, 64, 128, 256),
    cached_fracs=(0.5,),
    concurrencies=(1, 2, 3, 4, 6),
    output_tokens=32,
    repetitions=2,
    kind="chat",
)
Round = tuple[TimedRequest, ...]


async def profile_round(backend: LlmBackend, model: str, number: int) -> Round:
    """Measure every setting, and once more; the engine must be idle.

    Args:
        backend: A started pool.
        model: One of its models.
        number: Of the round: its prompts are in no cache.

    Returns:
        The timed requests; their repetitions go on from those of earlier rounds.
    """
    plan = msgspec.structs.replace(_ROUND, mark=f"round{number}-")
    timed = await profile(backend, model, plan, _silent)
    first = number * plan.repetitions
    return tuple(msgspec.structs.replace(one, repetition=first + one.repetition) for one in timed)


def _silent(what: str, done: int, total: int) -> None:
    del what, done, total


def fitted(known: LlmCurve, rounds: Sequence[Round], average: Average = "mean") -> LlmCurve:
    """The curve of all rounds together, with the caps of a known one.

    Args:
        known: A curve of the engine.
        rounds: What was timed; at least two.
        average: What is fitted of a setting's repetitions.

    Returns:
        The curve.
    """
    fit = fit_profile([one for part in rounds for one in part], average)
    return msgspec.structs.replace(
        known,
        ttft_floor_s=fit.prefill.floor_s,
        prefill_s_per_token=fit.prefill.s_per_token,
        itl_base_s=fit.itl.base_s,
        itl_slope_s=fit.itl.slope_s,
    )


def correction(ledger: Ledger, pool: str, curve: LlmCurve, prefix: str) -> float:
    """By what factor did tasks that ran one after the other take longer than their curve says?

    A profile asks the engine alone; live, its answers pass the gateway, prompts follow cached ones,
    and their first tokens wait for a pass that has begun. The live policy learns the same factor.

    Args:
        ledger: The books.
        pool: Name of the pool.
        curve: Its profile.
        prefix: What the ids of the tasks begin with; they must not be among those predicted.

    Returns:
        Measured over predicted service time of all their calls; 1 without any.
    """
    measured_s, predicted_s = 0.0, 0.0
    for one in ledger.attempts:
        if one.decision.pool == pool and one.step.task_id.startswith(prefix):
            usage = one.usage
            uncached = float(usage.input_tokens - usage.cached_tokens)
            measured_s += usage.wall_s
            predicted_s += prefill_s(curve.ttft_floor_s, curve.prefill_s_per_token, uncached)
            predicted_s += usage.output_tokens * itl_s(curve.itl_base_s, curve.itl_slope_s, 1.0)
    return measured_s / predicted_s if predicted_s else 1.0


def seconds(part: Round) -> float:
    """How long do all requests of a round take together, beside one another or not?"""
    return math.fsum(one.e2e_s / one.concurrency for one in part)


def swing_frac(rounds: Sequence[Round]) -> float:
    """How far are rounds apart? The longest over the shortest, less 1."""
    times_s = [seconds(part) for part in rounds]
    return max(times_s) / min(times_s) - 1.0
