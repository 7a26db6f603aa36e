"""One line per kind of step: where it ran, how long it took, what it used and cost."""

import math

import msgspec
import numpy as np

from steelyard.ledger.ledger import AttemptRecord, Ledger


class StepSummary(msgspec.Struct, frozen=True, kw_only=True):
    """All attempts of one step name of one agent in one pool.

    Attributes:
        agent: The agent.
        step: Name of the step.
        kind: `llm` or `tool`.
        pool: The pool.
        count: Attempts that went well.
        failed: Attempts that failed or were cancelled.
        latency_p50_s: Median seconds from placement to end.
        latency_p95_s: 95th percentile of the same.
        ttft_p50_s: Median seconds from placement to the first token; None for tools.
        input_tokens: Sum over all attempts.
        cached_tokens: Sum over all attempts.
        output_tokens: Sum over all attempts.
        cost_usd: Sum over all attempts.
    """

    agent: str
    step: str
    kind: str
    pool: str
    count: int
    failed: int
    latency_p50_s: float
    latency_p95_s: float
    ttft_p50_s: float | None
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_usd: float


def summarize_steps(ledger: Ledger) -> tuple[StepSummary, ...]:
    """How did each kind of step do in each pool?

    Args:
        ledger: The books.

    Returns:
        One summary per (agent, step name, pool), sorted by them.
    """
    groups: dict[tuple[str, str, str], list[AttemptRecord]] = {}
    for attempt in ledger.attempts:
        key = (attempt.step.agent, attempt.step.name, attempt.decision.pool)
        groups.setdefault(key, []).append(attempt)
    return tuple(_summary(*key, groups[key]) for key in sorted(groups))


def _summary(agent: str, step: str, pool: str, attempts: list[AttemptRecord]) -> StepSummary:
    good = [one for one in attempts if one.outcome == "ok"]
    latencies_s = [one.latency_s for one in good] or [math.nan]
    ttfts_s = [
        one.started_s - one.placed_s + one.usage.start_to_first_token_s
        for one in good
        if one.started_s is not None and one.usage.start_to_first_token_s is not None
    ]
    return StepSummary(
        agent=agent,
        step=step,
        kind=attempts[0].step.kind,
        pool=pool,
        count=len(good),
        failed=len(attempts) - len(good),
        latency_p50_s=float(np.percentile(latencies_s, 50)),
        latency_p95_s=float(np.percentile(latencies_s, 95)),
        ttft_p50_s=float(np.percentile(ttfts_s, 50)) if ttfts_s else None,
        input_tokens=sum(one.usage.input_tokens for one in attempts),
        cached_tokens=sum(one.usage.cached_tokens for one in attempts),
        output_tokens=sum(one.usage.output_tokens for one in attempts),
        cost_usd=math.fsum(one.cost_usd for one in attempts),
    )
