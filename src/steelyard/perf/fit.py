"""Which curve do measured points lie on? Least squares for ITL over load, and for prefill.

Only ITL is fitted over concurrency: it is close to affine. TTFT is not (flat, then queueing), so
it is fitted over the prompt's length from low-load points, and never over load.
"""

import math
import statistics
from collections.abc import Sequence

import msgspec

from steelyard.errors import FigureError


class ItlFit(msgspec.Struct, frozen=True, kw_only=True):
    """The line itl(c) = base_s + slope_s * c, and how well the points agree with it.

    Attributes:
        base_s: Seconds per token with no other stream.
        slope_s: Seconds that each stream adds.
        points: Number of points fitted.
        loo_error_frac: Median relative error of predicting an interior point from the others;
            None with fewer than three points.
    """

    base_s: float
    slope_s: float
    points: int
    loo_error_frac: float | None

    def at(self, concurrency: float) -> float:
        """What gap between tokens does the line give at this concurrency, in seconds?"""
        return self.base_s + self.slope_s * concurrency


class PrefillFit(msgspec.Struct, frozen=True, kw_only=True):
    """The line ttft(n) = floor_s + s_per_token * n over prompt tokens, at low load.

    Attributes:
        floor_s: Seconds before the first token that do not depend on the prompt.
        s_per_token: Seconds per uncached prompt token.
        points: Number of prompt lengths fitted.
    """

    floor_s: float
    s_per_token: float
    points: int


def _affine(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Weighted least squares of y = a + b*x with weights 1/y^2 and a, b >= 0.

    Minimises the relative errors: a plan is wrong by a share, not by a number of milliseconds.
    Source: normal equations of weighted least squares, with the active set of two bounds.
    """
    weights = [1.0 / (y * y) for y in ys]
    total = math.fsum(weights)
    x_mean = math.fsum(w * x for w, x in zip(weights, xs, strict=True)) / total
    y_mean = math.fsum(w * y for w, y in zip(weights, ys, strict=True)) / total
    spread = math.fsum(w * (x - x_mean) ** 2 for w, x in zip(weights, xs, strict=True))
    if spread <= 1e-12 * total * max(1.0, x_mean * x_mean):
        return y_mean, 0.0
    slope = math.fsum(
        w * (x - x_mean) * (y - y_mean) for w, x, y in zip(weights, xs, ys, strict=True)
    )
    slope /= spread
    if slope <= 0.0:
        return y_mean, 0.0
    base = y_mean - slope * x_mean
    if base >= 0.0:
        return base, slope
    squares = math.fsum(w * x * x for w, x in zip(weights, xs, strict=True))
    return 0.0, math.fsum(w * x * y for w, x, y in zip(weights, xs, ys, strict=True)) / squares


def fit_itl(concurrency: Sequence[float], itl_s: Sequence[float]) -> ItlFit:
    """Which line itl(c) = a + b*c do these points lie on?

    Args:
        concurrency: Mean streams at once per point, > 0; shape (points,).
        itl_s: Gap between tokens per point, seconds, > 0; shape (points,).

    Returns:
        The fit; with one concurrency only, its slope is 0.

    Raises:
        FigureError: No point, or a point that is not positive.

    >>> fit = fit_itl([1.0, 5.0, 9.0], [0.011, 0.015, 0.019])
    >>> round(fit.base_s, 6), round(fit.slope_s, 6), fit.loo_error_frac < 1e-9
    (0.01, 0.001, True)
    """
    pairs = sorted(zip(concurrency, itl_s, strict=True))
    if not pairs:
        raise FigureError("no point to fit ITL from: measure at least one concurrency")
    if any(not (c > 0.0 and y > 0.0) for c, y in pairs):
        raise FigureError(f"ITL points must be positive, got {pairs}: drop the empty ones")
    xs, ys = [c for c, _ in pairs], [y for _, y in pairs]
    base_s, slope_s = _affine(xs, ys)
    errors: list[float] = []
    for held_out in range(1, len(pairs) - 1):
        rest_x = xs[:held_out] + xs[held_out + 1 :]
        rest_y = ys[:held_out] + ys[held_out + 1 :]
        a, b = _affine(rest_x, rest_y)
        errors.append(abs(a + b * xs[held_out] - ys[held_out]) / ys[held_out])
    return ItlFit(
        base_s=base_s,
        slope_s=slope_s,
        points=len(pairs),
        loo_error_frac=statistics.median(errors) if errors else None,
    )


def decode_alone(base_s: float, slope_s: float, share_s: float) -> tuple[float, float, bool]:
    """What is left of a closed-loop sweep's line when the prefill of other streams is taken off?

    In a closed loop of c streams, each of the c - 1 others prefills once per answer and stalls
    every decode meanwhile: measured is `a + b*c = itl(c) + (c - 1) * share`, the inverse of
    `steelyard.perf.predict.shared_itl_s`. So `a' = a + share` and `b' = b - share`. Never more than
    the slope is taken off; the gap of one stream alone stays what it was. Source: ADR 19, where a
    profile of decode alone agrees with what is left.

    Args:
        base_s: The a of the sweep's line, seconds.
        slope_s: Its b, seconds per stream.
        share_s: `prefill_share_s` of the sweep's prompt and answer, seconds per token.

    Returns:
        The a and b of decode alone, and whether less than the share could be taken off.

    >>> decode_alone(0.5, 0.375, 0.25)
    (0.75, 0.125, False)
    >>> decode_alone(0.5, 0.125, 0.25)
    (0.625, 0.0, True)
    """
    taken_s = min(share_s, slope_s)
    return base_s + taken_s, slope_s - taken_s, taken_s < share_s


def fit_prefill(prompt_tokens: Sequence[float], ttft_s: Sequence[float]) -> PrefillFit:
    """How long does a prompt of n uncached tokens take on an idle replica?

    Args:
        prompt_tokens: Prompt length per point; shape (points,).
        ttft_s: Time to first token at low load per point, seconds; shape (points,).

    Returns:
        The fit; from a single prompt length the floor is 0 (all of it is charged to the tokens).

    Raises:
        FigureError: No point, or a point that is not positive.

    >>> fit = fit_prefill([256, 1024], [0.3, 1.068])
    >>> round(fit.floor_s, 6), round(fit.s_per_token, 6)
    (0.044, 0.001)
    """
    pairs = sorted(zip(prompt_tokens, ttft_s, strict=True))
    if not pairs or any(not (n > 0.0 and y > 0.0) for n, y in pairs):
        raise FigureError(f"TTFT points must be positive, got {pairs}: drop the empty ones")
    xs, ys = [float(n) for n, _ in pairs], [y for _, y in pairs]
    points = len(set(xs))
    floor_s, s_per_token = _affine(xs, ys)
    if s_per_token <= 0.0:
        # One length, or noise in which the longer prompt was faster: all of the slowest point's
        # time is charged to its tokens, since no prompt is free.
        return PrefillFit(floor_s=0.0, s_per_token=max(y / n for n, y in pairs), points=points)
    return PrefillFit(floor_s=floor_s, s_per_token=s_per_token, points=points)
