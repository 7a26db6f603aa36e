import pytest

from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask
from steelyard.errors import PlanError
from steelyard.planner.workload_demand import demand_of, peak_factor


def arrivals(times_s: list[float], deadline_s: float | None = None) -> Workload:
    """Tasks that plan, then run two searches at once, then ask a person, then answer."""
    steps = (
        WorkloadStep(step_id=0, parents=(), kind="llm", name="plan", model="m", prompt_tokens=9),
        WorkloadStep(step_id=1, parents=(0,), kind="tool", name="search", cpu_s=1.0),
        WorkloadStep(step_id=2, parents=(0,), kind="tool", name="search", cpu_s=1.0),
        WorkloadStep(step_id=3, parents=(1, 2), kind="human", name="ask", think_or_tool_s=5.0),
        WorkloadStep(step_id=4, parents=(3,), kind="llm", name="answer", model="m"),
    )
    return Workload(
        name="w",
        tasks=tuple(
            WorkloadTask(
                task_id=str(i), agent="a", arrival_s=t, steps=steps, deadline_after_s=deadline_s
            )
            for i, t in enumerate(times_s)
        ),
        source="test",
    )


def test_a_steady_workload_has_no_peak() -> None:
    assert peak_factor(arrivals([float(t) for t in range(101)]), 10.0, 0.95) == 1.0


def test_the_peak_is_the_quantile_of_the_windows_over_their_mean() -> None:
    times = [float(t) for t in range(100)] + [50.0 + t / 20 for t in range(20)] + [100.0]
    # Nine windows hold 10 tasks, one holds 30.
    assert peak_factor(arrivals(times), 10.0, 1.0) == pytest.approx(30 / 12)
    assert peak_factor(arrivals(times), 10.0, 0.9) == 1.0
    demand = demand_of(arrivals(times), quantile=1.0, peak_window_s=10.0)
    assert demand.peak_factor == pytest.approx(2.5)
    mean = demand_of(arrivals(times), quantile=1.0)
    assert demand.tasks_per_s == pytest.approx(2.5 * mean.tasks_per_s)


def test_hours_without_arrivals_lower_the_mean_but_not_what_a_busy_hour_needs() -> None:
    times = [float(t) for t in range(100)] + [50.0 + t / 20 for t in range(20)] + [100.0]
    as_recorded = demand_of(arrivals(times), quantile=1.0, peak_window_s=10.0)
    longer = demand_of(arrivals(times), quantile=1.0, peak_window_s=10.0, duration_s=1000.0)
    assert longer.tasks_per_s == pytest.approx(as_recorded.tasks_per_s)
    assert longer.tasks_per_s == pytest.approx(longer.peak_factor * len(times) / 1000.0)
    mean = demand_of(arrivals(times), quantile=1.0, duration_s=1000.0, arrivals="mean")
    assert mean.tasks_per_s == pytest.approx(len(times) / 1000.0)


def test_too_few_windows_are_refused() -> None:
    with pytest.raises(PlanError, match="at least 10"):
        demand_of(arrivals([0.0, 5.0]), peak_window_s=1.0)


def test_steps_that_run_at_once_count_once_on_the_chain() -> None:
    per_task = {c.step: c.per_task for c in demand_of(arrivals([0.0, 1.0])).classes}
    assert per_task == {"plan": 1.0, "search": 1.0, "answer": 1.0}


def test_a_deadline_is_shortened_by_the_gaps_of_people() -> None:
    assert demand_of(arrivals([0.0, 1.0], deadline_s=20.0)).deadlines_s == {"a": 15.0}
    assert demand_of(arrivals([0.0, 1.0])).deadlines_s == {}


def test_the_peak_is_provided_for_unless_the_mean_is_asked_for_or_too_little_is_known() -> None:
    # 40 tasks a minute, and 80 in each of the last two minutes.
    times_s = [60.0 * m + s for m in range(18) for s in range(40)]
    times_s += [60.0 * m + 0.5 * s for m in (18, 19) for s in range(80)]
    busy = arrivals([*times_s, 1200.0])
    peak, mean = demand_of(busy), demand_of(busy, arrivals="mean")
    assert (peak.peak_window_s, mean.peak_window_s) == (60.0, None)
    assert mean.peak_factor == 1.0
    assert peak.tasks_per_s == pytest.approx(peak.peak_factor * mean.tasks_per_s)
    assert peak.peak_factor == pytest.approx(80.0 / 44.0)
    short = demand_of(arrivals([0.0, 1.0, 2.0]))
    assert (short.peak_factor, short.peak_window_s) == (1.0, None)
