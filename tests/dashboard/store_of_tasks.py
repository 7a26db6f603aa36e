"""A store with as many tasks as a test wants, written in one transaction."""

import random
import time
from pathlib import Path

from steelyard.domain.decision import Decision, PoolVerdict
from steelyard.domain.events import (
    AttemptFinished,
    AttemptStarted,
    Event,
    PoolAdded,
    StepPlaced,
    TaskFinished,
    TaskSubmitted,
    Usage,
)
from steelyard.domain.pool import LlmCurve, PoolSpec, ToolCurve
from steelyard.domain.task import LlmCall, Step, ToolCall
from steelyard.store.backend import EventRow
from steelyard.store.event_store import event_row
from steelyard.store.sqlite_backend import SqliteBackend

MODEL = "smollm2-135m"
_INSERT = (
    "INSERT INTO tasks (task_id, agent, state, submitted_s, worker, lease_until_s, priority,"
    " parent, fence, started_s) VALUES (?, ?, ?, ?, ?, ?, 0, '', 1, 0)"
)
_AGENTS = ("researcher", "coder", "reviewer")
_POOLS = (
    ("arm-frankfurt", "aws", "arm", "arm64", 0.17, 0.9),
    ("arm-iowa", "gcp", "arm", "arm64", 0.16, 1.1),
    ("x86-virginia", "aws", "x86", "x86_64", 0.21, 0.8),
    ("l4", "gcp", "gpu", "x86_64", 0.71, 0.1),
)


def pools() -> tuple[PoolSpec, ...]:
    """Four pools of a model and one of tools, of two providers."""
    made = [
        PoolSpec(
            name=name,
            provider=provider,
            region="r",
            arch=arch,  # type: ignore[arg-type]
            hardware=hardware,  # type: ignore[arg-type]
            offering=f"{provider}/r/{name}/on_demand",
            usd_per_hour=rent,
            replicas=4,
            llm_curves={
                MODEL: LlmCurve(
                    ttft_floor_s=0.02,
                    prefill_s_per_token=0.0004 * slow,
                    itl_base_s=0.02 * slow,
                    itl_slope_s=0.002 * slow,
                    concurrency_cap=8,
                    context_tokens=8192,
                    predicted=False,
                    source="made up for tests",
                )
            },
        )
        for name, provider, hardware, arch, rent, slow in _POOLS
    ]
    tools = ToolCurve(
        relative_speed=1.0,
        cores=4.0,
        memory_bytes=8 * 2**30,
        start_s=0.01,
        slots=16,
        predicted=False,
        source="made up for tests",
    )
    return (
        *made,
        PoolSpec(
            name="tools",
            provider="gcp",
            region="r",
            arch="arm64",
            hardware="arm",
            offering="gcp/r/tools/on_demand",
            usd_per_hour=0.15,
            replicas=2,
            tool_curve=tools,
        ),
    )


SPECS = pools()


def fill(path: Path, tasks: int, seed: int = 1, now_s: float | None = None) -> None:
    """Write a store.

    Args:
        path: The SQLite file; made here.
        tasks: How many; one in 40 is still running, one in 20 failed.
        seed: Of all draws.
        now_s: When the newest one arrived; None for now.
    """
    rng = random.Random(seed)  # noqa: S311 - draws of a test
    end_s = time.time() if now_s is None else now_s
    rows = [_row(PoolAdded(t_s=end_s - 4e5, spec=spec)) for spec in SPECS]
    backend = SqliteBackend(path)
    backend.begin()
    for number in range(tasks):
        t_s = end_s - 30.0 * (tasks - number)
        task_id = f"task-{number:06d}"
        events = _task(rng, task_id, t_s, number)
        rows += [_row(event) for event in events]
        last = events[-1]
        state = last.status if isinstance(last, TaskFinished) else "open"
        worker, until_s = ("w", end_s + 1e6) if state == "open" else ("", 0.0)
        values = (task_id, _AGENTS[number % 3], state, t_s, worker, until_s)
        backend.execute(_INSERT, values)
    backend.insert_events(rows)
    backend.commit()
    backend.close()


def _row(event: Event) -> EventRow:
    return event_row(event, None)


def _task(rng: random.Random, task_id: str, t_s: float, number: int) -> list[Event]:
    agent = _AGENTS[number % 3]
    deadline_s, budget_usd = t_s + 45.0, 0.002
    events: list[Event] = [
        TaskSubmitted(
            t_s=t_s,
            task_id=task_id,
            agent=agent,
            deadline_s=deadline_s,
            budget_usd=budget_usd,
            arguments={"question": f"What is in report {number}?", "depth": number % 5},
        )
    ]
    open_end, fails = number % 40 == 7, number % 20 == 3
    now_s = t_s + 0.05
    steps = 2 + number % 3
    for step_id in range(steps):
        tool = step_id % 2 == 1
        call = (
            ToolCall(tool="search", memory_bytes=2**28)
            if tool
            else LlmCall(
                model=MODEL,
                input_tokens=600 + 300 * step_id,
                max_output_tokens=256,
                prefix_hashes=(7, 1000 * number + step_id),
                prefix_tokens=(400, 600 + 300 * step_id),
            )
        )
        step = Step(
            task_id=task_id,
            step_id=step_id,
            agent=agent,
            name="search" if tool else ("plan", "read", "answer")[step_id // 2],
            call=call,
            parents=(step_id - 1,) if step_id else (),
            deadline_s=deadline_s,
            budget_usd=budget_usd,
        )
        chosen = "tools" if tool else _POOLS[rng.randrange(4)][0]
        wait_s, run_s = rng.expovariate(4.0), 0.4 + rng.expovariate(0.4)
        events.append(StepPlaced(t_s=now_s, step=step, decision=_decision(chosen, run_s, rng)))
        events.append(
            AttemptStarted(t_s=now_s + wait_s, task_id=task_id, step_id=step_id, attempt=0)
        )
        last = step_id == steps - 1
        if last and open_end:
            return events
        now_s += wait_s + run_s
        events.append(_end(task_id, step_id, now_s, run_s, tool=tool, failed=last and fails))
    error = "the search found nothing that answers the question" if fails else ""
    events.append(
        TaskFinished(
            t_s=now_s + 0.01,
            task_id=task_id,
            status="failed" if fails else "succeeded",
            error_code="step_failed" if fails else "",
            error=error,
            result=None
            if fails
            else {"answer": f"Report {number} holds {rng.randrange(90)} rows."},
        )
    )
    return events


def _end(
    task_id: str, step_id: int, t_s: float, run_s: float, *, tool: bool, failed: bool
) -> AttemptFinished:
    usage = Usage(cpu_s=0.2, memory_bytes=2**27, wall_s=run_s)
    if not tool:
        usage = Usage(
            input_tokens=600 + 300 * step_id,
            cached_tokens=400 + 250 * step_id,
            output_tokens=int(run_s * 30),
            wall_s=run_s,
            start_to_first_token_s=min(0.2, run_s / 3),
        )
    return AttemptFinished(
        t_s=t_s,
        task_id=task_id,
        step_id=step_id,
        attempt=0,
        outcome="failed" if failed else "ok",
        usage=usage,
        cost_usd=run_s * 2e-5,
        error_code="tool" if failed else "",
        error="exit code 1" if failed else "",
        result=None if failed else {"content": "The report holds what was asked for."},
    )


def _decision(pool: str, run_s: float, rng: random.Random) -> Decision:
    finish_s, cost_usd = run_s * rng.uniform(0.8, 1.3), run_s * 2e-5 * rng.uniform(0.9, 1.1)
    verdicts: list[PoolVerdict] = []
    for spec in SPECS:
        if spec.name == pool:
            verdict = PoolVerdict(
                pool=pool,
                verdict="chosen",
                predicted_finish_s=finish_s,
                predicted_cost_usd=cost_usd,
            )
        elif (spec.name == "tools") != (pool == "tools"):
            verdict = PoolVerdict(pool=spec.name, verdict="cannot_run")
        else:
            verdict = PoolVerdict(
                pool=spec.name,
                verdict="dearer",
                predicted_finish_s=finish_s * rng.uniform(0.7, 2.0),
                predicted_cost_usd=cost_usd * rng.uniform(1.05, 3.0),
            )
        verdicts.append(verdict)
    return Decision(
        pool=pool,
        replica=rng.randrange(2),
        predicted_wait_s=0.2,
        predicted_ttft_s=0.15,
        predicted_finish_s=finish_s,
        predicted_cached_tokens=400,
        predicted_output_tokens=60.0,
        predicted_cost_usd=cost_usd,
        bid_usd_per_hour=0.1,
        slack_s=rng.uniform(2.0, 20.0),
        policy="cheapest_feasible",
        reason=f"{pool} is the cheapest pool with slack left",
        verdicts=tuple(verdicts),
    )
