"""What a task has spent, what is reserved for it, and how far it is."""

import msgspec

from steelyard.domain.decision import Decision
from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import LlmCall, Step
from steelyard.fleet.prefix_cache import NOTHING_BELIEVED, Believed
from steelyard.perf.predict import prefill_share_s


class TaskAccount(msgspec.Struct):
    """The books of one task that has not ended.

    Attributes:
        agent: Name of its agent.
        spent_usd: Cost of finished attempts.
        reserved_usd: Predicted cost of attempts placed and not finished.
        children_usd: What children that run may cost, by step; part of `reserved_usd`.
        finished: Name, number and end of finished steps, what had been avoidable up to there taken
            off; remaining work is learned from them.
        submitted_s: When the task arrived.
        attained_s: Seconds for which its attempts have run.
        avoidable_s: Seconds that its steps took beyond the least possible.
        context_tokens: Prompt of the LLM step that was placed last.
        context_place: Pool and replica where it was placed; None before.
        last_place: Pool and replica of its last LLM step; None before.
        last_end_s: When that step ended.
        failed: Pools and replicas where attempts at a step failed, the last one last, by step.
    """

    agent: str
    spent_usd: float = 0.0
    reserved_usd: float = 0.0
    children_usd: dict[int, float] = {}
    finished: list[tuple[str, int, float]] = []
    submitted_s: float = 0.0
    attained_s: float = 0.0
    avoidable_s: float = 0.0
    context_tokens: int = 0
    context_place: tuple[int, int] | None = None
    last_place: tuple[int, int] | None = None
    last_end_s: float = 0.0
    failed: dict[int, list[tuple[int, int]]] = {}


class OpenAttempt(msgspec.Struct):
    """An attempt that was placed and has not finished.

    Attributes:
        step: The step.
        pool: Index of the pool in the fleet.
        replica: Index of the replica in the pool.
        service_s: Predicted seconds from start to end.
        reserved_usd: Predicted cost.
        started_s: When it started; None while it waits.
        concurrency: Steps that ran on the replica when it started, itself included.
        output_tokens: Predicted length of its answer.
        share_s: Prefill that it brings with it per token of its answer.
        neighbours_share_s: Mean `share_s` of the other steps there when it started.
        placed_s: When it was placed.
        least_s: Predicted seconds in the fastest pool without a queue; None where unknown.
        believed: What its replica was believed to hold of its prompt when it started.
        late: Whether it lets others pass while it waits, see `Decision.gives_way`.
        gone: Whether its pool has shrunk below its replica since.
        provider: Who is paid for its pool.
    """

    step: Step
    pool: int
    replica: int
    service_s: float
    reserved_usd: float
    started_s: float | None = None
    concurrency: int = 1
    output_tokens: float = 0.0
    share_s: float = 0.0
    neighbours_share_s: float = 0.0
    placed_s: float = 0.0
    least_s: float | None = None
    late: bool = False
    gone: bool = False
    provider: str = ""
    believed: Believed = NOTHING_BELIEVED


def placed_attempt(
    step: Step, decision: Decision, place: tuple[int, PoolSpec], now_s: float
) -> OpenAttempt:
    """An attempt as it is when its step was placed.

    Args:
        step: The step.
        decision: Where it goes.
        place: Number and specification of the pool.
        now_s: Time on the log's clock.
    """
    pool, spec = place
    return OpenAttempt(
        step=step,
        pool=pool,
        replica=decision.replica,
        service_s=decision.predicted_finish_s - decision.predicted_wait_s,
        reserved_usd=decision.predicted_cost_usd,
        placed_s=now_s,
        least_s=decision.predicted_least_s,
        output_tokens=decision.predicted_output_tokens,
        share_s=_share_s(spec, step, decision),
        provider=spec.provider,
    )


def _share_s(spec: PoolSpec, step: Step, decision: Decision) -> float:
    """Prefill that a step brings to its replica per token, as was predicted when it was placed."""
    curve = spec.llm_curves.get(step.call.model) if isinstance(step.call, LlmCall) else None
    # A vendor's streams are spread over machines that nobody sees: no prefill of ours stalls them.
    if curve is None or not isinstance(step.call, LlmCall) or spec.token_price is not None:
        return 0.0
    uncached = max(0.0, float(step.call.input_tokens - decision.predicted_cached_tokens))
    return prefill_share_s(curve.prefill_s_per_token, uncached, decision.predicted_output_tokens)
