import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from steelyard.ledger.ledger import Ledger
from steelyard.report.grid import Grid, columns
from steelyard.report.inputs import PlanInputs
from steelyard.report.plan_grids import choice_grid, fleet_grid
from steelyard.report.run_grids import (
    pool_grid,
    prediction_grid,
    refusal_grid,
    step_grid,
    task_grid,
)
from steelyard.report.tables import plain_lines, print_grid


def _printed(ledger: Ledger, *, terminal: bool, width: int = 240) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=width, color_system=None)
    print_grid(step_grid(ledger, "measured"), console)
    return out.getvalue()


def test_a_pipe_gets_plain_lines_that_never_wrap(ledger: Ledger) -> None:
    lines = _printed(ledger, terminal=False).splitlines()
    assert lines[0] == "Steps by agent and pool (measured)"
    assert lines[1].split()[:3] == ["step", "agent", "pool"]
    assert lines[2].startswith("assemble")
    assert not any(char in "".join(lines) for char in "│┃─\x1b")


def test_a_terminal_gets_a_drawn_table(ledger: Ledger) -> None:
    assert "summarise" in _printed(ledger, terminal=True)
    assert "───" in _printed(ledger, terminal=True)


@given(width=st.integers(min_value=20, max_value=200))
def test_no_terminal_is_too_narrow_for_any_figure(width: int) -> None:
    figures = Grid(
        title="t",
        origin="measured",
        columns=columns(("step",), ("latency p50", "cost"), ("why the runner-up lost",)),
        rows=(("summarise", "1.59 s", "46.2 µ$", "x86 costs 1.18 times as much per step"),),
    )
    out = io.StringIO()
    print_grid(figures, Console(file=out, force_terminal=True, width=width, color_system=None))
    shown = out.getvalue()
    assert all(len(line) <= width for line in shown.splitlines())
    for word in ("summarise", "1.59", "46.2", "µ$", "x86", "1.18", "latency", "p50"):
        assert word in shown


def test_a_narrow_terminal_gets_a_paragraph_per_row(ledger: Ledger) -> None:
    shown = " ".join(_printed(ledger, terminal=True, width=60).split())
    assert (
        "summarise - agent librarian; pool engine; steps 3; failed 0; latency p50 1.59 s" in shown
    )


def test_brackets_in_names_are_no_markup(hostile_ledger: Ledger) -> None:
    assert "<script>" in _printed(hostile_ledger, terminal=True)


def test_tasks_that_missed_an_slo_come_first_and_say_why(ledger: Ledger) -> None:
    results = [row[2] for row in task_grid(ledger, limit=9).rows]
    assert results[0].startswith("late by ")
    assert results[1] == "failed"
    assert results[2] == "met every SLO"


def test_a_cut_task_table_says_how_many_are_left(ledger: Ledger) -> None:
    assert task_grid(ledger, limit=2).note == "1 more tasks that met every SLO are not listed."


def test_refusals_name_the_cause_and_the_earliest_finish(ledger: Ledger) -> None:
    (row,) = refusal_grid(ledger).rows
    assert row[0] == "essay"
    assert "engine: too late" in row
    assert "12.0 s" in row


def test_predictions_are_compared_by_their_ratio(ledger: Ledger) -> None:
    rows = {row[0]: row for row in prediction_grid(ledger).rows}
    assert rows["summarise"][-2] == "1.29x"


def test_idle_rent_is_shown_beside_what_was_used(ledger: Ledger) -> None:
    rows = {row[0]: row for row in pool_grid(ledger, "measured").rows}
    assert rows["engine"][-1].endswith("%")


def test_an_infeasible_fleet_says_why_in_words(plan: PlanInputs) -> None:
    text = "\n".join(plain_lines(fleet_grid(plan)))
    assert "infeasible: no Arm offering keeps the token gap" in text


def test_a_step_that_one_offering_alone_can_run_says_so(plan: PlanInputs) -> None:
    text = "\n".join(plain_lines(choice_grid(plan)))
    assert "no other offering can run the step" in text
    assert "7.5x dearer per step" in text


def test_a_column_without_a_heading_is_drawn_in_a_terminal() -> None:
    grid = Grid(title="t", origin=None, columns=columns(("",), ("n",)), rows=(("all", "1"),))
    out = io.StringIO()
    print_grid(grid, Console(file=out, force_terminal=True, width=40, color_system=None))
    assert "all" in out.getvalue()
