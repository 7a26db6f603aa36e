"""The section and the plot of providers over time."""

import re

import msgspec
import pytest
from tests.ledger.test_health import attempt, failures, pool

from steelyard.domain.events import Event
from steelyard.ledger.health import Health
from steelyard.ledger.ledger import Ledger
from steelyard.ledger.providers_over_time import ProvidersOverTime, providers_over_time
from steelyard.report.page import Source
from steelyard.report.provider_plots import Mark, providers_plot
from steelyard.report.provider_sections import has_trouble, providers_over_time_section

WHERE = Source(origin="measured", source="events.db", command="steelyard report events.db")


@pytest.fixture
def told() -> ProvidersOverTime:
    log: list[Event] = [
        pool("p"), pool("q"), *failures("p", 1.0, 4),
        *attempt(9, "q", 6.0), *attempt(10, "p", 12.0),
    ]  # fmt: skip
    return providers_over_time(Ledger.of(log), Health.of(log).spans())


def test_each_mark_is_a_sentence_of_what_followed(told: ProvidersOverTime) -> None:
    marks = (Mark(t_s=1.0, label="p: cut", pool="p"), Mark(t_s=6.0, label="p works", pool="p"))
    section = providers_over_time_section(told, marks, (), WHERE)
    assert section.lead == (
        (
            "From 0 s (p: cut) to 5.00 s about 0 steps were answered and 4 attempts failed;"
            " breaker open in p after 2.50 s."
        ),
        "From 5.00 s (p works) to 11.5 s about 2 steps were answered and 0 attempts failed.",
    )


def test_a_run_without_failures_has_no_trouble(told: ProvidersOverTime) -> None:
    log: list[Event] = [pool("q"), *attempt(9, "q", 6.0)]
    assert has_trouble(told)
    assert not has_trouble(providers_over_time(Ledger.of(log), Health.of(log).spans()))


def test_the_plot_shows_providers_marks_and_the_same_bytes_again(told: ProvidersOverTime) -> None:
    marks = (Mark(t_s=2.0, label="p: <cut>"), Mark(t_s=900.0, label="after the end"))
    svg = providers_plot(told, marks)
    assert svg.startswith("<svg")
    assert "p: &lt;cut&gt;" in svg
    assert "after the end" not in svg
    assert "breaker open" in svg
    assert svg == providers_plot(told, marks)


def test_labels_of_marks_stand_with_their_provider_and_not_on_the_next_line(
    told: ProvidersOverTime,
) -> None:
    near_s = told.first_s + 0.51 * told.span_s
    marks = (
        Mark(t_s=told.first_s + 0.5 * told.span_s, label="q half", pool="q"),
        Mark(t_s=near_s, label="p half", pool="p"),
        Mark(t_s=told.first_s, label="everyone", pool=""),
    )
    svg = providers_plot(told, marks)
    at = re.compile(r"translate\(([\d.]+) ([\d.]+)\) rotate\(-90\)\">(q half|p half|everyone)<")
    placed = {label: (float(x_pt), float(y_pt)) for x_pt, y_pt, label in at.findall(svg)}
    assert set(placed) == {"q half", "p half", "everyone"}
    row_pt = 72.0
    assert placed["q half"][1] > placed["p half"][1] + row_pt
    assert abs(placed["everyone"][1] - placed["p half"][1]) < row_pt
    # Both would begin at their line, some 4 points apart; the first one's ends there instead.
    assert placed["p half"][0] - placed["q half"][0] > 7.0


def test_no_providers_are_no_plot(told: ProvidersOverTime) -> None:
    assert providers_plot(msgspec.structs.replace(told, providers={})) == ""
