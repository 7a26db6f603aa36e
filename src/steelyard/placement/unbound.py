"""`CheapestFeasible` in a fleet of few pools, for a step without deadline and budget: most are.

Nothing can be too late or too dear then, so that half of what `few_pools` weighs is known before.
What is left is done in one pass, since the calls would cost more than the arithmetic: the same
operations in the same order, held to the last bit to the answer of the arrays by the property test
of `few_pools`.
"""

from steelyard.domain.decision import Decision, PoolVerdict
from steelyard.domain.task import LlmCall, Step
from steelyard.domain.units import SECONDS_PER_HOUR
from steelyard.fleet.provider_spend import within_cap
from steelyard.fleet.view import FewView, PoolRow
from steelyard.placement.few_pools import drawn_for, one_of_many, over_cap, wait_s

_SHORTEST_S = 1e-9
_INFINITE = float("inf")

# Pool, place of the replica; wait, time to the first token, end; cached tokens; cost, cost at bid.
_Score = tuple[int, int, float, float, float, float, float, float]


def decide_unbound(
    step: Step, call: LlmCall, few: FewView, tie_frac: float, policy: str
) -> Decision | None:
    """Where does the step go?

    Args:
        step: The step, without deadline and budget.
        call: What it asks.
        few: The fleet as the step sees it.
        tie_frac: Pools within this share of the cheapest are as cheap.
        policy: Name of the policy.

    Returns:
        The decision; None where no pool can run the step.
    """
    scores: list[_Score] = []
    verdicts: list[PoolVerdict | None] = []
    drawn: tuple[int, int] | None = None
    input_tokens, starts, up = call.input_tokens, few.starts, few.up
    least_usd = least_s = _INFINITE
    for pool, row in enumerate(few.rows):
        if not row.serves:
            verdicts.append(PoolVerdict(pool=row.name, verdict="cannot_run"))
            continue
        if input_tokens >= row.context_tokens:
            verdicts.append(PoolVerdict(pool=row.name, verdict="too_long"))
            continue
        at, end = starts[pool], starts[pool + 1]
        if end - at == 1:
            at = at if up[at] else -1
        else:
            drawn = drawn or drawn_for(step)
            at = one_of_many(few, pool, drawn, input_tokens)
        if at < 0 or not few.closed[pool]:
            verdicts.append(PoolVerdict(pool=row.name, verdict="down"))
            continue
        score = _score(few, pool, row, at, float(input_tokens))
        if few.caps is not None and not within_cap(
            score[6], few.caps[0][pool], few.rent_usd_per_hour[pool]
        ):
            verdicts.append(over_cap(row.name, score[4], score[6]))
            continue
        scores.append(score)
        verdicts.append(None)
        least_usd = min(least_usd, score[7])
        least_s = min(least_s, score[4] - score[2])
    if not scores:
        return None
    most_usd = least_usd * (1.0 + tie_frac)
    ties = [one for one in scores if one[7] <= most_usd]
    chosen = ties[0]
    if len(ties) > 1:
        chosen = min(ties, key=lambda one: (one[4], one[7], few.rows[one[0]].name))
    return _decision(few, scores, chosen, verdicts, (least_s, policy))


def _score(few: FewView, pool: int, row: PoolRow, at: int, input_tokens: float) -> _Score:
    """As `few_pools.score_of`, without limits."""
    floor_s, per_token_s, itl_base_s, itl_slope_s, cap = row.curve
    running, waiting = few.running[at], few.waiting[at]
    correction, output = few.correction[pool], few.output_tokens
    cached, uncached = 0.0, input_tokens
    if few.cached_tokens is not None:
        cached = few.cached_tokens[at]
        uncached = input_tokens - cached if input_tokens > cached else 0.0
    concurrency = running + 1.0 if running < cap else cap
    load = running + waiting
    share_s = few.prefill_share_sum_s[at] / max(load, 1.0)
    ttft_s = (floor_s + per_token_s * uncached) * correction
    # `shared_itl_s`, spelled out.
    gap_s = itl_base_s + itl_slope_s * concurrency + (concurrency - 1.0) * share_s
    service_s = ttft_s + output * gap_s * correction
    if row.by_token:
        per_uncached, per_cached, per_output = row.usd_per_token
        cost_usd = bid_usd = uncached * per_uncached + cached * per_cached + output * per_output
    else:
        decode_s = output * row.full_itl_s / cap
        used_h = (row.floor_share_s + uncached * per_token_s + decode_s) / SECONDS_PER_HOUR
        cost_usd = used_h * few.rent_usd_per_hour[pool]
        bid_usd = used_h * few.bid_usd_per_hour[pool]
    if running < cap:
        return (pool, at, 0.0, ttft_s, service_s, cached, cost_usd, bid_usd)
    queue_s = wait_s(few, at, service_s, cap, _INFINITE)
    bid_usd *= 1.0 + queue_s / max(service_s, _SHORTEST_S)
    return (pool, at, queue_s, ttft_s, queue_s + service_s, cached, cost_usd, bid_usd)


def _decision(
    few: FewView,
    scores: list[_Score],
    chosen: _Score,
    verdicts: list[PoolVerdict | None],
    told: tuple[float, str],
) -> Decision:
    """Write down a choice, as `few_pools.decision` does."""
    pool, at, queue_s, ttft_s, finish_s, cached, cost_usd, bid_usd = chosen
    rows, others = few.rows, iter(scores)
    every: list[PoolVerdict] = []
    for verdict in verdicts:
        if verdict is None:
            one = next(others)
            verdict = PoolVerdict(  # noqa: PLW2901
                pool=rows[one[0]].name,
                verdict="chosen" if one is chosen else "later" if one[7] <= bid_usd else "dearer",
                predicted_finish_s=one[4],
                predicted_cost_usd=one[6],
            )
        every.append(verdict)
    warm = int(cached)
    reason = "the only pool that can run the step"
    if len(scores) > 1:
        note = f", {warm} prompt tokens cached" if warm else ""
        reason = f"chosen over {len(scores) - 1} dearer or slower and 0 late pools{note}"
    return Decision(
        pool=rows[pool].name,
        replica=at - few.starts[pool],
        predicted_wait_s=queue_s,
        predicted_ttft_s=ttft_s,
        predicted_finish_s=finish_s,
        predicted_cached_tokens=warm,
        predicted_output_tokens=few.output_tokens,
        predicted_cost_usd=cost_usd,
        bid_usd_per_hour=few.bid_usd_per_hour[pool],
        slack_s=None,
        predicted_least_s=told[0],
        policy=told[1],
        reason=reason,
        verdicts=tuple(every),
    )
