"""What would the step be like in each pool? Arrays of shape [pools], one row per pool."""

import math
from dataclasses import dataclass, replace

import numpy as np

from steelyard.domain.decision import Decision, PoolVerdict, Refusal, Verdict
from steelyard.domain.task import LlmCall, Step
from steelyard.domain.units import SECONDS_PER_HOUR
from steelyard.errors import SteelyardBugError
from steelyard.fleet.provider_spend import within_cap
from steelyard.fleet.view import FleetView, IntArray, LlmArrays, ToolArrays
from steelyard.perf.cost import llm_used_s, priced_tokens_usd, tool_used_s
from steelyard.perf.predict import BoolArray, FloatArray
from steelyard.placement.candidates import CandidateRule
from steelyard.placement.scoring import (
    begun_by_s,
    grace_s,
    llm_times_s,
    queued_usd,
    wait_s,
    within_share_s,
)


@dataclass(frozen=True, slots=True)
class Predictions:
    """The step in each pool; rows with `runs` False hold no meaning.

    Attributes:
        runs: Whether the pool can run the step at all now.
        replica: Replica that would take it.
        wait_s: Seconds in the queue.
        ttft_s: Seconds from start to the first token, or to the tool's start.
        finish_s: Seconds from now to the end.
        cached_tokens: Prompt tokens in the replica's cache.
        cost_usd: Cost at the pool's rent or token price.
        bid_cost_usd: Cost at the pool's bid price or token price, with a surcharge in proportion
            to the wait; pools are compared by it. A queue says that the pool is scarcer than the
            plan's bid price knows: a wait as long as the step itself doubles the price.
        slack_s: Deadline - now - remaining work - finish; infinite without a deadline.
        grace_s: How long after its latest start it is surely late.
        longest_s: How long the step may take to be within its share of the task's slack; infinite
            without a deadline.
        patient: Whether the end is within that.
        affordable: Whether the cost fits what is left of the budget.
        obstacle: Why the pool cannot run the step, for rows with `runs` False.
    """

    runs: BoolArray
    replica: IntArray
    wait_s: FloatArray
    ttft_s: FloatArray
    finish_s: FloatArray
    cached_tokens: FloatArray
    cost_usd: FloatArray
    bid_cost_usd: FloatArray
    slack_s: FloatArray
    grace_s: FloatArray
    longest_s: float
    patient: BoolArray
    affordable: BoolArray
    obstacle: tuple[Verdict, ...]


def predict(step: Step, view: FleetView, candidates: CandidateRule) -> Predictions:
    """What would the step be like in each pool?

    Args:
        step: The step to be placed.
        view: The fleet as the step sees it.
        candidates: Which replica of each pool would take it.

    Returns:
        Predictions of shape [pools].
    """
    arrays = view.arrays
    cap = arrays.curve[4] if isinstance(arrays, LlmArrays) else arrays.slots
    replica = candidates(step, view, cap)
    at = np.where(replica >= 0, view.offsets[:-1] + replica, 0)
    if len(view.running) == 0:
        at = np.zeros(len(view.pools), dtype=np.int64)
    cached = view.cached_tokens[at]
    if isinstance(arrays, LlmArrays):
        ttft_s, service_s, cost_usd, bid_cost_usd = _predict_llm(step, view, arrays, at)
    else:
        ttft_s, service_s, cost_usd, bid_cost_usd = _predict_tool(view, arrays)
    left_s = math.inf
    if step.deadline_s is not None:
        left_s = step.deadline_s - view.now_s - view.expected.remaining_s
    after = view.expected
    more_s = grace_s(after.remaining_s, after.remaining_deviation_s, service_s, view.error_frac)
    book = (view.running[at], view.waiting[at], view.late[at], view.service_sum_s[at])
    waits_s = wait_s(book, service_s, cap, left_s - service_s + more_s)
    finish_s = waits_s + service_s
    slack_s = left_s - finish_s
    left_usd = np.inf if step.budget_usd is None else step.budget_usd - view.committed_usd
    obstacle = _obstacles(step, view, replica, cost_usd)
    runs = np.array([one == "chosen" for one in obstacle], dtype=np.bool_)
    longest_s = allowed_s(step, view, float(service_s[runs].min(initial=math.inf)))
    return Predictions(
        runs=runs,
        replica=replica,
        wait_s=waits_s,
        ttft_s=ttft_s,
        finish_s=finish_s,
        cached_tokens=cached,
        cost_usd=cost_usd,
        bid_cost_usd=queued_usd(bid_cost_usd, waits_s, service_s),
        slack_s=slack_s,
        grace_s=more_s,
        longest_s=longest_s,
        patient=finish_s <= longest_s,
        # A tool that was never seen is predicted to cost nothing: with nothing left it is refused.
        affordable=(cost_usd <= left_usd) & ((left_usd > 0.0) | (view.rent_usd_per_hour == 0.0)),
        obstacle=obstacle,
    )


def allowed_s(step: Step, view: FleetView, least_s: float) -> float:
    """How long may this step take? `within_share_s` with what the view knows; in seconds."""
    left_s = math.inf if step.deadline_s is None else step.deadline_s - view.now_s
    expected = view.expected
    return within_share_s(left_s, expected.remaining_s, expected.remaining_known, least_s)


def seen_as_whole(seen: Predictions) -> Predictions:
    """What is left for a whole task, should each of its steps wait twice as long as this first one?

    Where that is more than the task has time for, the slack is negative by what the wait is too
    long: work on a task that cannot be ended in time is lost.

    Args:
        seen: Predictions of the first step of a task.
    """
    if math.isinf(seen.longest_s):
        return seen
    alone_s = seen.finish_s - seen.wait_s
    by_s = np.array([begun_by_s(seen.longest_s, one) for one in alone_s.tolist()])
    over_s = by_s - seen.finish_s
    too_long = (seen.wait_s > 0.0) & (over_s < 0.0)
    slack_s = np.where(too_long, np.minimum(seen.slack_s, over_s), seen.slack_s)
    return replace(seen, slack_s=slack_s)


def _predict_llm(
    step: Step, view: FleetView, arrays: LlmArrays, at: IntArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """TTFT, service time, cost and cost at bid price of an LLM step; each of shape [pools]."""
    call = step.call
    if not isinstance(call, LlmCall):
        raise SteelyardBugError(f"step {step.key} is a tool call and was given LLM curves")
    cached = view.cached_tokens[at]
    uncached = np.maximum(float(call.input_tokens) - cached, 0.0)
    output = np.full(len(view.pools), view.expected.output_tokens)
    load = (view.running[at], view.waiting[at], view.prefill_share_sum_s[at])
    ttft_s, service_s = llm_times_s(arrays.curve, view.correction, uncached, output, load)
    used_h = llm_used_s(arrays.curve, uncached, output) / SECONDS_PER_HOUR
    prices = (arrays.usd_per_token[0], arrays.usd_per_token[1], arrays.usd_per_token[2])
    by_token_usd = priced_tokens_usd(prices, uncached, cached, output)
    cost_usd = np.where(arrays.by_token, by_token_usd, used_h * view.rent_usd_per_hour)
    bid_usd = np.where(arrays.by_token, by_token_usd, used_h * view.bid_usd_per_hour)
    return ttft_s, service_s, cost_usd, bid_usd


def _predict_tool(
    view: FleetView, arrays: ToolArrays
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Start time, service time, cost and cost at bid price of a tool; each of shape [pools]."""
    expected = view.expected
    service_s = arrays.start_s + expected.cpu_s / arrays.relative_speed + expected.other_s
    used_s = tool_used_s(
        (arrays.relative_speed, arrays.cores, arrays.memory_bytes),
        np.full(len(view.pools), expected.cpu_s),
        service_s,
        np.full(len(view.pools), expected.memory_bytes),
    )
    used_h = used_s / SECONDS_PER_HOUR
    return (
        arrays.start_s,
        service_s,
        used_h * view.rent_usd_per_hour,
        used_h * view.bid_usd_per_hour,
    )


def _obstacles(
    step: Step, view: FleetView, replica: IntArray, cost_usd: FloatArray
) -> tuple[Verdict, ...]:
    """Why each pool cannot run the step; `chosen` stands for: it can."""
    arrays, call = view.arrays, step.call
    obstacles: list[Verdict] = []
    for pool in range(len(view.pools)):
        if not arrays.serves[pool]:
            obstacles.append("cannot_run")
        elif (
            isinstance(arrays, LlmArrays)
            and isinstance(call, LlmCall)
            and (call.input_tokens >= arrays.context_tokens[pool])
        ):
            obstacles.append("too_long")
        elif not isinstance(call, LlmCall) and (
            not view.pools[pool].runs_tool(call.tool)
            or (
                isinstance(arrays, ToolArrays)
                and max(view.expected.memory_bytes, call.memory_bytes) > arrays.memory_bytes[pool]
            )
        ):
            obstacles.append("cannot_run")
        elif replica[pool] < 0 or not view.closed[pool]:
            obstacles.append("down")
        elif view.caps is not None and not within_cap(
            cost_usd[pool], view.caps[0][pool], view.rent_usd_per_hour[pool]
        ):
            obstacles.append("over_cap")
        else:
            obstacles.append("chosen")
    return tuple(obstacles)


def decide(step: Step, view: FleetView, seen: Predictions, chosen: int, policy: str) -> Decision:
    """Write down a choice, with the reason why each other pool lost.

    Args:
        step: The step to be placed.
        view: The fleet as the step saw it.
        seen: Its predictions.
        chosen: Index of the chosen pool.
        policy: Name of the policy.

    Returns:
        The decision.
    """
    spec = view.pools[chosen]
    slack_s = None if step.deadline_s is None else float(seen.slack_s[chosen])
    kept = slack_s is None or slack_s >= 0.0
    return Decision(
        pool=spec.name,
        replica=int(seen.replica[chosen]),
        predicted_wait_s=float(seen.wait_s[chosen]),
        predicted_ttft_s=float(seen.ttft_s[chosen]),
        predicted_finish_s=float(seen.finish_s[chosen]),
        predicted_cached_tokens=int(seen.cached_tokens[chosen]),
        predicted_output_tokens=view.expected.output_tokens if step.kind == "llm" else 0.0,
        predicted_cost_usd=float(seen.cost_usd[chosen]),
        bid_usd_per_hour=float(view.bid_usd_per_hour[chosen]),
        slack_s=slack_s,
        grace_s=0.0 if slack_s is None else float(seen.grace_s[chosen]),
        predicted_least_s=float((seen.finish_s - seen.wait_s)[seen.runs].min()),
        policy=policy,
        reason=_reason(seen, chosen, kept=kept),
        verdicts=verdicts(view, seen, chosen),
    )


def runs_late(step: Step, surely_late_in_s: float) -> bool:
    """Does a step that no pool is expected to have in time run all the same?

    `refuse` is a promise about beginning: of a task that has begun, work would be lost, so that its
    step is refused only where it would surely be late even without a queue.

    Args:
        step: The step.
        surely_late_in_s: Seconds from now after which it is surely late if it has not started.
    """
    return step.on_miss != "refuse" or (not step.begins_task and surely_late_in_s >= 0.0)


def _reason(seen: Predictions, chosen: int, *, kept: bool) -> str:
    rivals = int(np.count_nonzero(seen.runs)) - 1
    if not kept:
        return f"no pool meets the deadline; least late of {rivals + 1}"
    if rivals == 0:
        return "the only pool that can run the step"
    late = int(np.count_nonzero(seen.runs & (seen.slack_s < 0.0)))
    warm = int(seen.cached_tokens[chosen])
    note = f", {warm} prompt tokens cached" if warm else ""
    return f"chosen over {rivals - late} dearer or slower and {late} late pools{note}"


def refuse(view: FleetView, seen: Predictions, policy: str) -> Refusal:
    """Write down that no pool takes the step, and what each one lacks.

    Args:
        view: The fleet as the step saw it.
        seen: Its predictions.
        policy: Name of the policy.

    Returns:
        The refusal; its cause is `budget` only when more money would have helped.
    """
    runs = seen.runs
    earliest = float(seen.finish_s[runs].min()) if bool(runs.any()) else None
    if earliest is None:
        renewed_s = None
        if view.caps is not None and "down" not in seen.obstacle:
            capped = [pool for pool, why in enumerate(seen.obstacle) if why == "over_cap"]
            renewed_s = min((float(view.caps[1][pool]) for pool in capped), default=None)
        return Refusal(
            cause="no_pool" if renewed_s is None else "spend_cap",
            earliest_finish_s=None,
            policy=policy,
            verdicts=verdicts(view, seen, None),
            retry_after_s=renewed_s,
        )
    affordable = bool((runs & seen.affordable).any())
    return Refusal(
        cause="deadline" if affordable else "budget",
        earliest_finish_s=earliest,
        policy=policy,
        verdicts=verdicts(view, seen, None),
        retry_after_s=_retry_after_s(seen),
    )


def _retry_after_s(seen: Predictions) -> float | None:
    """By how much is the pool late that its queue alone makes late? The queue drains."""
    queued = (seen.slack_s < 0.0) & (seen.slack_s + seen.wait_s >= 0.0)
    late = -seen.slack_s[seen.runs & seen.affordable & queued]
    return float(late.min()) if len(late) else None


def verdicts(view: FleetView, seen: Predictions, chosen: int | None) -> tuple[PoolVerdict, ...]:
    """Why was each pool chosen or not?

    Args:
        view: The fleet as the step saw it.
        seen: Its predictions.
        chosen: Index of the chosen pool; None in a refusal.

    Returns:
        One verdict per pool, in the fleet's order.
    """
    told: list[PoolVerdict] = []
    for pool, spec in enumerate(view.pools):
        if not seen.runs[pool] and seen.obstacle[pool] != "over_cap":
            told.append(PoolVerdict(pool=spec.name, verdict=seen.obstacle[pool]))
            continue
        verdict: Verdict = "dearer"
        if not seen.runs[pool]:
            verdict = seen.obstacle[pool]
        elif pool == chosen:
            verdict = "chosen"
        elif not seen.affordable[pool]:
            verdict = "over_budget"
        elif seen.slack_s[pool] < 0.0:
            verdict = "too_late"
        elif chosen is not None and seen.bid_cost_usd[pool] <= seen.bid_cost_usd[chosen]:
            verdict = "later"
        told.append(
            PoolVerdict(
                pool=spec.name,
                verdict=verdict,
                predicted_finish_s=float(seen.finish_s[pool]),
                predicted_cost_usd=float(seen.cost_usd[pool]),
            )
        )
    return tuple(told)
