"""How long will a step take? Arithmetic that works alike on floats and on NumPy arrays.

The kernels are written in the subset that Numba compiles; compiled or not, they give the same
answer. Sources: `itl(c) = a + b*c` and TTFT as prefill plus queue are findings on published
vLLM sweeps (SpareCores/sc-inspector-data 804d3c71, 2026-08-22).
"""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from steelyard.domain.pool import LlmCurve
from steelyard.domain.slo import Slo

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Number = TypeVar("Number", float, FloatArray)


def pick(condition: bool | BoolArray, yes: Number | float, no: Number) -> Number:
    """Which of two values holds, element by element?

    `np.where`, under a name of its own: compiled kernels work on floats, for which Numba has none,
    and take a plain `yes if condition else no` in its place.

    Args:
        condition: What decides; a flag, or flags of shape [n].
        yes: Values where it holds.
        no: Values elsewhere.

    >>> float(pick(True, 1.0, 2.0))
    1.0
    """
    chosen: Number = np.where(condition, yes, no)  # type: ignore[assignment]
    return chosen


def itl_s(itl_base_s: Number, itl_slope_s: Number, concurrency: Number) -> Number:
    """How long is the gap between two tokens when `concurrency` streams only decode?

    Args:
        itl_base_s: The a of `a + b*c`, seconds; float or array of shape [n].
        itl_slope_s: The b of `a + b*c`, seconds per stream.
        concurrency: Streams that decode at once, this one included.

    Returns:
        Seconds per token of one stream.

    >>> itl_s(0.010, 0.001, 5.0)
    0.015
    """
    return itl_base_s + itl_slope_s * concurrency


def prefill_share_s(
    prefill_s_per_token: float, uncached_tokens: float, output_tokens: float
) -> float:
    """How much prefill does a stream bring with it for each token that it decodes?

    `uncached * prefill_s_per_token / output`, with an answer of at least one token. For a mix of
    steps, the means of both: the ratio of the sums.

    Args:
        prefill_s_per_token: Seconds per uncached prompt token.
        uncached_tokens: Prompt tokens that are not in the replica's prefix cache.
        output_tokens: Length of the answer.

    Returns:
        Seconds of prefill per token of the answer.

    >>> prefill_share_s(0.001, 100.0, 50.0)
    0.002
    """
    return uncached_tokens * prefill_s_per_token / max(output_tokens, 1.0)


def shared_itl_s(
    itl_base_s: Number, itl_slope_s: Number, concurrency: Number, share_s: Number
) -> Number:
    """How long is the mean gap between two tokens when the other streams prefill in between?

    `itl(c) + (c - 1) * share`. Prefill has the replica for itself, so it stalls every decode. While
    a stream decodes one token, so does each of its c - 1 neighbours, or who takes its place, and
    each brings `share` seconds of prefill per token with it (`prefill_share_s`). By Little's law
    the second term is the gap times the share of time that the replica spends in prefill. ADR 19
    has the measurements.

    Args:
        itl_base_s: The a of `a + b*c`, seconds; float or array of shape [n].
        itl_slope_s: The b of `a + b*c`, seconds per stream.
        concurrency: Streams at once, this one included.
        share_s: Mean `prefill_share_s` of the others.

    Returns:
        Seconds per token of one stream.

    >>> shared_itl_s(0.010, 0.001, 5.0, 0.002)
    0.023
    """
    return itl_s(itl_base_s, itl_slope_s, concurrency) + (concurrency - 1.0) * share_s


def prefill_s(ttft_floor_s: Number, prefill_s_per_token: Number, uncached_tokens: Number) -> Number:
    """How long until the first token of a step that does not wait in a queue?

    Args:
        ttft_floor_s: Seconds that do not depend on the prompt.
        prefill_s_per_token: Seconds per uncached prompt token.
        uncached_tokens: Prompt tokens that are not in the replica's prefix cache.

    Returns:
        Seconds.

    >>> prefill_s(0.02, 0.001, 100.0)
    0.12000000000000001
    """
    return ttft_floor_s + prefill_s_per_token * uncached_tokens


def queue_wait_s(running: Number, waiting: Number, mean_service_s: Number, cap: Number) -> Number:
    """How long does a new step wait before it starts?

    Zero below the concurrency cap. At the cap a place becomes free every `mean_service_s / cap`
    seconds (Little's law), and `waiting` steps stand in front.

    Args:
        running: Steps that run on each replica, shape [n].
        waiting: Steps that wait there, shape [n].
        mean_service_s: Mean predicted service time of the steps there, shape [n].
        cap: Steps that run at once, shape [n].

    Returns:
        Seconds, shape [n].

    >>> two = np.array([2.0])
    >>> float(queue_wait_s(two, np.array([1.0]), np.array([6.0]), two)[0])
    6.0
    """
    return pick(running < cap, 0.0, (waiting + 1.0) * mean_service_s / cap)


def usable_concurrency(curve: LlmCurve, slo: Slo, share_s: float = 0.0) -> int:
    """How many streams may run at once so that the gap between tokens keeps the SLO?

    The largest c <= `concurrency_cap` with `shared_itl(c) <= slo.gap_s`; 0 when not even one stream
    does.

    Args:
        curve: Speed of the replica.
        slo: Limits to keep.
        share_s: Prefill that each stream brings with it per token (`prefill_share_s`), of the mix.

    Returns:
        Number of streams.

    >>> curve = LlmCurve(ttft_floor_s=0.02, prefill_s_per_token=0.001, itl_base_s=0.05,
    ...     itl_slope_s=0.01, concurrency_cap=16, context_tokens=8192, predicted=False, source="")
    >>> usable_concurrency(curve, Slo(itl_s=0.1))
    5
    >>> usable_concurrency(curve, Slo(itl_s=0.1), share_s=0.01)
    3
    """
    if itl_s(curve.itl_base_s, curve.itl_slope_s, 1.0) > slo.gap_s:
        return 0
    # The line of `shared_itl_s`: each stream adds its share, and the first one none.
    slope_s, base_s = curve.itl_slope_s + share_s, curve.itl_base_s - share_s
    if slope_s <= 0.0:
        return curve.concurrency_cap
    # The margin keeps an exact fit, as in the doctest, from falling short by one rounding error.
    streams = int((slo.gap_s - base_s) / slope_s + 1e-9)
    return max(1, min(curve.concurrency_cap, streams))
