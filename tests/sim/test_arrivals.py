import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.errors import WorkloadError
from steelyard.sim.agents import AGENTS, agent_named, agent_tasks
from steelyard.sim.arrivals import FittedArrivals, fit_arrivals, replayed_s, with_arrivals
from steelyard.sim.describe import describe


@given(
    rate=st.floats(0.01, 50.0),
    burstiness=st.floats(0.0, 3.0),
    hourly=st.lists(st.floats(0.1, 5.0), min_size=1, max_size=5).map(tuple),
    seed=st.integers(0, 9),
)
def test_drawn_arrivals_ascend_and_are_the_same_for_a_seed(
    rate: float, burstiness: float, hourly: tuple[float, ...], seed: int
) -> None:
    process = FittedArrivals(rate_per_s=rate, hourly=hourly, burstiness=burstiness)
    times_s = process.draw_s(50, seed)
    assert times_s == sorted(times_s)
    assert times_s == process.draw_s(50, seed)


def test_a_fit_finds_the_process_that_arrivals_were_drawn_from() -> None:
    drawn = FittedArrivals(rate_per_s=0.5, hourly=(0.5, 1.5), burstiness=2.0).draw_s(20_000, 1)
    fitted = fit_arrivals(drawn)
    assert fitted.rate_per_s == pytest.approx(0.5, rel=0.1)
    assert fitted.burstiness == pytest.approx(2.0, rel=0.15)
    assert fitted.hourly[0] < fitted.hourly[1]


def test_replayed_arrivals_have_the_wanted_rate_and_the_recorded_bursts() -> None:
    recorded = [float(100 * burst + one) for burst in range(50) for one in range(4)]
    times_s = replayed_s(recorded, 100, 2.0, seed=1)
    assert (len(times_s) - 1) / times_s[-1] == pytest.approx(2.0)
    gaps = sorted(later - one for one, later in itertools.pairwise(times_s))
    assert gaps[-1] > 50 * gaps[0]


def test_arrivals_without_a_rate_are_refused() -> None:
    with pytest.raises(WorkloadError, match="tell no process"):
        fit_arrivals([1.0, 1.0, 1.0])
    with pytest.raises(WorkloadError, match="must be finite and above zero"):
        FittedArrivals(rate_per_s=0.0).draw_s(1, 1)


def test_every_task_is_drawn_once_before_any_is_drawn_again() -> None:
    made = agent_tasks(agent_named("local"), "m", [0.0, 1.0, 2.0], seed=1)
    drawn = with_arrivals(made, [float(n) for n in range(6)], seed=2)
    names = [task.task_id.split("#")[0] for task in drawn.tasks]
    assert sorted(names[:3]) == sorted(names[3:])
    assert len({task.task_id for task in drawn.tasks}) == 6


# Medians and reuse of the traces (2026-11-22) that the agents were fitted to.
@pytest.mark.parametrize(
    ("name", "calls", "prompt", "output", "reuse"),
    [
        ("coding", 45, 103_773, 216, 0.962),
        ("tau-bench-like", 11, 2344, 43, 0.896),
        ("local", 46, 42_140, 144, 0.975),
    ],
)
def test_generated_tasks_look_like_the_trace_they_were_fitted_to(
    name: str, calls: int, prompt: int, output: int, reuse: float
) -> None:
    made = agent_tasks(agent_named(name), "m", [float(n) for n in range(300)], seed=3)
    figures = describe(made)
    assert figures.prompt_tokens is not None
    assert figures.output_tokens is not None
    per_task = sorted(sum(s.kind == "llm" for s in task.steps) for task in made.tasks)
    assert per_task[150] == pytest.approx(calls, rel=0.15)
    assert figures.prompt_tokens.p50 == pytest.approx(prompt, rel=0.25)
    assert figures.output_tokens.p50 == pytest.approx(output, rel=0.1)
    assert figures.prefix_reuse_frac == pytest.approx(reuse, abs=0.03)


def test_generated_tasks_are_the_same_for_a_seed_and_differ_for_another() -> None:
    for agent in AGENTS:
        one = agent_tasks(agent, "m", [0.0], seed=1)
        assert one == agent_tasks(agent, "m", [0.0], seed=1)
        assert one.tasks != agent_tasks(agent, "m", [0.0], seed=2).tasks


def test_an_unknown_agent_names_the_nearest() -> None:
    with pytest.raises(WorkloadError, match="did you mean coding"):
        agent_named("codin")
