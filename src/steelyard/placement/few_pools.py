"""The scoring of `CheapestFeasible` for a fleet of few pools, in plain Python.

NumPy pays about a microsecond per operation whatever its length, and a decision takes some sixty:
for a handful of pools plain floats are ten times faster. The arithmetic is that of
`steelyard.placement.predictions` and `.scoring`, operation by operation and in the same order, so
both give the same decision to the last bit; a test compares them. Where a function of `scoring`
needs no NumPy for floats it is called; the others are repeated here.
"""

import math

import msgspec

from steelyard.domain.decision import Decision, PoolVerdict, Refusal, Verdict
from steelyard.domain.task import LlmCall, Step
from steelyard.domain.units import SECONDS_PER_HOUR
from steelyard.fleet.view import FleetView, LlmArrays, PoolRow
from steelyard.perf.cost import llm_used_s
from steelyard.perf.predict import prefill_s, shared_itl_s
from steelyard.placement.candidates import step_key, step_salt
from steelyard.placement.predictions import allowed_s
from steelyard.placement.scoring import mixed, queued_use_s

# Beyond these the arrays are as fast (measured: 16 pools, or 64 replicas).
MAX_POOLS = 16
MAX_REPLICAS = 64
_SHORTEST_S = 1e-9


class PoolScore(msgspec.Struct, kw_only=True, gc=False):
    """The step in one pool that can run it; see `Predictions` for the meaning of each."""

    pool: int
    name: str
    replica: int
    wait_s: float
    service_s: float
    ttft_s: float
    finish_s: float
    cached_tokens: float
    cost_usd: float
    bid_cost_usd: float
    slack_s: float
    patient: bool
    affordable: bool


class Replicas:
    """What a view says of every replica, as lists."""

    __slots__ = (
        "cached",
        "is_warm",
        "prefill_share_sum_s",
        "running",
        "service_sum_s",
        "up",
        "waiting",
    )

    def __init__(self, view: FleetView) -> None:
        self.running: list[float] = view.running.tolist()
        self.waiting: list[float] = view.waiting.tolist()
        self.service_sum_s: list[float] = view.service_sum_s.tolist()
        self.prefill_share_sum_s: list[float] = view.prefill_share_sum_s.tolist()
        self.up: list[bool] = view.up.tolist()
        self.cached: list[float] = view.cached_tokens.tolist()
        self.is_warm = any(self.cached)

    def load(self, at: int) -> float:
        """Steps on a replica."""
        return self.running[at] + self.waiting[at]


def is_small(view: FleetView) -> bool:
    """Is this way the faster one?"""
    return len(view.pools) <= MAX_POOLS and len(view.running) <= MAX_REPLICAS


def score(step: Step, view: FleetView, arrays: LlmArrays) -> list[PoolScore | Verdict]:
    """What would an LLM step be like in each pool?

    Args:
        step: The step, an LLM call.
        view: The fleet as the step sees it.
        arrays: Its curves.

    Returns:
        One score per pool in the fleet's order, or why the pool cannot run the step.
    """
    call = step.call
    input_tokens = call.input_tokens if isinstance(call, LlmCall) else 0
    replicas = Replicas(view)
    offsets: list[int] = view.offsets.tolist()
    closed: list[bool] = view.closed.tolist()
    prices = zip(
        view.rent_usd_per_hour.tolist(),
        view.bid_usd_per_hour.tolist(),
        view.correction.tolist(),
        strict=True,
    )
    drawn = (-1, -1)
    scores: list[PoolScore | Verdict] = []
    for pool, (row, price) in enumerate(zip(arrays.rows, prices, strict=True)):
        if not row.serves:
            scores.append("cannot_run")
            continue
        if input_tokens >= row.context_tokens:
            scores.append("too_long")
            continue
        first, end = offsets[pool], offsets[pool + 1]
        if end - first > 1 and drawn[0] < 0:
            key, salt = step_key(step), step_salt(step)
            drawn = mixed(key, 2 * salt), mixed(key, 2 * salt + 1)
        at = _two_choices(replicas, first, end, drawn)
        if at < 0 or not closed[pool]:
            scores.append("down")
            continue
        if replicas.is_warm and end - first > 1:
            at = _warm_or_cold(step, view, (row, price[2]), replicas, (first, end, at))
        one = _score(step, view, row, price, (replicas, at))
        one.pool = pool
        one.replica = at - first
        scores.append(one)
    _share_slack(step, view, scores)
    return scores


def _share_slack(step: Step, view: FleetView, scores: list[PoolScore | Verdict]) -> None:
    """Find the pools that take no more than the step's share of the slack."""
    runs = [one for one in scores if isinstance(one, PoolScore)]
    if step.deadline_s is None or not runs:
        return
    longest_s = allowed_s(step, view, min(one.service_s for one in runs))
    for one in runs:
        one.patient = one.finish_s <= longest_s


def _two_choices(replicas: Replicas, first: int, end: int, drawn: tuple[int, int]) -> int:
    """The less loaded of two that `scoring.two_of` draws: its place, or -1 where none is up."""
    if end - first == 1:
        return first if replicas.up[first] else -1
    up = [at for at in range(first, end) if replicas.up[at]]
    if not up:
        return -1
    if len(up) == 1:
        return up[0]
    one = drawn[0] % len(up)
    other = (one + 1 + drawn[1] % (len(up) - 1)) % len(up)
    return min((replicas.load(up[one]), up[one]), (replicas.load(up[other]), up[other]))[1]


def _warm_or_cold(
    step: Step,
    view: FleetView,
    pool: tuple[PoolRow, float],
    replicas: Replicas,
    places: tuple[int, int, int],
) -> int:
    """As `candidates.warm_or_cold` in one pool, with the cold replica in the last of the places."""
    (row, correction), (first, end, cold) = pool, places
    held = [at for at in range(first, end) if replicas.up[at] and replicas.cached[at] > 0.0]
    if not held:
        return cold
    warm = min(held, key=lambda at: (-replicas.cached[at], replicas.load(at), at))
    input_tokens = step.call.input_tokens if isinstance(step.call, LlmCall) else 0
    output = view.expected.output_tokens

    def use_s(at: int) -> float:
        load = (
            replicas.running[at],
            replicas.waiting[at],
            replicas.service_sum_s[at],
            replicas.prefill_share_sum_s[at],
        )
        uncached = max(0.0, input_tokens - replicas.cached[at])
        return queued_use_s(row.curve, (uncached, output), load, correction)

    return warm if use_s(warm) <= use_s(cold) else cold


def _score(
    step: Step,
    view: FleetView,
    row: PoolRow,
    price: tuple[float, float, float],
    place: tuple[Replicas, int],
) -> PoolScore:
    """The step on one replica; the operations of `predict`, in their order."""
    call, expected = step.call, view.expected
    replicas, at = place
    rent_usd_per_hour, bid_usd_per_hour, correction = price
    running, waiting, cached = replicas.running[at], replicas.waiting[at], replicas.cached[at]
    floor_s, per_token_s, itl_base_s, itl_slope_s, cap = row.curve
    input_tokens = float(call.input_tokens) if isinstance(call, LlmCall) else 0.0
    uncached = max(input_tokens - cached, 0.0)
    output = expected.output_tokens
    ttft_s = prefill_s(floor_s, per_token_s, uncached) * correction
    share_s = replicas.prefill_share_sum_s[at] / max(running + waiting, 1.0)
    gap_s = shared_itl_s(itl_base_s, itl_slope_s, min(running + 1.0, cap), share_s)
    decode_s = output * gap_s * correction
    if row.by_token:
        per_uncached, per_cached, per_output = row.usd_per_token
        cost_usd = uncached * per_uncached + cached * per_cached + output * per_output
        bid_usd = cost_usd
    else:
        used_h = llm_used_s(row.curve, uncached, output) / SECONDS_PER_HOUR
        cost_usd, bid_usd = used_h * rent_usd_per_hour, used_h * bid_usd_per_hour
    service_s = ttft_s + decode_s
    wait_s = 0.0
    if running >= cap:
        load = running + waiting
        mean_s = replicas.service_sum_s[at] / max(load, 1.0) if load > 0.0 else service_s
        wait_s = (waiting + 1.0) * mean_s / cap
    finish_s = wait_s + service_s
    slack_s = math.inf
    if step.deadline_s is not None:
        slack_s = step.deadline_s - view.now_s - expected.remaining_s - finish_s
    left_usd = math.inf
    if step.budget_usd is not None:
        left_usd = step.budget_usd - view.committed_usd
    return PoolScore(
        pool=0,
        name=row.name,
        replica=0,
        wait_s=wait_s,
        service_s=service_s,
        ttft_s=ttft_s,
        finish_s=finish_s,
        cached_tokens=cached,
        cost_usd=cost_usd,
        bid_cost_usd=bid_usd * (1.0 + wait_s / max(service_s, _SHORTEST_S)),
        slack_s=slack_s,
        patient=True,
        affordable=cost_usd <= left_usd and (left_usd > 0.0 or rent_usd_per_hour == 0.0),
    )


def choose(scores: list[PoolScore | Verdict], step: Step, tie_frac: float) -> PoolScore | None:
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
    if not allowed or step.on_miss == "refuse":
        return None
    return min(allowed, key=lambda one: (-one.slack_s, one.name))


def decision(
    scores: list[PoolScore | Verdict], chosen: PoolScore, step: Step, view: FleetView, policy: str
) -> Decision:
    """Write down a choice, as `predictions.decide` does."""
    slack_s = None if step.deadline_s is None else chosen.slack_s
    return Decision(
        pool=chosen.name,
        replica=chosen.replica,
        predicted_wait_s=chosen.wait_s,
        predicted_ttft_s=chosen.ttft_s,
        predicted_finish_s=chosen.finish_s,
        predicted_cached_tokens=int(chosen.cached_tokens),
        predicted_output_tokens=view.expected.output_tokens,
        predicted_cost_usd=chosen.cost_usd,
        bid_usd_per_hour=float(view.bid_usd_per_hour[chosen.pool]),
        slack_s=slack_s,
        predicted_least_s=min(
            one.finish_s - one.wait_s for one in scores if isinstance(one, PoolScore)
        ),
        policy=policy,
        reason=_reason(scores, chosen),
        verdicts=_verdicts(scores, chosen, view),
    )


def _reason(scores: list[PoolScore | Verdict], chosen: PoolScore) -> str:
    runs = [one for one in scores if isinstance(one, PoolScore)]
    if chosen.slack_s < 0.0:
        return f"no pool meets the deadline; least late of {len(runs)}"
    if len(runs) == 1:
        return "the only pool that can run the step"
    late = sum(one.slack_s < 0.0 for one in runs)
    warm = int(chosen.cached_tokens)
    note = f", {warm} prompt tokens cached" if warm else ""
    return f"chosen over {len(runs) - 1 - late} dearer or slower and {late} late pools{note}"


def refusal(scores: list[PoolScore | Verdict], view: FleetView, policy: str) -> Refusal:
    """Write down that no pool takes the step, as `predictions.refuse` does."""
    runs = [one for one in scores if isinstance(one, PoolScore)]
    told = _verdicts(scores, None, view)
    if not runs:
        return Refusal(cause="no_pool", earliest_finish_s=None, policy=policy, verdicts=told)
    return Refusal(
        cause="deadline" if any(one.affordable for one in runs) else "budget",
        earliest_finish_s=min(one.finish_s for one in runs),
        policy=policy,
        verdicts=told,
    )


def _verdicts(
    scores: list[PoolScore | Verdict], chosen: PoolScore | None, view: FleetView
) -> tuple[PoolVerdict, ...]:
    told: list[PoolVerdict] = []
    for spec, one in zip(view.pools, scores, strict=True):
        if not isinstance(one, PoolScore):
            told.append(PoolVerdict(pool=spec.name, verdict=one))
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
                pool=one.name,
                verdict=verdict,
                predicted_finish_s=one.finish_s,
                predicted_cost_usd=one.cost_usd,
            )
        )
    return tuple(told)
