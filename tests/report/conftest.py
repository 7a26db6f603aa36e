"""A small hand-made log: three tasks of four steps over two pools, a failure and a refusal."""

import pytest

from steelyard.domain.decision import Decision, PoolVerdict, Refusal
from steelyard.domain.events import (
    AttemptFinished,
    AttemptOutcome,
    AttemptStarted,
    Event,
    PoolAdded,
    StepPlaced,
    StepRefused,
    TaskFinished,
    TaskStatus,
    TaskSubmitted,
    Usage,
)
from steelyard.domain.pool import LlmCurve, PoolSpec, ToolCurve
from steelyard.domain.task import LlmCall, Step, ToolCall
from steelyard.ledger.ledger import Ledger
from steelyard.report.inputs import (
    DemoInputs,
    FleetOption,
    PlanInputs,
    PlannedPool,
    Provenance,
    SimulationInputs,
    StepChoice,
)

HOSTILE = "<script>alert('$x$ & co')</script>"
_TOOLS = PoolSpec(
    name="tools",
    provider="aws",
    region="us-east-1",
    arch="x86_64",
    hardware="x86",
    offering="aws/us-east-1/c7a.large/on_demand",
    usd_per_hour=0.1,
    replicas=1,
    tool_curve=ToolCurve(
        relative_speed=1.0,
        cores=2.0,
        memory_bytes=1 << 32,
        start_s=0.001,
        slots=2,
        predicted=False,
        source="test",
    ),
)
_ENGINE = PoolSpec(
    name="engine",
    provider="aws",
    region="us-east-1",
    arch="x86_64",
    hardware="x86",
    offering="aws/us-east-1/c7a.large/on_demand",
    usd_per_hour=0.1,
    replicas=2,
    llm_curves={
        "smol": LlmCurve(
            ttft_floor_s=0.01,
            prefill_s_per_token=0.001,
            itl_base_s=0.01,
            itl_slope_s=0.001,
            concurrency_cap=8,
            context_tokens=8192,
            predicted=False,
            source="test",
        )
    },
)
_STEPS = (("parse", "tools", 0.04), ("summarise", "engine", 1.4), ("classify", "engine", 0.5))


def _step(task: int, step_id: int, name: str, pool: str, agent: str) -> Step:
    call = (
        LlmCall(model="smol", input_tokens=300, max_output_tokens=40)
        if pool == "engine"
        else ToolCall(tool="m:f")
    )
    return Step(
        task_id=f"task-{task}", step_id=step_id, agent=agent, name=name, call=call, deadline_s=9.0
    )


def _decision(pool: str, predicted_s: float) -> Decision:
    return Decision(
        pool=pool,
        replica=0,
        predicted_wait_s=0.0,
        predicted_ttft_s=0.1,
        predicted_finish_s=predicted_s,
        predicted_cached_tokens=0,
        predicted_output_tokens=40.0,
        predicted_cost_usd=1e-5,
        bid_usd_per_hour=0.1,
        slack_s=1.0,
        policy="cheapest_feasible",
        reason="the only pool that can run the step",
        verdicts=(PoolVerdict(pool=pool, verdict="chosen"),),
    )


def _attempt(step: Step, pool: str, placed_s: float, took_s: float) -> list[Event]:
    failed = step.task_id == "task-2" and step.name == "classify"
    outcome: AttemptOutcome = "failed" if failed else "ok"
    usage = Usage(
        input_tokens=300 if pool == "engine" else 0,
        cached_tokens=120 if pool == "engine" else 0,
        output_tokens=30 if pool == "engine" else 0,
        cpu_s=took_s,
        wall_s=took_s,
        start_to_first_token_s=0.2 if pool == "engine" else None,
    )
    return [
        StepPlaced(t_s=placed_s, step=step, decision=_decision(pool, took_s * 0.8)),
        AttemptStarted(t_s=placed_s + 0.05, task_id=step.task_id, step_id=step.step_id, attempt=0),
        AttemptFinished(
            t_s=placed_s + 0.05 + took_s,
            outcome=outcome,
            usage=usage,
            cost_usd=took_s * 1e-5,
            error_code="pool_timeout" if failed else "",
            task_id=step.task_id,
            step_id=step.step_id,
            attempt=0,
        ),
    ]


def _events(agent: str, step_name: str) -> list[Event]:
    events: list[Event] = [PoolAdded(t_s=0.0, spec=_TOOLS), PoolAdded(t_s=0.0, spec=_ENGINE)]
    for task in range(3):
        now_s = 0.5 * task
        task_id = f"task-{task}"
        deadline_s = 9.0 if task != 1 else 1.0
        events.append(
            TaskSubmitted(
                t_s=now_s, task_id=task_id, agent=agent, deadline_s=deadline_s, budget_usd=0.01
            )
        )
        for step_id, (name, pool, took_s) in enumerate((*_STEPS, (step_name, "tools", 0.02))):
            step = _step(task, step_id, name, pool, agent)
            events += _attempt(step, pool, now_s, took_s * (1.0 + 0.1 * task))
            now_s += 0.05 + took_s * (1.0 + 0.1 * task)
        status: TaskStatus = "failed" if task == 2 else "succeeded"
        events.append(TaskFinished(t_s=now_s, task_id=task_id, status=status))
    refusal = Refusal(
        cause="deadline",
        earliest_finish_s=12.0,
        policy="cheapest_feasible",
        verdicts=(PoolVerdict(pool="engine", verdict="too_late"),),
    )
    late = _step(0, 7, "essay", "engine", agent)
    return [*events, StepRefused(t_s=5.0, step=late, refusal=refusal)]


@pytest.fixture
def ledger() -> Ledger:
    """The books of the log, with ordinary names."""
    return Ledger.of(_events("librarian", "assemble"))


@pytest.fixture
def hostile_ledger() -> Ledger:
    """The books of a log whose agent and step names are an attack."""
    return Ledger.of(_events(HOSTILE, HOSTILE))


@pytest.fixture
def plan() -> PlanInputs:
    """A plan of two offerings beside three baselines, one of them infeasible."""
    arm = PlannedPool(
        offering="aws/us-east-1/m8g.large/on_demand",
        provider="aws",
        hardware="arm",
        machines=12,
        usd_per_hour=1.2,
        used_frac=0.81,
    )
    gpu = PlannedPool(
        offering="gcp/us-central1/g2-standard-4/on_demand",
        provider="gcp",
        hardware="gpu",
        machines=2,
        usd_per_hour=1.4,
        used_frac=0.63,
    )
    return PlanInputs(
        tasks_per_s=400.0,
        rate_factor=1000.0,
        slo="TTFT p95 at most 1 s, token gap p95 at most 100 ms",
        slo_attainment_frac=1.0,
        plan=FleetOption(
            name="plan",
            label="planned mix",
            usd_per_1000_tasks=0.00181,
            usd_per_hour=2.6,
            gap_frac=0.002,
            pools=(arm, gpu),
        ),
        baselines=(
            FleetOption(
                name="all_gpu",
                label="all GPU",
                usd_per_1000_tasks=0.00291,
                usd_per_hour=4.2,
                pools=(gpu,),
            ),
            FleetOption(
                name="all_arm",
                label="all Arm",
                usd_per_1000_tasks=None,
                usd_per_hour=None,
                infeasible="no Arm offering keeps the token gap of 100 ms for model smol",
            ),
            FleetOption(
                name="single_provider",
                label="best single provider (aws)",
                usd_per_1000_tasks=0.0022,
                usd_per_hour=3.1,
                pools=(arm,),
            ),
        ),
        choices=(
            StepChoice(
                agent="librarian",
                step="summarise",
                offering=gpu.offering,
                hardware="gpu",
                share_frac=1.0,
                usd_per_1000_steps=0.0004,
                runner_up=arm.offering,
                runner_up_hardware="arm",
                runner_up_usd_per_1000_steps=0.003,
                why="7.5x dearer per step",
            ),
            StepChoice(
                agent="librarian",
                step="parse",
                offering=arm.offering,
                hardware="arm",
                share_frac=1.0,
                usd_per_1000_steps=0.0001,
            ),
        ),
    )


@pytest.fixture
def inputs(ledger: Ledger, plan: PlanInputs) -> DemoInputs:
    """A whole page."""
    return DemoInputs(
        title="Steelyard demo",
        made="2026-11-22 10:00 UTC",
        machine="2 cores, priced as aws/us-east-1/c7a.large/on_demand.",
        ledger=ledger,
        plan=plan,
        simulation=SimulationInputs(
            ledger=ledger, usd_per_1000_tasks=0.0019, seed=7, policy="cheapest_feasible"
        ),
        assumptions=("Prices are list prices of mid 2026.",),
        provenance=(
            Provenance(
                figure="step latency",
                value="1.4 s",
                origin="measured",
                source="this machine, 2026-11-22",
                command="steelyard demo",
            ),
        ),
    )
