"""From timed requests to the figures file that pools and plans take."""

import statistics

import msgspec

from steelyard.config.figures_file import FORMAT, Figure, FiguresFile
from steelyard.domain.pool import LlmCurve
from steelyard.perf.profile import ProfileFit, TimedRequest, fit_profile
from steelyard.runtime.profiling import ProfilePlan


class MeasuredPool(msgspec.Struct, frozen=True, kw_only=True):
    """What is being measured.

    Attributes:
        model: Model, by the name that plans use.
        target: The base URL, or `local`.
        engine: Engine and version, where known.
        machine: The machine that measures.
        offering: Catalogue name of the machine that the pool has to itself; empty where unknown.
        replicas: Replicas measured together.
        context_tokens: Longest prompt plus output that the model takes; 0 takes the longest that
            was measured.
        date: Day, ISO 8601.
    """

    model: str
    target: str
    engine: str
    machine: str
    offering: str
    replicas: int
    context_tokens: int
    date: str


def measured_figures(
    pool: MeasuredPool, plan: ProfilePlan, requests: tuple[TimedRequest, ...]
) -> FiguresFile:
    """Which figures follow from these requests?

    Args:
        pool: What was measured.
        plan: How.
        requests: The timed requests.

    Returns:
        The figures file.

    Raises:
        FigureError: Too few points to fit from.
    """
    fit = fit_profile(requests, plan.average)
    decode = [r for r in requests if r.phase == "decode"]
    longest = max(r.input_tokens + r.output_tokens for r in requests)
    curve = LlmCurve(
        ttft_floor_s=fit.prefill.floor_s,
        prefill_s_per_token=fit.prefill.s_per_token,
        itl_base_s=fit.itl.base_s,
        itl_slope_s=fit.itl.slope_s,
        concurrency_cap=fit.concurrency_cap,
        context_tokens=pool.context_tokens or longest,
        predicted=False,
        source=f"steelyard measure {pool.target} from {pool.machine}, {pool.date}",
    )
    return FiguresFile(
        format=FORMAT,
        model=pool.model,
        target=pool.target,
        engine=pool.engine,
        machine=pool.machine,
        offering=pool.offering,
        replicas=pool.replicas,
        date=pool.date,
        source=(
            f"{len(requests)} requests: prompts of {plan.prompt_tokens} tokens, cached shares"
            f" {plan.cached_fracs}, {plan.concurrencies} streams, {plan.output_tokens} output"
            f" tokens after prompts of {plan.decode_prompt_tokens or 'few'} tokens,"
            f" {plan.repetitions} repetitions; {plan.average}s"
        ),
        curve=curve,
        quality=fit.quality,
        doubts=fit.doubts,
        loo_error_frac=fit.itl.loo_error_frac,
        itl_points=fit.itl.points,
        prefill_points=fit.prefill.points,
        prompt_tokens=round(statistics.median(r.input_tokens for r in decode)),
        output_tokens=plan.output_tokens,
        longest_tokens=longest,
        figures=_figures(fit),
    )


def _figures(fit: ProfileFit) -> tuple[Figure, ...]:
    lines = (
        ("gap between tokens, a of a + b*c", fit.itl.base_s, "s", True),
        ("gap between tokens, b of a + b*c", fit.itl.slope_s, "s per stream", True),
        ("prefill", fit.prefill.s_per_token, "s per uncached token", False),
        ("TTFT floor", fit.prefill.floor_s, "s", False),
    )
    fitted = [
        Figure(
            name=name,
            value=value,
            unit=unit,
            points=fit.itl.points if decode else fit.prefill.points,
            error_frac=fit.itl.loo_error_frac if decode else fit.prefill_loo_error_frac,
        )
        for name, value, unit, decode in lines
    ]
    fitted.append(_plain("concurrency cap", float(fit.concurrency_cap), "streams", fit.itl.points))
    if fit.cache_benefit_frac is not None:
        cached = sum(p.repetitions for p in fit.points if p.phase == "cached")
        fitted.append(
            _plain("prefill saved per cached token", fit.cache_benefit_frac, "share", cached)
        )
    names = {
        "prefill": "TTFT alone at {:g} prompt tokens",
        "cached": "TTFT alone with {:g} tokens cached",
        "decode": "gap between tokens with {:g} streams",
    }
    points = [
        Figure(
            name=names[point.phase].format(point.at),
            value=point.value_s,
            unit="s",
            points=point.repetitions,
            error_frac=point.spread_frac,
        )
        for point in fit.points
    ]
    return (*fitted, *points)


def _plain(name: str, value: float, unit: str, points: int) -> Figure:
    return Figure(name=name, value=value, unit=unit, points=points, error_frac=None)
