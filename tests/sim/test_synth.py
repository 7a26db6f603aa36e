import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask
from steelyard.errors import WorkloadError
from steelyard.sim import (
    ArrivalProcess,
    StepClass,
    TaskClass,
    recorded_rate_per_s,
    scale_workload,
    synthesize,
)

STEP = WorkloadStep(
    step_id=0,
    parents=(),
    kind="llm",
    name="s",
    model="m",
    prompt_tokens=1000,
    output_tokens=50,
    shared_prefix_tokens=900,
)
COMMON = TaskClass(agent="common", steps=(StepClass(step=STEP),), weight=3.0)
RARE = TaskClass(agent="rare", steps=(StepClass(step=STEP, variation=0.0),), weight=1.0)


def test_a_drawn_workload_has_the_rate_means_and_mixture_asked_for() -> None:
    work = synthesize((COMMON, RARE), ArrivalProcess(rate_per_s=5.0), tasks=4000, seed=1)
    assert recorded_rate_per_s(work) == pytest.approx(5.0, rel=0.05)
    common = [task for task in work.tasks if task.agent == "common"]
    assert len(common) / len(work.tasks) == pytest.approx(0.75, abs=0.03)
    assert np.mean([t.steps[0].prompt_tokens for t in common]) == pytest.approx(1000, rel=0.06)
    assert {t.steps[0].prompt_tokens for t in work.tasks if t.agent == "rare"} == {1000}


@given(burstiness=st.floats(0.2, 2.0), seed=st.integers(0, 5))
def test_gaps_vary_as_much_as_asked_for(burstiness: float, seed: int) -> None:
    arrivals = ArrivalProcess(rate_per_s=2.0, burstiness=burstiness)
    times_s = arrivals.draw_s(4000, np.random.default_rng(seed))
    gaps_s = np.diff(times_s)
    assert np.std(gaps_s) / np.mean(gaps_s) == pytest.approx(burstiness, rel=0.2)


@given(seed=st.integers(0, 100))
def test_the_shared_prefix_is_never_longer_than_the_prompt(seed: int) -> None:
    work = synthesize((COMMON,), ArrivalProcess(rate_per_s=1.0), tasks=20, seed=seed)
    for task in work.tasks:
        assert 0 <= task.steps[0].shared_prefix_tokens <= task.steps[0].prompt_tokens


def test_a_scaled_workload_has_many_times_the_rate_and_whole_recorded_tasks() -> None:
    recorded = synthesize((COMMON, RARE), ArrivalProcess(rate_per_s=0.5), tasks=50, seed=1)
    scaled = scale_workload(recorded, 1000.0, tasks=3000, seed=2)
    assert recorded_rate_per_s(scaled) == pytest.approx(
        1000.0 * recorded_rate_per_s(recorded), rel=0.06
    )
    assert {task.steps for task in scaled.tasks} == {task.steps for task in recorded.tasks}
    assert len({task.task_id for task in scaled.tasks}) == 3000
    assert scaled == scale_workload(recorded, 1000.0, tasks=3000, seed=2)
    assert scaled != scale_workload(recorded, 1000.0, tasks=3000, seed=3)


def test_tasks_that_all_came_at_once_have_no_rate() -> None:
    task = WorkloadTask(task_id="t", agent="a", arrival_s=3.0, steps=(STEP,))
    work = Workload(name="burst", tasks=(task, task), source="by hand")
    with pytest.raises(WorkloadError, match="burst: 2 tasks arrived at one moment"):
        scale_workload(work, 10.0, tasks=5, seed=0)
    assert len(scale_workload(work, 10.0, tasks=5, seed=0, rate_per_s=2.0).tasks) == 5


def test_nonsense_is_refused() -> None:
    with pytest.raises(WorkloadError, match="0 tasks"):
        synthesize((COMMON,), ArrivalProcess(rate_per_s=1.0), tasks=0, seed=0)
    with pytest.raises(WorkloadError, match="rate_per_s 0"):
        synthesize((COMMON,), ArrivalProcess(rate_per_s=0.0), tasks=1, seed=0)
