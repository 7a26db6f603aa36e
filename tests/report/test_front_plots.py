import xml.etree.ElementTree as ET

from steelyard.planner.day import DayPlan, HourPlan
from steelyard.planner.latency_front import LatencyFront, LatencyPoint
from steelyard.report.front_plots import day_plot, latency_plot

POINTS = tuple(
    LatencyPoint(
        task_s=task_s, usd_per_1000_tasks=usd, rent_frac={"arm": 0.4, "gpu": 0.6}, best=best
    )
    for task_s, usd, best in ((1.0, 3.0, True), (1.5, 3.5, False), (4.0, 0.7, True))
)
DAY = DayPlan(
    hours=tuple(
        HourPlan(
            hour=hour,
            load_frac=0.5 + hour / 46.0,
            usd_per_hour=1.0 + hour,
            usd_per_hour_by_hardware={"arm": 1.0, "gpu": float(hour)},
            fleet={"x": 1},
        )
        for hour in range(24)
    ),
    assumed=True,
    usd_per_day=300.0,
    held_usd_per_day=576.0,
    held_usd_per_hour_by_hardware={"arm": 1.0, "gpu": 23.0},
    saved_frac=1.0 - 300.0 / 576.0,
)


def test_plots_are_well_formed_and_the_same_every_time() -> None:
    front = LatencyFront(points=POINTS, asked=POINTS[2])
    for text, again in (
        (latency_plot(front), latency_plot(front)),
        (day_plot(DAY), day_plot(DAY)),
    ):
        ET.fromstring(text)  # noqa: S314 - our own text
        assert text == again


def test_plots_say_what_is_assumed_and_show_only_hardware_that_is_there() -> None:
    told = day_plot(DAY)
    assert "300.00 USD a day instead of 576.00: 48 % less, if switching is free" in told
    assert "assumed course" in told
    assert ">x86<" not in told
    assert ">mostly x86<" not in latency_plot(LatencyFront(points=POINTS, asked=POINTS[0]))
