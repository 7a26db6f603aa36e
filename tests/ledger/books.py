"""Builds logs by hand: tasks, placements and ends, with as little noise as possible."""

from typing import Any

from steelyard.domain.decision import Decision
from steelyard.domain.events import (
    AttemptFinished,
    AttemptOutcome,
    AttemptStarted,
    Event,
    PoolAdded,
    StepPlaced,
    TaskFinished,
    TaskStatus,
    TaskSubmitted,
    Usage,
)
from steelyard.domain.offering import TokenPrice
from steelyard.domain.pool import LlmCurve, PoolSpec, ToolCurve
from steelyard.domain.task import LlmCall, Step, ToolCall

_CURVE = LlmCurve(
    ttft_floor_s=0.0,
    prefill_s_per_token=0.001,
    itl_base_s=0.01,
    itl_slope_s=0.0,
    concurrency_cap=4,
    context_tokens=8192,
    predicted=False,
    source="by hand",
)
_TOOLS = ToolCurve(
    relative_speed=2.0,
    cores=1.0,
    memory_bytes=1000,
    start_s=0.0,
    slots=1,
    predicted=False,
    source="by hand",
)


def _pool(name: str, usd_per_hour: float, replicas: int, **values: Any) -> PoolSpec:
    return PoolSpec(
        name=name,
        provider="p",
        region="r",
        arch="arm64",
        hardware="arm",
        offering="o",
        usd_per_hour=usd_per_hour,
        replicas=replicas,
        **values,
    )


PRICE = TokenPrice(usd_per_input_token=1e-6, usd_per_cached_token=0.0, usd_per_output_token=2e-6)
LLM = _pool("llm", 3.6, 2, llm_curves={"m": _CURVE})
TOOLS = _pool("tools", 1.8, 1, tool_curve=_TOOLS)
VENDOR = _pool("vendor", 0.0, 1, llm_curves={"m": _CURVE}, token_price=PRICE)


def llm_call(**values: Any) -> LlmCall:
    fields: dict[str, Any] = {"model": "m", **values}
    return LlmCall(input_tokens=100, max_output_tokens=64, **fields)


class Books:
    """Writes a log."""

    def __init__(self) -> None:
        self.events: list[Event] = [PoolAdded(t_s=0.0, spec=spec) for spec in (LLM, TOOLS, VENDOR)]

    def open(self, task_id: str, t_s: float, agent: str = "a", **values: Any) -> None:
        self.events.append(TaskSubmitted(t_s=t_s, task_id=task_id, agent=agent, **values))

    def close(self, task_id: str, t_s: float, status: TaskStatus = "succeeded") -> None:
        code = "" if status == "succeeded" else "task"
        self.events.append(TaskFinished(t_s=t_s, task_id=task_id, status=status, error_code=code))

    def attempt(  # noqa: PLR0913 - every test names what it cares for
        self,
        task_id: str,
        step_id: int,
        *,
        times_s: tuple[float, float | None, float],
        pool: str = "llm",
        outcome: AttemptOutcome = "ok",
        usage: Usage | None = None,
        cost_usd: float = 0.0,
        **values: Any,
    ) -> Step:
        """Placed, started (None: never) and finished at `times_s`."""
        placed_s, started_s, finished_s = times_s
        call = ToolCall(tool="t") if pool == "tools" else llm_call()
        fields: dict[str, Any] = {"agent": "a", "name": "work", "call": call, **values}
        step = Step(task_id=task_id, step_id=step_id, **fields)
        self.events.append(StepPlaced(t_s=placed_s, step=step, decision=_decision(pool)))
        if started_s is not None:
            self.events.append(
                AttemptStarted(
                    t_s=started_s, task_id=task_id, step_id=step_id, attempt=step.attempt
                )
            )
        self.events.append(
            AttemptFinished(
                t_s=finished_s,
                task_id=task_id,
                step_id=step_id,
                attempt=step.attempt,
                outcome=outcome,
                usage=usage or Usage(wall_s=finished_s - (started_s or finished_s)),
                cost_usd=cost_usd,
                error_code="" if outcome == "ok" else "pool_unavailable",
            )
        )
        return step


def _decision(pool: str) -> Decision:
    return Decision(
        pool=pool,
        replica=0,
        predicted_wait_s=0.0,
        predicted_ttft_s=0.1,
        predicted_finish_s=1.0,
        predicted_cached_tokens=0,
        predicted_output_tokens=10.0,
        predicted_cost_usd=0.001,
        bid_usd_per_hour=1.0,
        slack_s=None,
        policy="by_hand",
        reason="test",
        verdicts=(),
    )
