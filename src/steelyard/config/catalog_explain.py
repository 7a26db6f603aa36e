"""Where does each number of an offering come from? One row per number, nothing left out."""

from typing import Literal

import msgspec

from steelyard.config.catalog_memory import catalog_kv_memory
from steelyard.config.catalog_query import check_model
from steelyard.config.catalog_table import (
    SOURCE,
    Catalog,
    FitOrigin,
    LlmFit,
    MachineFacts,
    ToolFit,
    hardware_key,
)
from steelyard.domain.offering import Offering

NumberOrigin = (
    FitOrigin
    | Literal["list price", "specification", "estimate", "model card", "derived", "missing"]
)
# ADR 0004 names the reference core that tool speed is relative to.
_REFERENCE = "one vCPU of aws/m7i.2xlarge"


class ExplainedNumber(msgspec.Struct, frozen=True, kw_only=True):
    """One number with its origin.

    Attributes:
        topic: What it belongs to: `price`, `machine`, `watts`, `tools`, or `llm MODEL`.
        name: What it is.
        value: The number; None where it is missing.
        unit: Its unit.
        origin: How it is known.
        source: Where it was read; empty where it is missing.
        date: Day of the price or measurement, ISO 8601; empty where unknown.
        note: Points, fit error, what is borrowed, derated or extrapolated.
    """

    topic: str
    name: str
    value: float | None
    unit: str
    origin: NumberOrigin
    source: str = ""
    date: str = ""
    note: str = ""


def explain_offering(
    catalog: Catalog, offering: Offering, model: str = ""
) -> tuple[ExplainedNumber, ...]:
    """Where does each number of this offering come from?

    Args:
        catalog: What is known.
        offering: The offering.
        model: Only this model's curves; empty for all.

    Returns:
        Price, machine, watts, tools, then models by name; what is missing is a row, too.

    Raises:
        ConfigError: No offering has figures for the model.
    """
    if model:
        check_model(catalog, model)
    key = hardware_key(offering)
    rows = [_price(offering), *_machine(offering), *_watts(catalog.facts.get(key))]
    rows.extend(_tools(catalog.tool_fits.get(key)))
    fits = catalog.llm_fits.get(key, ())
    for name in [model] if model else catalog.models():
        mine = [fit for fit in fits if fit.model == name]
        if not mine:
            rows.append(_missing(f"llm {name}", "speed", "not measured on this type"))
        for fit in sorted(mine, key=lambda f: (f.engine, f.prompt_tokens)):
            rows.extend(_curve(fit))
        if mine:
            rows.append(_memory(offering, name))
    return tuple(rows)


def _missing(topic: str, name: str, note: str) -> ExplainedNumber:
    return ExplainedNumber(topic=topic, name=name, value=None, unit="", origin="missing", note=note)


def _price(offering: Offering) -> ExplainedNumber:
    return ExplainedNumber(
        topic="price",
        name=f"{offering.capacity_type} in {offering.region}",
        value=offering.usd_per_hour,
        unit="USD/h",
        origin="list price",
        source=offering.price_source,
        date=offering.price_date,
        note="no discounts, commitments or taxes",
    )


def _machine(offering: Offering) -> list[ExplainedNumber]:
    machine = offering.instance_type
    sizes = [("logical CPUs", float(machine.vcpus), ""), ("memory", machine.memory_bytes, "bytes")]
    if machine.accelerator_count:
        sizes.append((machine.accelerator, float(machine.accelerator_count), "GPUs"))
    return [
        ExplainedNumber(
            topic="machine",
            name=name,
            value=value,
            unit=unit,
            origin="specification",
            source=f"{SOURCE}; SpareCores/sc-data-dumps where missing there",
        )
        for name, value, unit in sizes
    ]


def _watts(facts: MachineFacts | None) -> list[ExplainedNumber]:
    pairs = (
        [] if facts is None else [("idle", facts.watts_idle), ("all cores busy", facts.watts_max)]
    )
    known = [(name, watts) for name, watts in pairs if watts is not None]
    if facts is None or not known:
        return [_missing("watts", "power", "no source has a figure")]
    return [
        ExplainedNumber(
            topic="watts",
            name=name,
            value=watts,
            unit="W",
            origin="estimate",
            source=facts.watts_source,
            note="an estimate, not a measurement: do not rank architectures by it",
        )
        for name, watts in known
    ]


def _tools(fit: ToolFit | None) -> list[ExplainedNumber]:
    if fit is None:
        return [_missing("tools", "speed", "its CPU was not measured: tools are not placed there")]
    weak = "" if fit.quality == "ok" else "; weak: programs are missing"
    rows = [
        ExplainedNumber(
            topic="tools",
            name="speed per vCPU, all busy",
            value=fit.curve.relative_speed,
            unit=f"of {_REFERENCE}",
            origin="measured" if fit.quality == "ok" else "weak",
            source=fit.curve.source,
            note=f"trimmed geometric mean of {fit.n_proxies} of 5 programs{weak}",
        )
    ]
    if fit.single_thread_speed is None:
        return [*rows, _missing("tools", "speed of one thread", "no figure")]
    rows.append(
        ExplainedNumber(
            topic="tools",
            name="speed of one thread, machine idle",
            value=fit.single_thread_speed,
            unit=f"of {_REFERENCE}",
            origin="measured",
            source=fit.curve.source,
            note="shown, not planned with",
        )
    )
    return rows


def _curve(fit: LlmFit) -> list[ExplainedNumber]:
    curve = fit.curve
    topic = f"llm {fit.model}, {fit.prompt_tokens}/{fit.output_tokens} tokens, {fit.engine}"
    longest = fit.measured_context_tokens
    prefill_note = f"TTFT of one stream alone at {fit.prefill_points} prompt lengths"
    if fit.prefill_points == 1:
        prefill_note += "; the floor cannot be told apart and is taken as 0"
    numbers = (
        ("gap between tokens, a of a + b*c", curve.itl_base_s, "s", _fit_note(fit)),
        ("gap between tokens, b of a + b*c", curve.itl_slope_s, "s per stream", _fit_note(fit)),
        ("prefill", curve.prefill_s_per_token, "s per uncached token", prefill_note),
        ("TTFT floor", curve.ttft_floor_s, "s", prefill_note),
        (
            "concurrency cap",
            float(curve.concurrency_cap),
            "streams",
            "largest load measured before TTFT rises; the machine may take more",
        ),
    )
    rows = [
        ExplainedNumber(
            topic=topic,
            name=name,
            value=value,
            unit=unit,
            origin=fit.origin,
            source=curve.source,
            date=fit.date,
            note=note,
        )
        for name, value, unit, note in numbers
    ]
    over = f"; beyond the {longest} tokens measured it is extrapolated" if longest else ""
    context = ExplainedNumber(
        topic=topic,
        name="context limit",
        value=float(curve.context_tokens),
        unit="tokens",
        origin="model card",
        source="the model's card",
        note=f"the model's own limit{over}",
    )
    return [*rows, context]


def _memory(offering: Offering, model: str) -> ExplainedNumber:
    found = catalog_kv_memory(offering, model)
    if found is None:
        return _missing(
            f"llm {model}", "key-value memory", "GPU, shape or engine's share not known"
        )
    return ExplainedNumber(
        topic=f"llm {model}",
        name="key-value memory",
        value=float(found.tokens),
        unit="tokens",
        origin="derived",
        source=found.source,
        note="as vLLM sizes its cache; an engine tells some per cent less at its start",
    )


def _fit_note(fit: LlmFit) -> str:
    if fit.origin == "predicted":
        return "roofline calibrated on measured types; used only when allowed, as 30 % slower"
    parts = [f"{fit.points} load points"]
    if fit.loo_error_frac is None:
        parts.append("too few to leave one out")
    else:
        parts.append(f"leave-one-out error {fit.loo_error_frac:.1%}")
    if fit.origin == "borrowed":
        parts.append(f"borrowed from {fit.measured_on}, which has the same GPUs")
    if fit.quality == "weak":
        parts.append("weak: the planner takes it as 10 % slower")
    return "; ".join(parts)
