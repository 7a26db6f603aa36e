from xml.etree import ElementTree as ET

import msgspec

from steelyard.ledger.ledger import Ledger
from steelyard.report.inputs import DemoInputs, PlanInputs
from steelyard.report.plan_plots import cost_plot, simulation_plot
from steelyard.report.run_plots import latency_plot, prediction_plot, timeline_plot


def _texts(svg: str) -> str:
    root = ET.fromstring(svg)  # noqa: S314 -- our own text
    assert root.tag.endswith("svg")
    return "\n".join("".join(one.itertext()).strip() for one in root.iter())


def _all(inputs: DemoInputs) -> list[str]:
    assert inputs.plan is not None
    assert inputs.simulation is not None
    return [
        latency_plot(inputs.ledger),
        timeline_plot(inputs.ledger),
        prediction_plot(inputs.ledger),
        cost_plot(inputs.plan),
        simulation_plot(inputs.plan, inputs.simulation),
    ]


def test_every_plot_is_xml_with_a_unit_on_its_axis(inputs: DemoInputs) -> None:
    latency, timeline, prediction, cost, simulation = map(_texts, _all(inputs))
    assert "placement to end, s" in latency
    assert "since the first task arrived, s" in timeline
    assert "predicted at placement, s" in prediction
    assert "measured, s" in prediction
    assert "USD per 1,000 tasks" in cost
    assert "% of tasks" in simulation


def test_the_same_ledger_gives_the_same_bytes(inputs: DemoInputs) -> None:
    assert _all(inputs) == _all(inputs)


def test_ids_of_two_plots_never_meet(inputs: DemoInputs) -> None:
    seen: set[str] = set()
    for svg in _all(inputs):
        root = ET.fromstring(svg)  # noqa: S314 -- our own text
        ids = {one.attrib["id"] for one in root.iter() if "id" in one.attrib}
        assert not ids & seen
        seen |= ids


def test_plots_take_the_colour_of_the_page_and_have_no_background(inputs: DemoInputs) -> None:
    for svg in _all(inputs):
        assert "currentColor" in svg
        assert "#ffffff" not in svg


def test_an_infeasible_fleet_has_the_word_in_place_of_a_bar(plan: PlanInputs) -> None:
    assert "infeasible" in _texts(cost_plot(plan))


def test_plots_show_hostile_names_as_text(hostile_ledger: Ledger) -> None:
    for svg in (latency_plot(hostile_ledger), prediction_plot(hostile_ledger)):
        assert "<script" not in svg
        assert "<script" in _texts(svg)


def test_an_empty_ledger_has_no_plots() -> None:
    empty = Ledger()
    assert [latency_plot(empty), timeline_plot(empty), prediction_plot(empty)] == ["", "", ""]


def test_a_fleet_without_machines_is_still_drawn(plan: PlanInputs) -> None:
    bare = msgspec.structs.replace(plan.plan, pools=())
    assert "planned mix" in _texts(cost_plot(msgspec.structs.replace(plan, plan=bare)))
