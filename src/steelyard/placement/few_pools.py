"""The scoring of `CheapestFeasible` for a fleet of few pools, in plain Python.

NumPy pays about a microsecond per operation whatever its length, and a decision takes some sixty:
for a handful of pools plain floats are ten times faster. The arithmetic is that of
`steelyard.placement.predictions` and `.scoring`, operation by operation and in the same order, so
both give the same decision to the last bit; a test compares them. Where a function of `scoring`
needs no NumPy for floats it is called; the others are repeated here.
"""

import math
from collections.abc import Sequence

from steelyard.domain.decision import Decision, PoolVerdict, Refusal, Verdict
from steelyard.domain.task import LlmCall, Step
from steelyard.domain.units import SECONDS_PER_HOUR
from steelyard.fleet.provider_spend import within_cap
from steelyard.fleet.view import FewView
from steelyard.perf.predict import shared_itl_s
from steelyard.placement.candidates import step_key, step_salt
from steelyard.placement.predictions import runs_late
from steelyard.placement.scoring import (
    begun_by_s,
    displaced_tokens,
    mixed,
    queued_use_s,
    within_share_s,
)
from steelyard.placement.scoring import grace_s as pool_grace_s

# Beyond these the arrays are as fast (measured: 16 pools, or 64 replicas).
MAX_POOLS = 16
MAX_REPLICAS = 64
_SHORTEST_S = 1e-9


class PoolScore:
    """The step in one pool that can run it; see `Predictions` for the meaning of each.

    Args:
        place: Number and name of the pool, and the replica in it.
        times_s: Wait, service, first token from the start, end from now.
        cached_tokens: Of the prompt, on that replica.
        money_usd: Cost, and cost at the bid price.
        slack_s: Slack after it, and how long after its latest start it is surely late.
        affordable: Whether it fits what is left of the budget.
    """

    __slots__ = (
        *("affordable", "bid_cost_usd", "cached_tokens", "cost_usd", "finish_s", "grace_s", "name"),
        *("patient", "pool", "replica", "service_s", "slack_s", "ttft_s", "wait_s"),
    )

    def __init__(
        self,
        place: tuple[int, str, int],
        times_s: tuple[float, float, float, float],
        cached_tokens: float,
        money_usd: tuple[float, float],
        slack_s: tuple[float, float],
        affordable: bool,
    ) -> None:
        self.pool, self.name, self.replica = place
        self.wait_s, self.service_s, self.ttft_s, self.finish_s = times_s
        self.cached_tokens = cached_tokens
        self.cost_usd, self.bid_cost_usd = money_usd
        self.slack_s, self.grace_s = slack_s
        self.affordable = affordable
        self.patient = True


# Of every pool, in the fleet's order: its score, or why it cannot run the step.
Scores = list[PoolScore | PoolVerdict | Verdict]


def is_small(pools: int, replicas: int) -> bool:
    """Is this way the faster one?"""
    return pools <= MAX_POOLS and replicas <= MAX_REPLICAS


def score(step: Step, few: FewView) -> Scores:
    """What would an LLM step be like in each pool?

    Args:
        step: The step, an LLM call.
        few: The fleet as the step sees it.

    Returns:
        One score per pool in the fleet's order, or why the pool cannot run the step.
    """
    call = step.call
    input_tokens = call.input_tokens if isinstance(call, LlmCall) else 0
    limits = (
        math.inf if step.deadline_s is None else step.deadline_s - few.now_s - few.remaining_s,
        math.inf if step.budget_usd is None else step.budget_usd - few.committed_usd,
    )
    starts, up = few.starts, few.up
    drawn: tuple[int, int] | None = None
    scores: Scores = []
    for pool, row in enumerate(few.rows):
        if not row.serves:
            scores.append("cannot_run")
            continue
        if input_tokens >= row.context_tokens:
            scores.append("too_long")
            continue
        at, end = starts[pool], starts[pool + 1]
        if end - at == 1:
            if not up[at]:
                at = -1
        else:
            drawn = drawn or drawn_for(step)
            at = one_of_many(few, pool, drawn, input_tokens)
        if at < 0 or not few.closed[pool]:
            scores.append("down")
        else:
            one = _score(few, pool, at, float(input_tokens), limits)
            scores.append(one if few.caps is None else _capped(one, few, few.caps[0]))
    if step.deadline_s is not None:
        _share_slack(step, step.deadline_s - few.now_s, few, scores)
    return scores


def _capped(one: PoolScore, few: FewView, left_usd: Sequence[float]) -> PoolScore | PoolVerdict:
    """The score, or that it is over the cap of the pool's provider."""
    if within_cap(one.cost_usd, left_usd[one.pool], few.rent_usd_per_hour[one.pool]):
        return one
    return over_cap(one.name, one.finish_s, one.cost_usd)


def over_cap(pool: str, finish_s: float, cost_usd: float) -> PoolVerdict:
    """The verdict on a pool whose provider's cap has no room for a step."""
    return PoolVerdict(
        pool=pool, verdict="over_cap", predicted_finish_s=finish_s, predicted_cost_usd=cost_usd
    )


def _share_slack(step: Step, left_s: float, few: FewView, scores: Scores) -> None:
    """Find the pools that take no more than the step's share of the slack."""
    runs = [one for one in scores if isinstance(one, PoolScore)]
    if not runs:
        return
    least_s = min(one.service_s for one in runs)
    longest_s = within_share_s(left_s, few.remaining_s, few.remaining_known, least_s)
    for one in runs:
        one.patient = one.finish_s <= longest_s
    if step.asks_to_begin and few.remaining_s > 0.0:
        # As `predictions.seen_as_whole`.
        for one in runs:
            by_s = begun_by_s(longest_s, one.finish_s - one.wait_s)
            if one.wait_s > 0.0 and one.finish_s > by_s:
                one.slack_s = min(one.slack_s, by_s - one.finish_s)


def drawn_for(step: Step) -> tuple[int, int]:
    """The two numbers by which a step draws replicas, as `scoring.two_of` has them."""
    key, salt = step_key(step), step_salt(step)
    return mixed(key, 2 * salt), mixed(key, 2 * salt + 1)


def one_of_many(few: FewView, pool: int, drawn: tuple[int, int], input_tokens: int) -> int:
    """The replica of a pool that would take the step: its place, or -1 where none is up."""
    first, end = few.starts[pool], few.starts[pool + 1]
    at = _two_choices(few, first, end, drawn)
    if at >= 0 and few.rows[pool].kv_tokens < math.inf:
        at = _most_room(few, pool, (first, end), input_tokens)
    if at < 0 or few.cached_tokens is None:
        return at
    return _warm_or_cold(few, pool, (first, end, at), few.cached_tokens, input_tokens)


def _two_choices(few: FewView, first: int, end: int, drawn: tuple[int, int]) -> int:
    """The less loaded of two that `scoring.two_of` draws: its place, or -1 where none is up."""
    up = [at for at in range(first, end) if few.up[at]]
    if not up:
        return -1
    if len(up) == 1:
        return up[0]
    one = drawn[0] % len(up)
    other = (one + 1 + drawn[1] % (len(up) - 1)) % len(up)
    one, other = up[one], up[other]
    one_load = few.running[one] + few.waiting[one]
    other_load = few.running[other] + few.waiting[other]
    return one if (one_load, one) < (other_load, other) else other


def _most_room(few: FewView, pool: int, places: tuple[int, int], input_tokens: int) -> int:
    """As `candidates.warm_or_cold` chooses a cold replica where memory's size is known."""
    kv_tokens, new_tokens = few.rows[pool].kv_tokens, few.output_tokens + input_tokens
    return min(
        (at for at in range(*places) if few.up[at]),
        key=lambda at: (
            max(few.live_tokens[at] + new_tokens - kv_tokens, 0.0),
            few.running[at] + few.waiting[at],
            at,
        ),
    )


def _warm_or_cold(
    few: FewView,
    pool: int,
    places: tuple[int, int, int],
    cached: Sequence[float],
    input_tokens: int,
) -> int:
    """As `candidates.warm_or_cold` in one pool, with the cold replica in the last of the places."""
    first, end, cold = places
    held = [at for at in range(first, end) if few.up[at] and cached[at] > 0.0]
    if not held or held == [cold]:
        return cold
    warm = min(held, key=lambda at: (-cached[at], few.running[at] + few.waiting[at], at))

    def use_s(at: int) -> float:
        load = (
            *(few.running[at], few.waiting[at]),
            *(few.service_sum_s[at], few.prefill_share_sum_s[at]),
        )
        uncached = max(0.0, input_tokens - cached[at])
        kv_tokens = few.rows[pool].kv_tokens
        if kv_tokens < math.inf:
            new_tokens = uncached + few.output_tokens
            uncached += displaced_tokens(few.live_tokens[at], kv_tokens, new_tokens)
        tokens = (uncached, few.output_tokens)
        return queued_use_s(few.rows[pool].curve, tokens, load, few.correction[pool])

    return warm if use_s(warm) <= use_s(cold) else cold


def _score(
    few: FewView, pool: int, at: int, input_tokens: float, limits: tuple[float, float]
) -> PoolScore:
    """The step on one replica; the operations of `predict`, in their order."""
    row, correction, output = few.rows[pool], few.correction[pool], few.output_tokens
    running = few.running[at]
    floor_s, per_token_s, itl_base_s, itl_slope_s, cap = row.curve
    cached, uncached = 0.0, input_tokens
    if few.cached_tokens is not None:
        cached = few.cached_tokens[at]
        uncached = max(input_tokens - cached, 0.0)
    concurrency = running + 1.0 if running < cap else cap
    ttft_s = (floor_s + per_token_s * uncached) * correction
    share_s = few.prefill_share_sum_s[at] / max(running + few.waiting[at], 1.0)
    gap_s = shared_itl_s(itl_base_s, itl_slope_s, concurrency, share_s)
    service_s = ttft_s + output * gap_s * correction
    rent_usd_per_hour = few.rent_usd_per_hour[pool]
    if row.by_token:
        per_uncached, per_cached, per_output = row.usd_per_token
        cost_usd = uncached * per_uncached + cached * per_cached + output * per_output
        bid_usd = cost_usd
    else:
        decode_s = output * row.full_itl_s / cap
        used_h = (row.floor_share_s + uncached * per_token_s + decode_s) / SECONDS_PER_HOUR
        cost_usd, bid_usd = used_h * rent_usd_per_hour, used_h * few.bid_usd_per_hour[pool]
    left_s, left_usd = limits
    after_s, deviation_s = few.remaining_s, few.remaining_deviation_s
    grace_s = pool_grace_s(after_s, deviation_s, service_s, few.error_frac[pool])
    queue_s = 0.0
    if running >= cap:
        queue_s = wait_s(few, at, service_s, cap, left_s - service_s + grace_s)
        # Without a queue the surcharge is a factor of one.
        bid_usd *= 1.0 + queue_s / max(service_s, _SHORTEST_S)
    finish_s = queue_s + service_s
    affordable = cost_usd <= left_usd and (left_usd > 0.0 or rent_usd_per_hour == 0.0)
    return PoolScore(
        (pool, row.name, at - few.starts[pool]),
        (queue_s, service_s, ttft_s, finish_s),
        cached,
        (cost_usd, bid_usd),
        (left_s - finish_s, grace_s),
        affordable,
    )


def wait_s(few: FewView, at: int, service_s: float, cap: float, longest_s: float) -> float:
    """As `scoring.wait_s` at a replica whose places are all taken."""
    waiting = few.waiting[at]
    load = few.running[at] + waiting
    mean_s = few.service_sum_s[at] / max(load, 1.0) if load > 0.0 else service_s
    in_time_s = (waiting - few.late[at] + 1.0) * mean_s / cap
    return in_time_s if in_time_s <= longest_s else (waiting + 1.0) * mean_s / cap


def choose(scores: Scores, step: Step, tie_frac: float) -> PoolScore | None:
    """The pool that `CheapestFeasible` takes; None when it refuses.

    Args:
        scores: Of every pool.
        step: The step.
        tie_frac: Pools within this share of the cheapest are as cheap.
    """
    allowed = [one for one in scores if isinstance(one, PoolScore) and one.affordable]
    in_time = [one for one in allowed if one.slack_s >= 0.0]
    if in_time:
        patient = [one for one in in_time if one.patient]
        if not patient:
            return min(in_time, key=lambda one: (one.finish_s, one.pool))
        most_usd = min(one.bid_cost_usd for one in patient) * (1.0 + tie_frac)
        ties = [one for one in patient if one.bid_cost_usd <= most_usd]
        if len(ties) == 1:
            return ties[0]
        return min(ties, key=lambda one: (one.finish_s, one.bid_cost_usd, one.name))
    if not allowed:
        return None
    late = min(allowed, key=lambda one: (-one.slack_s, one.name))
    return late if runs_late(step, late.slack_s + late.wait_s + late.grace_s) else None


def decision(scores: Scores, chosen: PoolScore, step: Step, few: FewView, policy: str) -> Decision:
    """Write down a choice, as `predictions.decide` does."""
    slack_s = None if step.deadline_s is None else chosen.slack_s
    return Decision(
        pool=chosen.name,
        replica=chosen.replica,
        predicted_wait_s=chosen.wait_s,
        predicted_ttft_s=chosen.ttft_s,
        predicted_finish_s=chosen.finish_s,
        predicted_cached_tokens=int(chosen.cached_tokens),
        predicted_output_tokens=few.output_tokens,
        predicted_cost_usd=chosen.cost_usd,
        bid_usd_per_hour=few.bid_usd_per_hour[chosen.pool],
        slack_s=slack_s,
        grace_s=0.0 if slack_s is None else chosen.grace_s,
        predicted_least_s=min(
            one.finish_s - one.wait_s for one in scores if isinstance(one, PoolScore)
        ),
        policy=policy,
        reason=_reason(scores, chosen),
        verdicts=_verdicts(scores, chosen, few),
    )


def _reason(scores: Scores, chosen: PoolScore) -> str:
    runs = [one for one in scores if isinstance(one, PoolScore)]
    if chosen.slack_s < 0.0:
        return f"no pool meets the deadline; least late of {len(runs)}"
    if len(runs) == 1:
        return "the only pool that can run the step"
    late = sum(one.slack_s < 0.0 for one in runs)
    warm = int(chosen.cached_tokens)
    note = f", {warm} prompt tokens cached" if warm else ""
    return f"chosen over {len(runs) - 1 - late} dearer or slower and {late} late pools{note}"


def refusal(scores: Scores, few: FewView, policy: str) -> Refusal:
    """Write down that no pool takes the step, as `predictions.refuse` does."""
    runs = [one for one in scores if isinstance(one, PoolScore)]
    told = _verdicts(scores, None, few)
    if not runs:
        renewed_s = _renewed_s(told, few)
        return Refusal(
            cause="no_pool" if renewed_s is None else "spend_cap",
            earliest_finish_s=None,
            policy=policy,
            verdicts=told,
            retry_after_s=renewed_s,
        )
    return Refusal(
        cause="deadline" if any(one.affordable for one in runs) else "budget",
        earliest_finish_s=min(one.finish_s for one in runs),
        policy=policy,
        verdicts=told,
        # Without its queue it would be in time: it is late by so much, and the queue drains.
        retry_after_s=min(
            (
                -one.slack_s
                for one in runs
                if one.affordable and one.slack_s < 0.0 <= one.slack_s + one.wait_s
            ),
            default=None,
        ),
    )


def _renewed_s(told: tuple[PoolVerdict, ...], few: FewView) -> float | None:
    """When is the first cap renewed, where caps alone are in the way?"""
    if few.caps is None or any(one.verdict == "down" for one in told):
        return None
    capped = [pool for pool, one in enumerate(told) if one.verdict == "over_cap"]
    return min((few.caps[1][pool] for pool in capped), default=None)


def _verdicts(scores: Scores, chosen: PoolScore | None, few: FewView) -> tuple[PoolVerdict, ...]:
    told: list[PoolVerdict] = []
    for row, one in zip(few.rows, scores, strict=True):
        if not isinstance(one, PoolScore):
            told.append(PoolVerdict(pool=row.name, verdict=one) if isinstance(one, str) else one)
            continue
        verdict: Verdict = "dearer"
        if one is chosen:
            verdict = "chosen"
        elif not one.affordable:
            verdict = "over_budget"
        elif one.slack_s < 0.0:
            verdict = "too_late"
        elif chosen is not None and one.bid_cost_usd <= chosen.bid_cost_usd:
            verdict = "later"
        told.append(
            PoolVerdict(
                pool=row.name,
                verdict=verdict,
                predicted_finish_s=one.finish_s,
                predicted_cost_usd=one.cost_usd,
            )
        )
    return tuple(told)
