"""How fast is the machine now? Profiles taken right before and right after each live run.

A shared machine's speed swings by a third within minutes, and a simulation can be no better than
the curves that it is given. So the engine is profiled on both sides of a run, the mean of the two
curves is simulated, and how far they lie apart is printed with the result.
"""

import asyncio
import math
import sys
from pathlib import Path

import msgspec

from steelyard.config.figures_file import read_figures
from steelyard.config.pool_settings import EmbeddedPoolSettings
from steelyard.domain.pool import LlmCurve
from steelyard.ledger.ledger import Ledger
from steelyard.perf.predict import itl_s, prefill_s

# Prompts as short as what the validation's conversations add at a time: a line through longer ones
# has no floor, since attention makes long prompts dearer by the token.
_PROMPTS = "32,64,128,256"
_LOADS = "1,2,4,8"
_OUTPUT_TOKENS, _REPETITIONS = 40, 4
# What `seconds` is told of: about the validation's mean step.
_UNCACHED, _OUTPUT, _STREAMS = 100.0, 35.0, 2.0


async def profile(pool: EmbeddedPoolSettings, figures: Path) -> LlmCurve:
    """Let `steelyard measure` profile an engine like the pool's; the pool must be idle.

    Args:
        pool: Settings of the pool.
        figures: Where the figures go.

    Returns:
        The measured curve.

    Raises:
        RuntimeError: The command failed.
    """
    command = [sys.executable, "-m", "steelyard", "measure", "local", "--model", pool.model]
    command += ["--replicas", str(pool.replicas), "--chat", "--out", str(figures)]
    # Left to itself, `measure` takes what is fastest here: not always what the pool runs.
    command += ["--engine", pool.engine, "--precision", pool.precision]
    command += ["--prompts", _PROMPTS, "--cached", "0.5", "--loads", _LOADS]
    command += ["--output-tokens", str(_OUTPUT_TOKENS), "--repetitions", str(_REPETITIONS)]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    if await process.wait():
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return read_figures(figures).curve


def mean_curve(before: LlmCurve, after: LlmCurve) -> LlmCurve:
    """The curve of a machine that was as fast as in two profiles, half of the time each."""
    return msgspec.structs.replace(
        before,
        ttft_floor_s=(before.ttft_floor_s + after.ttft_floor_s) / 2.0,
        prefill_s_per_token=(before.prefill_s_per_token + after.prefill_s_per_token) / 2.0,
        itl_base_s=(before.itl_base_s + after.itl_base_s) / 2.0,
        itl_slope_s=(before.itl_slope_s + after.itl_slope_s) / 2.0,
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


def slowed(curve: LlmCurve, factor: float) -> LlmCurve:
    """The curve of a machine that takes so much longer for everything."""
    return msgspec.structs.replace(
        curve,
        ttft_floor_s=curve.ttft_floor_s * factor,
        prefill_s_per_token=curve.prefill_s_per_token * factor,
        itl_base_s=curve.itl_base_s * factor,
        itl_slope_s=curve.itl_slope_s * factor,
    )


def seconds(curve: LlmCurve) -> float:
    """How long does a usual step take beside another one? To compare two profiles."""
    first_s = prefill_s(curve.ttft_floor_s, curve.prefill_s_per_token, _UNCACHED)
    return first_s + _OUTPUT * itl_s(curve.itl_base_s, curve.itl_slope_s, _STREAMS)


def swing_frac(before: LlmCurve, after: LlmCurve) -> float:
    """How far are two profiles apart? The larger over the smaller time of a step, less 1."""
    return math.exp(abs(math.log(seconds(after) / seconds(before)))) - 1.0
