import math
from collections import defaultdict

import msgspec
import pytest

from steelyard.domain.events import (
    AttemptFinished,
    AttemptStarted,
    Event,
    StepPlaced,
    StepRefused,
    TaskFinished,
    TaskSubmitted,
)
from steelyard.domain.pool import LlmCurve, PoolSpec, ToolCurve
from steelyard.domain.units import rental_usd
from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask
from steelyard.errors import ConfigError, WorkloadError
from steelyard.fleet.state import FleetState
from steelyard.placement.baselines import policy_named, policy_names
from steelyard.placement.policy import CheapestFeasible
from steelyard.sim import Conditions, Outage, Simulation, simulate

POLICY = CheapestFeasible()


def llm_task(task_id: str, arrival_s: float, prompt: int, output: int) -> WorkloadTask:
    step = WorkloadStep(
        step_id=0,
        parents=(),
        kind="llm",
        name="s",
        model="m",
        prompt_tokens=prompt,
        output_tokens=output,
    )
    return WorkloadTask(task_id=task_id, agent="a", arrival_s=arrival_s, steps=(step,))


def tool_task(task_id: str, arrival_s: float, cpu_s: float, wait_s: float = 0.0) -> WorkloadTask:
    step = WorkloadStep(
        step_id=0,
        parents=(),
        kind="tool",
        name="s",
        tool="t",
        cpu_s=cpu_s,
        think_or_tool_s=wait_s,
        memory_bytes=100,
    )
    return WorkloadTask(task_id=task_id, agent="a", arrival_s=arrival_s, steps=(step,))


def of(*tasks: WorkloadTask) -> Workload:
    return Workload(name="w", tasks=tasks, source="by hand")


def ends_s(simulation: Simulation) -> dict[str, float]:
    return {e.task_id: e.t_s for e in simulation.events if isinstance(e, TaskFinished)}


def test_a_lone_stream_takes_floor_prefill_and_tokens(
    llm_pool: PoolSpec, llm_curve: LlmCurve
) -> None:
    curve = msgspec.structs.replace(llm_curve, ttft_floor_s=0.05)
    pool = msgspec.structs.replace(llm_pool, llm_curves={"m": curve})
    run = simulate(of(llm_task("t", 1.0, 100, 10)), (pool,), POLICY, seed=0)
    (end,) = (e for e in run.events if isinstance(e, AttemptFinished))
    assert end.t_s == pytest.approx(1.0 + 0.05 + 100 * 0.001 + 10 * 0.02, abs=1e-12)
    assert end.usage.start_to_first_token_s == pytest.approx(0.15, abs=1e-12)
    (placed,) = (e for e in run.events if isinstance(e, StepPlaced))
    assert placed.decision.predicted_ttft_s == pytest.approx(0.15)


def test_two_streams_share_the_replica_as_worked_out_by_hand(llm_pool: PoolSpec) -> None:
    # one: prefill to 0.1, five tokens to 0.2; two's prefill stalls it to 0.3; then both decode at
    # itl(2) = 0.03 until one ends at 0.45; two does its other five tokens at itl(1) = 0.02.
    work = of(llm_task("one", 0.0, 100, 10), llm_task("two", 0.2, 100, 10))
    run = simulate(work, (llm_pool,), POLICY, seed=0)
    assert ends_s(run) == pytest.approx({"one": 0.45, "two": 0.55}, abs=1e-12)


def test_prefills_take_turns(llm_pool: PoolSpec) -> None:
    work = of(llm_task("one", 0.0, 100, 0), llm_task("two", 0.0, 100, 0))
    assert ends_s(simulate(work, (llm_pool,), POLICY, seed=0)) == pytest.approx(
        {"one": 0.1, "two": 0.2}
    )


def test_three_tools_share_two_cores(tool_pool: PoolSpec) -> None:
    # Until 1.5 each of three has 2/3 of a core; short has ended then, the others have a core each.
    work = of(tool_task("a", 0.0, 2.0), tool_task("b", 0.0, 2.0), tool_task("short", 0.0, 1.0, 0.5))
    ends = ends_s(simulate(work, (tool_pool,), POLICY, seed=0))
    assert ends == pytest.approx({"a": 2.5, "b": 2.5, "short": 2.0})


def test_a_tool_waits_for_memory(tool_pool: PoolSpec, tool_curve: ToolCurve) -> None:
    small = msgspec.structs.replace(tool_curve, memory_bytes=150)
    pool = msgspec.structs.replace(tool_pool, tool_curve=small)
    work = of(tool_task("a", 0.0, 1.0), tool_task("b", 0.0, 1.0))
    assert ends_s(simulate(work, (pool,), POLICY, seed=0)) == pytest.approx({"a": 1.0, "b": 2.0})


@pytest.mark.parametrize("floor_s", [0.0, 0.2])
def test_costs_of_the_steps_on_a_full_replica_add_up_to_its_rent(
    llm_pool: PoolSpec, llm_curve: LlmCurve, floor_s: float
) -> None:
    curve = msgspec.structs.replace(llm_curve, ttft_floor_s=floor_s)
    pool = msgspec.structs.replace(llm_pool, llm_curves={"m": curve})
    work = of(*(llm_task(f"t{n}", 0.0, 50 + n % 7 * 30, 10 + n % 5 * 9) for n in range(400)))
    run = simulate(work, (pool,), POLICY, seed=0)
    charged_usd = math.fsum(e.cost_usd for e in run.events if isinstance(e, AttemptFinished))
    rent_usd = rental_usd(pool.usd_per_hour, run.end_s)
    # The floor of a stream may pass during another's prefill, so its charge is on the dear side.
    assert charged_usd == pytest.approx(rent_usd, rel=0.01 if floor_s == 0.0 else 0.1)
    assert floor_s == 0.0 or charged_usd > rent_usd


def test_every_attempt_is_placed_then_started_then_finished(
    workload: Workload, fleet: tuple[PoolSpec, ...]
) -> None:
    run = simulate(workload, fleet, POLICY, seed=0)
    told: dict[tuple[str, int, int], list[str]] = defaultdict(list)
    tasks: dict[str, list[Event]] = defaultdict(list)
    for event in run.events:
        match event:
            case StepPlaced(step=step):
                told[(step.task_id, step.step_id, step.attempt)].append("placed")
                tasks[step.task_id].append(event)
            case AttemptStarted() | AttemptFinished():
                key = (event.task_id, event.step_id, event.attempt)
                told[key].append("started" if isinstance(event, AttemptStarted) else "finished")
                tasks[event.task_id].append(event)
            case TaskSubmitted() | TaskFinished():
                tasks[event.task_id].append(event)
            case _:
                pass
    assert set(map(tuple, told.values())) == {("placed", "started", "finished")}
    assert len(tasks) == len(workload.tasks)
    for events in tasks.values():
        assert isinstance(events[0], TaskSubmitted)
        assert isinstance(events[-1], TaskFinished)
        assert events[-1].status == "succeeded"
    assert run.steps == len(told) == 4 * len(workload.tasks)
    times = [event.t_s for event in run.events]
    assert times == sorted(times)


def test_children_start_after_all_parents_and_the_persons_gap(
    workload: Workload, fleet: tuple[PoolSpec, ...]
) -> None:
    run = simulate(workload, fleet, POLICY, seed=0)
    ended = {(e.task_id, e.step_id): e.t_s for e in run.events if isinstance(e, AttemptFinished)}
    started = {(e.task_id, e.step_id): e.t_s for e in run.events if isinstance(e, AttemptStarted)}
    for task in workload.tasks:
        parents_s = max(ended[(task.task_id, parent)] for parent in (1, 2))
        gap_s = task.steps[3].think_or_tool_s
        assert started[(task.task_id, 4)] >= parents_s + gap_s - 1e-9


def test_the_next_step_finds_its_prefix_where_the_last_one_ran(llm_pool: PoolSpec) -> None:
    steps = tuple(
        WorkloadStep(
            step_id=n,
            parents=(n - 1,) if n else (),
            kind="llm",
            name=f"s{n}",
            model="m",
            prompt_tokens=100 * (n + 1),
            output_tokens=5,
            shared_prefix_tokens=100 * n - 10 if n else 0,
        )
        for n in range(3)
    )
    pool = msgspec.structs.replace(llm_pool, replicas=4)
    work = of(WorkloadTask(task_id="t", agent="a", arrival_s=0.0, steps=steps))
    run = simulate(work, (pool,), POLICY, seed=0)
    usages = [e.usage for e in run.events if isinstance(e, AttemptFinished)]
    assert [usage.cached_tokens for usage in usages] == [0, 90, 190]
    assert len({e.decision.replica for e in run.events if isinstance(e, StepPlaced)}) == 1


def test_time_passes_between_the_steps_of_a_task(llm_pool: PoolSpec) -> None:
    steps = tuple(
        WorkloadStep(
            step_id=n,
            parents=(n - 1,) if n else (),
            kind="llm",
            name="s",
            model="m",
            prompt_tokens=100,
            output_tokens=5,
        )
        for n in range(3)
    )
    work = of(WorkloadTask(task_id="t", agent="a", arrival_s=0.0, steps=steps))
    usual = simulate(work, (llm_pool,), POLICY, seed=0)
    slower = simulate(work, (llm_pool,), POLICY, 0, Conditions(between_steps_s=0.5))
    assert slower.end_s == pytest.approx(usual.end_s + 3 * 0.5)
    with pytest.raises(ConfigError, match="between_steps_s -1 must be finite and not negative"):
        simulate(work, (llm_pool,), POLICY, 0, Conditions(between_steps_s=-1.0))


def test_the_same_seed_gives_the_same_events(
    workload: Workload, fleet: tuple[PoolSpec, ...]
) -> None:
    noisy = Conditions(noise_sigma=0.3)
    one, same, other = (simulate(workload, fleet, POLICY, seed, noisy) for seed in (1, 1, 2))
    assert one.events == same.events
    assert one.events != other.events


def test_slower_service_makes_tasks_take_that_much_longer(llm_pool: PoolSpec) -> None:
    work = of(llm_task("t", 0.0, 100, 10))
    usual = simulate(work, (llm_pool,), POLICY, seed=0)
    slow = simulate(work, (llm_pool,), POLICY, 0, Conditions(service_factor=1.2))
    assert slow.end_s == pytest.approx(1.2 * usual.end_s)
    noisy = simulate(work, (llm_pool,), POLICY, 0, Conditions(noise_sigma=0.5))
    assert noisy.end_s != usual.end_s


@pytest.mark.parametrize("name", policy_names())
def test_every_decision_is_reproduced_on_the_replayed_log(
    name: str, workload: Workload, fleet: tuple[PoolSpec, ...]
) -> None:
    policy = policy_named(name)
    conditions = Conditions(
        noise_sigma=0.2,
        bids_usd_per_hour={"gpu": 0.5},
        outages=(Outage(pool="arm", start_s=4.0, duration_s=5.0),),
    )
    events = simulate(workload, fleet, policy, 3, conditions).events
    state = FleetState()
    for event in events:
        if isinstance(event, StepPlaced):
            assert policy(event.step, state.view(event.step, event.t_s)) == event.decision
        elif isinstance(event, StepRefused):
            assert policy(event.step, state.view(event.step, event.t_s)) == event.refusal
        state.apply(event)


def test_a_refused_step_fails_its_task_by_the_cause(llm_pool: PoolSpec) -> None:
    poor = msgspec.structs.replace(llm_task("poor", 0.0, 100, 10), budget_usd=1e-12)
    late = msgspec.structs.replace(llm_task("late", 0.0, 100, 10), deadline_after_s=0.01)
    alien = tool_task("alien", 0.0, 1.0)
    run = simulate(of(poor, late, alien), (llm_pool,), POLICY, 0, Conditions(on_miss="refuse"))
    codes = {e.task_id: e.error_code for e in run.events if isinstance(e, TaskFinished)}
    assert codes == {
        "poor": "budget_exceeded",
        "late": "no_feasible_pool",
        "alien": "no_feasible_pool",
    }
    causes = [e.refusal.cause for e in run.events if isinstance(e, StepRefused)]
    assert causes == ["budget", "deadline", "no_pool"]


def test_a_missed_deadline_does_not_stop_the_step(llm_pool: PoolSpec) -> None:
    late = msgspec.structs.replace(llm_task("late", 0.0, 100, 10), deadline_after_s=0.01)
    run = simulate(of(late), (llm_pool,), POLICY, seed=0)
    assert isinstance(run.events[-1], TaskFinished)
    assert run.events[-1].status == "succeeded"


def test_a_parent_that_does_not_come_before_is_a_workload_error(llm_pool: PoolSpec) -> None:
    task = llm_task("t", 0.0, 10, 1)
    bad = msgspec.structs.replace(
        task, steps=(msgspec.structs.replace(task.steps[0], parents=(3,)),)
    )
    with pytest.raises(WorkloadError, match="task t: step 0 names parent 3"):
        simulate(of(bad), (llm_pool,), POLICY, seed=0)


def test_attempts_on_a_lost_pool_are_retried_elsewhere(
    workload: Workload, fleet: tuple[PoolSpec, ...]
) -> None:
    outage = Outage(provider="aws", start_s=3.0, duration_s=6.0)
    run = simulate(workload, fleet, POLICY, 0, Conditions(outages=(outage,)))
    failed = [e for e in run.events if isinstance(e, AttemptFinished) and e.outcome == "failed"]
    assert failed
    assert {(e.t_s, e.error_code) for e in failed} == {(3.0, "pool_unavailable")}
    providers = {spec.name: spec.provider for spec in fleet}
    retried = [e for e in run.events if isinstance(e, StepPlaced) and e.step.attempt > 0]
    assert len(retried) == len(failed)
    for event in run.events:
        if isinstance(event, StepPlaced) and 3.0 <= event.t_s < 9.0 and event.step.attempt:
            assert providers[event.decision.pool] == "gcp"
    ended = [e for e in run.events if isinstance(e, TaskFinished)]
    assert all(e.status == "succeeded" for e in ended)
    back = {
        providers[e.decision.pool] for e in run.events if isinstance(e, StepPlaced) and e.t_s > 9.0
    }
    assert "aws" in back


def test_a_task_fails_when_its_only_pool_is_lost(llm_pool: PoolSpec) -> None:
    work = of(llm_task("t", 0.0, 100, 100))
    outage = Outage(pool="arm", start_s=0.5, duration_s=1.0)
    run = simulate(work, (llm_pool,), POLICY, 0, Conditions(outages=(outage,)))
    end = next(e for e in run.events if isinstance(e, AttemptFinished))
    # 0.1 s of prefill, then 0.4 s of decoding at 0.02 s per token.
    assert (end.usage.input_tokens, end.usage.output_tokens) == (100, 20)
    assert end.cost_usd > 0.0
    finished = next(e for e in run.events if isinstance(e, TaskFinished))
    assert (finished.status, finished.error_code) == ("failed", "no_feasible_pool")


def test_unknown_pools_in_the_conditions_are_refused_with_the_nearest_name(
    llm_pool: PoolSpec,
) -> None:
    outage = Outage(pool="amr", start_s=0.5, duration_s=1.0)
    with pytest.raises(ConfigError, match="'amr' is not in the fleet; did you mean arm"):
        simulate(of(), (llm_pool,), POLICY, 0, Conditions(outages=(outage,)))


def test_progress_is_told_up_to_the_end(workload: Workload, fleet: tuple[PoolSpec, ...]) -> None:
    told: list[tuple[float, int]] = []
    run = simulate(
        workload, fleet, POLICY, 0, progress=lambda t_s, events: told.append((t_s, events))
    )
    assert told[-1] == (run.end_s, len(run.events))
