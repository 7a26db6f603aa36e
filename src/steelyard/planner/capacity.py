"""How long does a step keep a machine busy, and can the machine keep the SLO at all?

The seconds come from `steelyard.perf.cost`, the one cost function, at the largest concurrency
that keeps the ITL limit. A machine has one such concurrency per model: where steps of a model have
several ITL limits, it keeps the tightest that it can keep, and steps with a tighter one go
elsewhere. Thin: looser steps could be batched more on machines of their own.
"""

import difflib
import math
from typing import Literal

import msgspec

from steelyard.config.catalog_table import Catalog, FitOrigin, LlmFit
from steelyard.domain.offering import Offering
from steelyard.domain.pool import LlmCurve, ToolCurve
from steelyard.domain.slo import Slo
from steelyard.errors import PlanError
from steelyard.perf.cost import llm_replica_s, tool_replica_s
from steelyard.perf.predict import (
    itl_s,
    prefill_s,
    prefill_share_s,
    shared_itl_s,
    usable_concurrency,
)
from steelyard.planner.workload_demand import StepClass, WorkloadDemand


class CapacityRules(msgspec.Struct, frozen=True, kw_only=True):
    """What may be used, and how much is kept free.

    Attributes:
        engine: Engine and version whose curves count; None mixes versions (do not compare).
        allow_borrowed: Whether curves borrowed from a sibling with the same GPUs count.
        allow_predicted: Whether roofline estimates count where nothing was measured.
        weak_derate_frac: How much slower weakly measured curves are taken to be.
        predicted_derate_frac: How much slower roofline estimates are taken to be; their median
            error is 20-30 % (`scripts/roofline_error.py`).
        slowest_tool_speed: Slowest core that tools may run on, relative to the reference core.
        max_utilisation_frac: Largest share of a machine's time that is planned for.
        staffing_beta: b in the square-root rule R + b * sqrt(R) for R places in use (Halfin and
            Whitt, Operations Research 29, 1981); the larger of both headrooms is used.
        service_factor: Service times are taken to be this many times the figures: 1.2 for a plan
            that holds when machines are 20 % slower.
        extra_headroom: Factor on both headrooms, e.g. found by simulation.
    """

    engine: str | None = "vllm-0.22.1"
    allow_borrowed: bool = True
    allow_predicted: bool = False
    weak_derate_frac: float = 0.1
    predicted_derate_frac: float = 0.3
    slowest_tool_speed: float = 0.5
    max_utilisation_frac: float = 0.8
    staffing_beta: float = 1.0
    service_factor: float = 1.0
    extra_headroom: float = 1.0


class Fitness(msgspec.Struct, frozen=True, kw_only=True):
    """How one offering does with one step class.

    Attributes:
        machine_s: Seconds of a whole machine per step, without headroom; None: it cannot.
        latency_s: Predicted seconds from start to end of a step at planned load; None: it cannot.
        obstacle: Why it cannot, in words; empty otherwise.
        measured: Whether the figures were measured on this very type and are not weak.
        origin: Where they come from; empty where it cannot.
    """

    machine_s: float | None
    latency_s: float | None
    obstacle: str
    measured: bool
    origin: FitOrigin | Literal[""] = ""


def planned_fit(
    catalog: Catalog, offering: Offering, demand: WorkloadDemand, model: str, rules: CapacityRules
) -> LlmFit | None:
    """Which sweep describes a model on an offering under this demand?

    One sweep per model, so that a machine has one curve for it: the one nearest to the mean
    uncached prompt of all steps of the model.
    """
    mine = [c for c in demand.classes if c.model == model]
    rate = math.fsum(c.rate_per_s for c in mine)
    tokens = math.fsum(c.rate_per_s * c.uncached_tokens for c in mine) / rate
    return catalog.llm_fit(offering, model, rules.engine, prompt_tokens=tokens)


def planned_curve(
    fit: LlmFit, classes: tuple[StepClass, ...], slo: Slo, rules: CapacityRules
) -> LlmCurve | None:
    """The curve with its streams capped where the tightest ITL limit that it can keep is met.

    Gaps contain the prefill of the other streams (`shared_itl_s`), of the mix of all steps that the
    machine could serve.

    Args:
        fit: Curve of the offering for a model.
        classes: Step classes; those of other models do not count.
        slo: Limits per step.
        rules: What may be used.

    Returns:
        The curve of the figures, however slow `rules` take it to be; None if no limit is kept.
    """
    slow = _planned_speed(fit, rules)
    share_s = mix_share_s(fit, classes, slo, rules)
    mine = [c for c in classes if c.model == fit.model and not _unfit(c, fit, rules)]
    for limit in sorted((_limits(c, slo) for c in mine), key=lambda one: one.gap_s):
        streams = usable_concurrency(slow, limit, share_s)
        if streams >= 1:
            return msgspec.structs.replace(fit.curve, concurrency_cap=streams)
    return None


def mix_share_s(
    fit: LlmFit, classes: tuple[StepClass, ...], slo: Slo, rules: CapacityRules
) -> float:
    """How much prefill does a stream of a machine's mix bring with it per token?

    Args:
        fit: Curve of the offering for a model.
        classes: Step classes; those of other models, or that the machine cannot serve, do not
            count.
        slo: Limits per step.
        rules: What may be used.

    Returns:
        Seconds per token of an answer (`steelyard.perf.predict.prefill_share_s`).
    """
    slow = _planned_speed(fit, rules)
    mine = [
        c
        for c in classes
        if c.model == fit.model
        and not _unfit(c, fit, rules)
        and _ttft_s(slow, c.high_uncached_tokens) <= _limits(c, slo).ttft_s
    ]
    rate = math.fsum(c.rate_per_s for c in mine)
    if rate <= 0.0:
        return 0.0
    uncached = math.fsum(c.rate_per_s * c.uncached_tokens for c in mine) / rate
    output = math.fsum(c.rate_per_s * c.output_tokens for c in mine) / rate
    return prefill_share_s(slow.prefill_s_per_token, uncached, output)


def _planned_speed(fit: LlmFit, rules: CapacityRules) -> LlmCurve:
    """The curve as slow as the rules take it to be: in every limit, not in the cost alone."""
    return slowed_curve(fit.curve, rules.service_factor * _derate(fit, rules))


def _ttft_s(curve: LlmCurve, uncached_tokens: float) -> float:
    return prefill_s(curve.ttft_floor_s, curve.prefill_s_per_token, uncached_tokens)


def slowed_curve(curve: LlmCurve, factor: float) -> LlmCurve:
    """The curve of a machine on which everything takes `factor` times as long."""
    return msgspec.structs.replace(
        curve,
        ttft_floor_s=curve.ttft_floor_s * factor,
        prefill_s_per_token=curve.prefill_s_per_token * factor,
        itl_base_s=curve.itl_base_s * factor,
        itl_slope_s=curve.itl_slope_s * factor,
    )


def _limits(step: StepClass, slo: Slo) -> Slo:
    return slo.limits(step.agent, step.step, step.model)


def llm_fitness(
    step: StepClass,
    fit: LlmFit | None,
    planned: tuple[LlmCurve | None, float],
    slo: Slo,
    rules: CapacityRules,
) -> Fitness:
    """How does an offering with this curve do with this class of LLM steps?

    Args:
        step: The steps.
        fit: Curve of the offering for their model; None without one.
        planned: What `planned_curve` made of it, and `mix_share_s`.
        slo: Limits per step.
        rules: What may be used.

    Returns:
        Seconds per step, or the obstacle.
    """
    if fit is None:
        return _cannot(f"no {rules.engine or 'measured'} figures for {step.model}")
    unfit = _unfit(step, fit, rules)
    if unfit:
        return _cannot(unfit)
    limit = _limits(step, slo)
    curve, (capped, share_s) = _planned_speed(fit, rules), planned
    alone_s = itl_s(curve.itl_base_s, curve.itl_slope_s, 1.0)
    if capped is None or alone_s > limit.gap_s:
        return _cannot(f"{alone_s:.3f} s between tokens of one stream is over {limit.gap_s} s")
    ttft_s = _ttft_s(curve, step.high_uncached_tokens)
    if ttft_s > limit.ttft_s:
        return _cannot(
            f"{ttft_s:.2f} s to the first token after {step.high_uncached_tokens:.0f} uncached"
            f" tokens is over {limit.ttft_s} s"
        )
    curve = msgspec.structs.replace(curve, concurrency_cap=capped.concurrency_cap)
    streams = float(curve.concurrency_cap)
    gap_s = shared_itl_s(curve.itl_base_s, curve.itl_slope_s, streams, share_s)
    fitness = Fitness(
        machine_s=llm_replica_s(curve, step.uncached_tokens, step.output_tokens),
        latency_s=_ttft_s(curve, step.uncached_tokens) + step.output_tokens * gap_s,
        obstacle="",
        measured=fit.quality == "ok" and not curve.predicted,
        origin=fit.origin,
    )
    return _in_time(fitness, limit)


def _in_time(fitness: Fitness, limit: Slo) -> Fitness:
    """The fitness, unless the step takes longer than its own limit."""
    took_s = fitness.latency_s
    if took_s is None or limit.latency_s is None or took_s <= limit.latency_s:
        return fitness
    return _cannot(f"{took_s:.3g} s is over its limit of {limit.latency_s:g} s")


def _derate(fit: LlmFit, rules: CapacityRules) -> float:
    if fit.origin == "predicted":
        return 1.0 + rules.predicted_derate_frac
    return 1.0 + rules.weak_derate_frac if fit.quality == "weak" else 1.0


def _unfit(step: StepClass, fit: LlmFit, rules: CapacityRules) -> str:
    """Why may this curve not be used for these steps at all? Empty if it may."""
    if fit.origin == "predicted" and not rules.allow_predicted:
        return "its figures are predicted, not measured"
    if fit.origin == "borrowed" and not rules.allow_borrowed:
        return "its figures are borrowed from a machine with the same GPUs"
    if step.longest_context_tokens > fit.curve.context_tokens:
        longest = step.longest_context_tokens
        return f"a context of {longest} tokens is over {fit.curve.context_tokens}"
    return ""


def tool_fitness(
    step: StepClass, curve: ToolCurve | None, slo: Slo, rules: CapacityRules
) -> Fitness:
    """How does an offering with this CPU do with this class of tool steps?"""
    if curve is None:
        return _cannot("its CPU was not measured")
    if curve.relative_speed < rules.slowest_tool_speed:
        return _cannot(
            f"its cores run at {curve.relative_speed:.2f} of the reference core, under"
            f" {rules.slowest_tool_speed}"
        )
    if step.memory_bytes > curve.memory_bytes:
        return _cannot(f"{step.memory_bytes:.3g} bytes are more than its memory")
    slow = rules.service_factor
    cpu_s, wait_s = slow * step.cpu_s, slow * step.wait_s
    wall_s = slow * curve.start_s + cpu_s / curve.relative_speed + wait_s
    fitness = Fitness(
        machine_s=tool_replica_s(curve, cpu_s, wall_s, step.memory_bytes),
        latency_s=wall_s,
        obstacle="",
        measured=not curve.predicted,
        origin="predicted" if curve.predicted else "measured",
    )
    return _in_time(fitness, _limits(step, slo))


def check_models(demand: WorkloadDemand, catalog: Catalog) -> None:
    """Does the catalogue know every model of the demand?

    Raises:
        PlanError: It does not; the message names the nearest.
    """
    known = catalog.models()
    for step in demand.classes:
        if step.kind == "llm" and step.model not in known:
            near = difflib.get_close_matches(step.model, known, n=2, cutoff=0.4) or known
            raise PlanError(
                f"model {step.model!r} of step {step.step!r} has no figures in the catalogue;"
                " measure it (`steelyard measure`, and `figures` of the plan's file), or plan for a"
                " recording with another one (`steelyard workload convert --model`); the nearest"
                f" are: {', '.join(near)}"
            )


def check_slo(demand: WorkloadDemand, slo: Slo) -> None:
    """Does every entry of `slo.steps` cover some step of the demand?

    Raises:
        PlanError: One does not; the message names what there is.
    """
    for entry in slo.steps:
        if not any(entry.covers(c.agent, c.step, c.model) for c in demand.classes):
            there = sorted({f"{c.agent} / {c.step}" for c in demand.classes})
            raise PlanError(
                f"slo.steps has limits for {entry.label()}, but the demand has no such step;"
                f" it has: {', '.join(there[:8])}"
            )


def _cannot(obstacle: str) -> Fitness:
    return Fitness(machine_s=None, latency_s=None, obstacle=obstacle, measured=False)
