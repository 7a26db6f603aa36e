import re
from html.parser import HTMLParser

import msgspec

from steelyard.ledger.ledger import Ledger
from steelyard.report.html import demo_report
from steelyard.report.inputs import DemoInputs

_VOID = {"meta", "link", "br", "img", "hr", "input"}
_LOADING = {"src", "href", "xlink:href", "srcset", "data", "action", "poster"}


class _Reader(HTMLParser):
    """Collects tags and text, and checks that every tag is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)


def _read(page: str) -> _Reader:
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def test_the_page_is_well_formed_and_loads_nothing(inputs: DemoInputs) -> None:
    page = demo_report(inputs)
    for tag, attributes in _read(page).tags:
        assert tag not in {"script", "iframe", "object", "embed", "img"}
        for key in _LOADING & attributes.keys():
            assert (attributes[key] or "").startswith(("#", "data:,"))
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_names_from_users_are_text_and_never_markup(
    inputs: DemoInputs, hostile_ledger: Ledger
) -> None:
    page = demo_report(msgspec.structs.replace(inputs, ledger=hostile_ledger))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    _read(page)


def test_every_figure_on_the_page_has_its_unit(inputs: DemoInputs) -> None:
    text = " ".join(" ".join(_read(demo_report(inputs)).text).split())
    for shown in (
        "1 of 3",  # tasks that met every SLO: one was late, one failed
        "33.3 %",
        "tasks/s",
        "$0.00181",  # the plan
        "1.61x as much",  # all GPU
        "400 tasks/s, 1,000x the recorded rate",
        "1.59 s",  # latency p50 of summarise
        "at most 1 s",
    ):
        assert shown in text, shown


def test_an_infeasible_baseline_is_told_in_words(inputs: DemoInputs) -> None:
    text = " ".join(_read(demo_report(inputs)).text)
    assert "all Arm is infeasible (no Arm offering keeps the token gap of 100 ms" in text


def test_measured_predicted_planned_and_simulated_are_labelled(inputs: DemoInputs) -> None:
    tags = _read(demo_report(inputs)).tags
    labels = {attributes.get("class") for _, attributes in tags}
    for origin in ("measured", "predicted", "planned", "simulated"):
        assert f"origin {origin}" in labels


def test_tables_have_captions_and_scopes(inputs: DemoInputs) -> None:
    tags = _read(demo_report(inputs)).tags
    names = [tag for tag, _ in tags]
    assert names.count("caption") == names.count("table") > 5
    assert all("scope" in attributes for tag, attributes in tags if tag == "th")


def test_a_run_without_plan_and_simulation_has_a_page(inputs: DemoInputs) -> None:
    bare = msgspec.structs.replace(inputs, plan=None, simulation=None, provenance=())
    text = " ".join(_read(demo_report(bare)).text)
    assert "Predictions" in text
    assert "Simulation" not in text


def test_the_same_inputs_give_the_same_page(inputs: DemoInputs) -> None:
    assert demo_report(inputs) == demo_report(inputs)
