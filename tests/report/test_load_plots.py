import xml.etree.ElementTree as ET

from steelyard.planner.load_curve import LoadPoint
from steelyard.report.load_plots import cheapest_hardware, load_plot, mix_plot

POINTS = tuple(
    LoadPoint(
        tasks_per_s=load,
        usd_per_1000_tasks={"mix": 1.0, "arm": arm, "x86": 3.0, "gpu": 10.0 / load},
        mix_rent_frac={"arm": 0.25, "gpu": 0.75},
    )
    for load, arm in ((0.1, 2.0), (1.0, 2.5), (100.0, None))
)


def test_the_cheapest_class_ignores_those_that_cannot_serve() -> None:
    assert [cheapest_hardware(point) for point in POINTS] == ["arm", "arm", "gpu"]
    nobody = LoadPoint(tasks_per_s=1.0, usd_per_1000_tasks={"mix": 1.0}, mix_rent_frac={})
    assert cheapest_hardware(nobody) == ""


def test_plots_are_well_formed_and_the_same_every_time() -> None:
    for plot in (load_plot, mix_plot):
        svg = plot(POINTS)
        ET.fromstring(svg)  # noqa: S314 - our own text
        assert svg == plot(POINTS)
    assert ">cheapest alone<" in load_plot(POINTS)


def test_hardware_that_never_serves_is_named_so() -> None:
    points = tuple(
        LoadPoint(
            tasks_per_s=point.tasks_per_s,
            usd_per_1000_tasks={"mix": 1.0, "arm": None, "x86": 3.0, "gpu": 4.0},
            mix_rent_frac={"x86": 1.0},
        )
        for point in POINTS
    )
    assert "all Arm: cannot" in load_plot(points)


def test_one_load_is_enough_for_a_plot() -> None:
    ET.fromstring(mix_plot(POINTS[:1]))  # noqa: S314 - our own text
    ET.fromstring(load_plot(POINTS[:1]))  # noqa: S314 - our own text
