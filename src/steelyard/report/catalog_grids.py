"""Tables of the catalogue: offerings, one offering's curves, and where its numbers come from."""

from steelyard.config.catalog_explain import ExplainedNumber
from steelyard.config.catalog_query import models_on
from steelyard.config.catalog_table import Catalog, LlmFit, hardware_key
from steelyard.config.figures_file import FiguresFile
from steelyard.config.refreshed_catalog import PriceChange
from steelyard.domain.offering import Offering
from steelyard.domain.units import BYTES_PER_GIB
from steelyard.report.format import NONE, count, percent, seconds, significant, usd
from steelyard.report.grid import Grid, columns


def offering_grid(catalog: Catalog, offerings: tuple[Offering, ...], limit: int) -> Grid:
    """Which offerings are there?

    Args:
        catalog: For the models that have figures.
        offerings: What was found, in the order to show.
        limit: How many to show; 0 for all.

    Returns:
        One row per offering.
    """
    shown = offerings[:limit] if limit else offerings
    hidden = len(offerings) - len(shown)
    more = f" {count(hidden)} more are not shown: --limit 0 shows all." if hidden else ""
    return Grid(
        title=f"{count(len(offerings))} offerings, cheapest first",
        origin=None,
        columns=columns(
            ("offering", "hardware", "accelerator", "price of"),
            ("USD per hour", "vCPUs", "GiB"),
            ("models with figures",),
        ),
        rows=tuple(_offering_row(catalog, one) for one in shown),
        note=f"List prices of one region per provider, each of its day.{more}",
    )


def _offering_row(catalog: Catalog, offering: Offering) -> tuple[str, ...]:
    machine = offering.instance_type
    gpus = f"{machine.accelerator_count} x {machine.accelerator}"
    return (
        offering.name,
        machine.hardware,
        gpus if machine.accelerator_count else NONE,
        offering.price_date,
        usd(offering.usd_per_hour),
        count(machine.vcpus),
        significant(machine.memory_bytes / BYTES_PER_GIB),
        ", ".join(models_on(catalog, offering)) or NONE,
    )


def price_grid(changes: tuple[PriceChange, ...], limit: int) -> Grid:
    """Which prices did a refresh change, and which offerings are new?

    Args:
        changes: In the order to show.
        limit: How many to show; 0 for all.

    Returns:
        One row per offering.
    """
    shown = changes[:limit] if limit else changes
    hidden = len(changes) - len(shown)
    rows = [
        (
            one.offering,
            one.price_date or NONE,
            usd(one.old_usd_per_hour),
            usd(one.new_usd_per_hour),
            NONE
            if one.old_usd_per_hour is None
            else f"{100.0 * (one.new_usd_per_hour / one.old_usd_per_hour - 1.0):+.1f} %",
        )
        for one in shown
    ]
    return Grid(
        title=f"{count(len(changes))} changed prices and new offerings",
        origin=None,
        columns=columns(
            ("offering", "price of"),
            ("packaged", "refreshed", "change"),
        ),
        rows=tuple(rows),
        note=f"{count(hidden)} more are not shown: --limit 0 shows all." if hidden else "",
    )


def curve_grid(catalog: Catalog, offering: Offering) -> Grid:
    """How fast does an offering serve each model?

    Args:
        catalog: What is known.
        offering: The offering.

    Returns:
        One row per model, engine and prompt length.
    """
    fits = sorted(
        catalog.llm_fits.get(hardware_key(offering), ()),
        key=lambda f: (f.model, f.engine, f.prompt_tokens),
    )
    return Grid(
        title=f"Models on {offering.name}",
        origin=None,
        columns=columns(
            ("model", "engine", "tokens in/out", "origin"),
            ("gap alone", "gap at the cap", "cap", "prefill tokens/s", "points", "fit error"),
        ),
        rows=tuple(_curve_row(fit) for fit in fits),
        note="The gap between tokens is a + b*c for c streams that only decode; the prefill of the"
        " others comes on top.",
    )


def _curve_row(fit: LlmFit) -> tuple[str, ...]:
    curve = fit.curve
    at_cap_s = curve.itl_base_s + curve.itl_slope_s * curve.concurrency_cap
    return (
        fit.model,
        fit.engine,
        f"{fit.prompt_tokens}/{fit.output_tokens}",
        fit.origin,
        seconds(curve.itl_base_s + curve.itl_slope_s),
        seconds(at_cap_s),
        count(curve.concurrency_cap),
        significant(1.0 / curve.prefill_s_per_token),
        count(fit.points),
        percent(fit.loo_error_frac),
    )


def explain_grid(offering: Offering, numbers: tuple[ExplainedNumber, ...]) -> Grid:
    """Where does each number of an offering come from?

    Args:
        offering: The offering.
        numbers: Its numbers.

    Returns:
        One row per number.
    """
    return Grid(
        title=f"Where the numbers of {offering.name} come from",
        origin=None,
        columns=columns(("of", "number", "value", "origin", "date"), (), ("note", "source")),
        rows=tuple(
            (
                one.topic,
                one.name,
                NONE if one.value is None else f"{significant(one.value)} {one.unit}".strip(),
                one.origin,
                one.date or NONE,
                one.note or NONE,
                one.source or NONE,
            )
            for one in numbers
        ),
        note="Figures from benchmarks are CC BY-SA 4.0 (SpareCores); see the catalogue's LICENSE.",
    )


def figures_grid(found: FiguresFile) -> Grid:
    """What was measured of a pool, and how sure is it?

    Args:
        found: The figures.

    Returns:
        One row per figure.
    """
    doubts = f" Weak: {'; '.join(found.doubts)}" if found.doubts else ""
    return Grid(
        title=f"{found.model} at {found.target}, {found.date}",
        origin="measured",
        columns=columns(("figure", "value"), ("points", "error or spread")),
        rows=tuple(
            (
                one.name,
                seconds(one.value) if one.unit == "s" else f"{significant(one.value)} {one.unit}",
                count(one.points),
                percent(one.error_frac),
            )
            for one in found.figures
        ),
        note=f"Fitted lines show their leave-one-out error, medians their spread.{doubts}",
    )
