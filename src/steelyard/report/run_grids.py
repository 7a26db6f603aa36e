"""Tables of one run: steps, pools, tasks, refusals, and how good the predictions were."""

import math
import statistics

from steelyard.domain.units import rental_usd
from steelyard.ledger.ledger import Ledger, TaskRecord
from steelyard.ledger.summary import summarize_steps
from steelyard.report.format import (
    NONE,
    count,
    name,
    percent,
    ratio,
    seconds,
    short_offering,
    significant,
    usd,
)
from steelyard.report.grid import Column, Grid, columns
from steelyard.report.inputs import Origin


def step_grid(ledger: Ledger, origin: Origin) -> Grid:
    """Where did each kind of step run, how long did it take, what did it use and cost?

    Args:
        ledger: The books of a run.
        origin: `measured`, or `simulated` for a simulated log.

    Returns:
        One row per agent, step name and pool.
    """
    rows = [
        (
            name(one.step),
            name(one.agent),
            short_offering(one.pool),
            count(one.count),
            count(one.failed),
            NONE if math.isnan(one.latency_p50_s) else seconds(one.latency_p50_s),
            NONE if math.isnan(one.latency_p95_s) else seconds(one.latency_p95_s),
            seconds(one.ttft_p50_s),
            count(one.input_tokens) if one.kind == "llm" else NONE,
            count(one.cached_tokens) if one.kind == "llm" else NONE,
            count(one.output_tokens) if one.kind == "llm" else NONE,
            usd(one.cost_usd),
        )
        for one in summarize_steps(ledger)
    ]
    numbers = ("steps", "failed", "latency p50", "latency p95", "TTFT p50")
    tokens = ("input tokens", "cached tokens", "output tokens", "cost")
    return Grid(
        title="Steps by agent and pool",
        origin=origin,
        columns=columns(("step", "agent", "pool"), numbers + tokens),
        rows=tuple(rows),
        note=(
            "Latency is from placement to end, TTFT from placement to the first token; both count "
            "the queue. Cost is the used share of the pool's rent, or the vendor's token price; "
            "1 µ$ is a millionth of a US dollar."
        ),
    )


def pool_grid(ledger: Ledger, origin: Origin) -> Grid:
    """What did each pool cost, and how much of it was used?

    Args:
        ledger: The books of a run.
        origin: `measured` or `simulated`.

    Returns:
        One row per pool.
    """
    rows: list[tuple[str, ...]] = []
    for pool, spec in sorted(ledger.pools.items()):
        costs = [one.cost_usd for one in ledger.attempts if one.decision.pool == pool]
        used_usd = math.fsum(costs)
        rent_usd = rental_usd(spec.usd_per_hour * spec.replicas, ledger.span_s)
        rows.append(
            (
                name(pool),
                spec.hardware,
                name(spec.offering),
                count(spec.replicas),
                f"{usd(spec.usd_per_hour)}/h",
                count(len(costs)),
                usd(used_usd),
                usd(used_usd if spec.token_price else rent_usd),
                percent(used_usd / rent_usd) if rent_usd > 0.0 else NONE,
            )
        )
    numbers = ("replicas", "rent of one", "attempts", "used", "paid", "used of paid")
    return Grid(
        title="Pools",
        origin=origin,
        columns=columns(("pool", "hardware", "priced as"), numbers),
        rows=tuple(rows),
        note="Paid counts idle time from the first task's arrival to the last one's end.",
    )


def task_grid(ledger: Ledger, limit: int) -> Grid:
    """Did each task keep its promises?

    Args:
        ledger: The books of a measured run.
        limit: Rows shown; tasks that missed an SLO come first, then by arrival.

    Returns:
        One row per task.
    """
    tasks = sorted(ledger.tasks, key=lambda one: (one.met_slo, one.submitted_s, one.task_id))
    start_s = min((one.submitted_s for one in tasks), default=0.0)
    rows = [
        (
            name(one.task_id, 40),
            name(one.agent),
            _task_result(one),
            seconds(one.submitted_s - start_s),
            seconds(one.finished_s - one.submitted_s),
            NONE if one.deadline_s is None else seconds(one.deadline_s - one.submitted_s),
            usd(one.cost_usd),
            usd(one.budget_usd),
        )
        for one in tasks[:limit]
    ]
    left = len(tasks) - len(rows)
    return Grid(
        title="Tasks",
        origin="measured",
        columns=columns(
            ("task", "agent", "result"), ("arrived after", "took", "deadline", "cost", "budget")
        ),
        rows=tuple(rows),
        note=f"{count(left)} more tasks that met every SLO are not listed." if left else "",
    )


def _task_result(task: TaskRecord) -> str:
    if task.met_slo:
        return "met every SLO"
    if task.status != "succeeded":
        return f"{task.status}: {name(task.error_code)}" if task.error_code else task.status
    if task.deadline_s is not None and task.finished_s > task.deadline_s:
        return f"late by {seconds(task.finished_s - task.deadline_s)}"
    return "over budget"


def refusal_grid(ledger: Ledger) -> Grid:
    """Which steps did the policy refuse, and why?

    Args:
        ledger: The books of a measured run.

    Returns:
        One row per refusal; no rows where all steps were placed.
    """
    rows = [
        (
            name(one.step.name),
            name(one.step.task_id, 40),
            one.refusal.cause.replace("_", " "),
            seconds(one.refusal.earliest_finish_s),
            name(one.refusal.reason, 200),
        )
        for one in ledger.refused
    ]
    return Grid(
        title="Refused steps",
        origin="measured",
        columns=columns(("step", "task", "cause"), ("earliest finish in",), ("per pool",)),
        rows=tuple(rows),
    )


def prediction_grid(ledger: Ledger) -> Grid:
    """How far were predictions off, by kind of step?

    Args:
        ledger: The books of a measured run.

    Returns:
        One row per agent, step name and pool.
    """
    groups: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for one in ledger.attempts:
        predicted_s = one.decision.predicted_finish_s
        if one.outcome == "ok" and predicted_s > 0.0:
            key = (one.step.agent, one.step.name, one.decision.pool)
            groups.setdefault(key, []).append((predicted_s, one.latency_s))
    rows: list[tuple[str, ...]] = []
    for (agent, step, pool), pairs in sorted(groups.items()):
        off = [abs(measured - predicted) / predicted for predicted, measured in pairs]
        rows.append(
            (
                name(step),
                name(agent),
                name(pool),
                count(len(pairs)),
                seconds(statistics.median(predicted for predicted, _ in pairs)),
                seconds(statistics.median(measured for _, measured in pairs)),
                ratio(statistics.median(measured / predicted for predicted, measured in pairs)),
                f"{significant(statistics.median(off) * 100.0)} %",
            )
        )
    return Grid(
        title="Predicted against measured latency",
        origin=None,
        columns=(
            *columns(("step", "agent", "pool"), ("steps",)),
            Column("predicted, median", True),
            Column("measured, median", True),
            Column("measured / predicted, median", True),
            Column("error, median", True),
        ),
        rows=tuple(rows),
        note=(
            "A model's step of a kind never seen before is predicted from the caller's limits; a "
            "tool never seen before is predicted to take no time, and is left out here."
        ),
    )
