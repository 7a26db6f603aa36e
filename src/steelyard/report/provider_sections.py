"""Providers over time, as a section: what went wrong where, when, and for how long."""

import itertools
import math

from steelyard.ledger.caps import CapKept
from steelyard.ledger.health import HealthSpan
from steelyard.ledger.providers_over_time import ProviderOverTime, ProvidersOverTime
from steelyard.report.format import count, name, percent, seconds, usd
from steelyard.report.grid import Grid, columns
from steelyard.report.page import Figure, Section, Source, plot, table
from steelyard.report.provider_plots import Mark, providers_plot

_MOST_ROWS = 40
_CAPTION = (
    "Steps that each provider answered and attempts that failed there, per second, by their ends."
    " Shaded: its breaker was open, so that it got nothing, or its replicas were down. Dashed:"
    " moments that were marked. At the bottom each provider's share of what the attempts cost."
)


def has_trouble(told: ProvidersOverTime) -> bool:
    """Did anything fail, or was anything down?"""
    return any(one.failed or one.unwell for one in told.providers.values())


def providers_over_time_section(
    told: ProvidersOverTime,
    marks: tuple[Mark, ...],
    caps: tuple[CapKept, ...],
    where: Source,
) -> Section:
    """How did each provider do, and what did a loss do to the others?

    Args:
        told: Providers over time.
        marks: Moments to be marked.
        caps: Spend caps, with what was spent.
        where: The log.

    Returns:
        The section.
    """
    figures = [
        Figure(name=what, about=provider, value=value, unit=unit, where=where)
        for provider, one in told.providers.items()
        for what, value, unit in (
            ("steps answered", float(one.answered), "count"),
            ("attempts failed", float(one.failed), "count"),
            ("breaker open", _lasting_s(one, "breaker open"), "s"),
            ("all replicas down", _lasting_s(one, "down"), "s"),
        )
    ]
    return Section(
        key="providers-over-time",
        title="Providers over time",
        lead=tuple(_story(told, marks)),
        figures=tuple(figures),
        blocks=(
            plot(providers_plot(told, marks), _CAPTION, where),
            table(_sums_grid(told), where),
            *((table(_caps_grid(caps), where),) if caps else ()),
            table(_spans_grid(told), where),
        ),
    )


def _lasting_s(one: ProviderOverTime, condition: str) -> float:
    return math.fsum(s.end_s - s.start_s for s in one.unwell if s.condition == condition)


def _story(told: ProvidersOverTime, marks: tuple[Mark, ...]) -> list[str]:
    """One sentence per mark: what the fleet did until the next one."""
    shown = sorted((one for one in marks if one.t_s >= told.first_s), key=lambda one: one.t_s)
    starts_s = [one.t_s - told.first_s for one in shown]
    spans_s = itertools.pairwise([*starts_s, told.span_s])
    return [_sentence(told, mark, span_s) for mark, span_s in zip(shown, spans_s, strict=True)]


def _sentence(told: ProvidersOverTime, mark: Mark, span_s: tuple[float, float]) -> str:
    edges = range(int(span_s[0] / told.bucket_s), max(1, math.ceil(span_s[1] / told.bucket_s)))

    def total(rates: tuple[float, ...]) -> int:
        return round(math.fsum(rates[at] * told.bucket_s for at in edges if at < len(rates)))

    answered = math.fsum(total(one.answered_per_s) for one in told.providers.values())
    failed = math.fsum(total(one.failed_per_s) for one in told.providers.values())
    words = f"From {seconds(span_s[0])} ({name(mark.label, 60)}) to {seconds(span_s[1])} about"
    words += (
        f" {count(round(answered))} steps were answered and {count(round(failed))} attempts failed"
    )
    begun = _first_after(told, mark, span_s)
    if begun is None:
        return f"{words}."
    spent_s = seconds(max(0.0, begun.start_s - span_s[0]))
    return f"{words}; {begun.condition} in {name(begun.pool, 30)} after {spent_s}."


def _first_after(
    told: ProvidersOverTime, mark: Mark, span_s: tuple[float, float]
) -> HealthSpan | None:
    found = [
        one
        for provider in told.providers.values()
        for one in provider.unwell
        if span_s[0] <= one.start_s < span_s[1] and mark.pool in {"", one.pool}
    ]
    return min(found, key=lambda one: (one.start_s, one.condition), default=None)


def _sums_grid(told: ProvidersOverTime) -> Grid:
    spend_usd = math.fsum(one.spend_usd for one in told.providers.values())
    rows = tuple(
        (
            name(provider) or "none",
            count(one.answered),
            count(one.failed),
            count(sum(span.condition == "breaker open" for span in one.unwell)),
            seconds(_lasting_s(one, "breaker open")),
            seconds(_lasting_s(one, "down")),
            usd(one.spend_usd),
            percent(one.spend_usd / spend_usd if spend_usd > 0.0 else None),
        )
        for provider, one in told.providers.items()
    )
    heads = ("answered", "failed", "breaker opened", "open for", "all down for", "spend", "share")
    return Grid(
        title="What each provider did",
        origin="measured",
        columns=columns(("provider",), heads),
        rows=rows,
        note="Spend is what the attempts cost; rent is in the section on provider shares.",
    )


def _caps_grid(caps: tuple[CapKept, ...]) -> Grid:
    rows = tuple(
        (
            name(one.provider),
            one.span,
            usd(one.cap_usd),
            usd(one.most_usd),
            percent(one.most_usd / one.cap_usd),
            count(one.turned),
        )
        for one in caps
    )
    heads = ("cap", "most in one", "of the cap", "placements turned away")
    return Grid(
        title="Spend caps",
        origin="measured",
        columns=columns(("provider", "span"), heads),
        rows=rows,
        note="Steps under way may cost more than was predicted when they were placed.",
    )


def _spans_grid(told: ProvidersOverTime) -> Grid:
    spans = sorted(
        (one for provider in told.providers.values() for one in provider.unwell),
        key=lambda one: (one.start_s, one.pool, one.condition),
    )
    rows = tuple(
        (name(one.pool), one.condition, seconds(one.start_s), seconds(one.end_s - one.start_s))
        for one in spans[:_MOST_ROWS]
    )
    left = len(spans) - len(rows)
    return Grid(
        title="When pools were left out",
        origin="measured",
        columns=columns(("pool", "condition"), ("from", "for")),
        rows=rows,
        note=f"{left} more are left out." if left else "",
    )
