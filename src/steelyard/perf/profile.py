"""Which curve does a profiled pool have, how sure is that, and are there enough points to say so?

A profile is a list of timed requests at several prompt lengths, cached shares and loads. Decode is
fitted over load from short prompts, prefill over prompt length from lone requests.
"""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import msgspec

from steelyard.errors import FigureError
from steelyard.perf.fit import ItlFit, PrefillFit, fit_itl, fit_prefill

Phase = Literal["prefill", "cached", "decode"]
Average = Literal["median", "mean"]

LEAST_LOADS = 3
LEAST_LENGTHS = 3
LEAST_REPETITIONS = 3
# With fewer output tokens, the mean gap of one request is mostly noise.
LEAST_OUTPUT_TOKENS = 8
WORST_OK_ERROR_FRAC = 0.15
WORST_OK_SPREAD_FRAC = 0.30
# As in the catalogue: the TTFT knee, beyond which requests queue.
_KNEE_FACTOR, _KNEE_SLACK_S = 2.0, 0.25


class TimedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request of a profile.

    Attributes:
        phase: What it was sent for.
        setting: What was asked for: prompt tokens (prefill), cached share (cached), streams
            (decode). Requests of one setting are repetitions of one another.
        concurrency: Requests sent at once, this one included.
        repetition: Number of the repetition, from 0.
        input_tokens: Length of the prompt, as the pool counted.
        cached_tokens: Prompt tokens sent before as the same prefix; 0 where none were.
        output_tokens: Length of the answer, as the pool counted.
        ttft_s: Seconds to the first token.
        e2e_s: Seconds to the end.
    """

    phase: Phase
    setting: float
    concurrency: int
    repetition: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    ttft_s: float
    e2e_s: float

    @property
    def tpot_s(self) -> float:
        """Mean seconds between two tokens: (e2e - ttft) / (output_tokens - 1)."""
        return (self.e2e_s - self.ttft_s) / max(1, self.output_tokens - 1)


class FittedPoint(msgspec.Struct, frozen=True, kw_only=True):
    """The middle of the repetitions of one setting.

    Attributes:
        phase: What was measured: TTFT for prefill and cached, the gap between tokens for decode.
        at: Prompt tokens (prefill), cached tokens (cached) or streams at once (decode).
        value_s: Median or mean over the repetitions, seconds.
        repetitions: How many there are.
        spread_frac: (largest - smallest) / `value_s` of the repetitions.
    """

    phase: Phase
    at: float
    value_s: float
    repetitions: int
    spread_frac: float


class ProfileFit(msgspec.Struct, frozen=True, kw_only=True):
    """Curves of a profile with what must be known to trust them.

    Attributes:
        itl: The line of the gap between tokens over load, with its leave-one-out error.
        prefill: The line of TTFT over prompt length.
        prefill_loo_error_frac: Median relative error of predicting a length from the others.
        concurrency_cap: Largest load measured before TTFT rises.
        cache_benefit_frac: Part of a cached token's prefill that caching saves: 1 when cached
            tokens are free, 0 when they cost the same; None where not measured.
        points: Medians or means that were fitted.
        quality: `weak` when an error or a spread is too large.
        doubts: Why it is weak, one phrase each.
    """

    itl: ItlFit
    prefill: PrefillFit
    prefill_loo_error_frac: float | None
    concurrency_cap: int
    cache_benefit_frac: float | None
    points: tuple[FittedPoint, ...]
    quality: Literal["ok", "weak"]
    doubts: tuple[str, ...]


def fit_profile(requests: Sequence[TimedRequest], average: Average = "median") -> ProfileFit:
    """Which curve do these requests lie on?

    Args:
        requests: Timed requests of one replica and model.
        average: What is fitted of a setting's repetitions: the median, which a few disturbed ones
            do not move, or the mean, which is what a machine does in the long run whose speed
            swings all the time.

    Returns:
        The fit.

    Raises:
        FigureError: Too few loads, prompt lengths or repetitions to fit and to doubt.
    """
    prefill = [r for r in requests if r.phase == "prefill"]
    decode = [r for r in requests if r.phase == "decode" and r.output_tokens >= LEAST_OUTPUT_TOKENS]
    lengths = _points("prefill", [(float(r.input_tokens), r, r.ttft_s) for r in prefill], average)
    loads = _points("decode", _decode_values(decode), average)
    _check_enough(lengths, "prompt lengths", LEAST_LENGTHS)
    _check_enough(loads, "loads", LEAST_LOADS)
    itl = fit_itl([p.at for p in loads], [p.value_s for p in loads])
    line = fit_prefill([p.at for p in lengths], [p.value_s for p in lengths])
    cached = _points(
        "cached",
        [(float(r.cached_tokens), r, r.ttft_s) for r in requests if r.phase == "cached"],
        average,
    )
    points = (*lengths, *cached, *loads)
    prefill_error = _prefill_loo_error_frac(lengths)
    doubts = _doubts(itl, prefill_error, points)
    return ProfileFit(
        itl=itl,
        prefill=line,
        prefill_loo_error_frac=prefill_error,
        concurrency_cap=_concurrency_cap(decode),
        cache_benefit_frac=_cache_benefit_frac([r for r in requests if r.phase == "cached"], line),
        points=points,
        quality="weak" if doubts else "ok",
        doubts=doubts,
    )


def _decode_values(decode: list[TimedRequest]) -> list[tuple[float, TimedRequest, float]]:
    """One value per load and repetition: the mean gap over the streams that ran together."""
    together: dict[tuple[int, int], list[TimedRequest]] = defaultdict(list)
    for request in decode:
        together[request.concurrency, request.repetition].append(request)
    return [
        (float(load), group[0], statistics.fmean(r.tpot_s for r in group))
        for (load, _), group in sorted(together.items())
    ]


def _points(
    phase: Phase, values: list[tuple[float, TimedRequest, float]], average: Average
) -> tuple[FittedPoint, ...]:
    """One point per setting, at the median of what the pool counted."""
    middle = statistics.median if average == "median" else statistics.fmean
    settings: dict[float, list[tuple[float, float]]] = defaultdict(list)
    for at, request, value_s in values:
        settings[request.setting].append((at, value_s))
    points: list[FittedPoint] = []
    for _, seen in sorted(settings.items()):
        times_s = [value_s for _, value_s in seen]
        middle_s = middle(times_s)
        points.append(
            FittedPoint(
                phase=phase,
                at=statistics.median(at for at, _ in seen),
                value_s=middle_s,
                repetitions=len(seen),
                spread_frac=(max(times_s) - min(times_s)) / max(1e-12, middle_s),
            )
        )
    return tuple(points)


def _check_enough(points: tuple[FittedPoint, ...], what: str, least: int) -> None:
    if len(points) < least:
        raise FigureError(
            f"measured {len(points)} {what}, at least {least} are needed to fit a line and to say"
            " how wrong it is; ask for more"
        )
    fewest = min(point.repetitions for point in points)
    if fewest < LEAST_REPETITIONS:
        raise FigureError(
            f"some of the {what} were measured {fewest} times with a usable answer, at least"
            f" {LEAST_REPETITIONS} are needed; ask for more repetitions, or for longer answers"
        )


def _concurrency_cap(decode: list[TimedRequest]) -> int:
    by_load: dict[int, list[float]] = defaultdict(list)
    for request in decode:
        by_load[request.concurrency].append(request.ttft_s)
    median_s = {load: statistics.median(times) for load, times in by_load.items()}
    alone_s = median_s[min(median_s)]
    limit_s = max(_KNEE_FACTOR * alone_s, alone_s + _KNEE_SLACK_S)
    return max(load for load, ttft_s in median_s.items() if ttft_s <= limit_s)


def _cache_benefit_frac(cached: list[TimedRequest], line: PrefillFit) -> float | None:
    """What part of the cached tokens' prefill was saved? Median over the requests, 0 to 1."""
    saved: list[float] = []
    for request in cached:
        full_s = line.floor_s + line.s_per_token * request.input_tokens
        saveable_s = line.s_per_token * request.cached_tokens
        if saveable_s > 0.0:
            saved.append((full_s - request.ttft_s) / saveable_s)
    return min(1.0, max(0.0, statistics.median(saved))) if saved else None


def _prefill_loo_error_frac(points: tuple[FittedPoint, ...]) -> float | None:
    errors: list[float] = []
    for held_out in range(1, len(points) - 1):
        rest = points[:held_out] + points[held_out + 1 :]
        line = fit_prefill([p.at for p in rest], [p.value_s for p in rest])
        told_s = line.floor_s + line.s_per_token * points[held_out].at
        errors.append(abs(told_s - points[held_out].value_s) / points[held_out].value_s)
    return statistics.median(errors) if errors else None


def _doubts(
    itl: ItlFit, prefill_error_frac: float | None, points: tuple[FittedPoint, ...]
) -> tuple[str, ...]:
    doubts: list[str] = []
    errors = {"the gap between tokens": itl.loo_error_frac, "prefill": prefill_error_frac}
    for what, error in errors.items():
        if error is not None and error > WORST_OK_ERROR_FRAC:
            doubts.append(
                f"leave-one-out error of {what} is {error:.0%}, over {WORST_OK_ERROR_FRAC:.0%}"
            )
    worst = max(points, key=lambda p: p.spread_frac)
    if worst.spread_frac > WORST_OK_SPREAD_FRAC:
        doubts.append(
            f"repetitions of {worst.phase} at {worst.at:g} differ by {worst.spread_frac:.0%},"
            f" over {WORST_OK_SPREAD_FRAC:.0%}: is the machine idle?"
        )
    return tuple(doubts)
