"""Ledgers as frames: what ran, live or simulated, what it cost, and whether it was in time."""

import math
from typing import NamedTuple

import polars as pl

from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import LlmCall
from steelyard.frames.column import Column, Table
from steelyard.ledger.ledger import AttemptRecord, Ledger, TaskRecord


class _Pool(NamedTuple):
    spec: PoolSpec
    attempts: int
    used_usd: float
    paid_usd: float | None


TASKS: Table[TaskRecord] = Table(
    name="ledger_tasks",
    row="a task that ended, in order of its end",
    columns=(
        Column("task_id", pl.String, "", "its id", lambda one: one.task_id),
        Column("agent", pl.String, "", "its agent", lambda one: one.agent),
        Column(
            "submitted_s",
            pl.Float64,
            "s",
            "when it arrived: since 1970 live, since the start simulated",
            lambda one: one.submitted_s,
        ),
        Column(
            "finished_s", pl.Float64, "s", "when it ended, as before", lambda one: one.finished_s
        ),
        Column(
            "latency_s",
            pl.Float64,
            "s",
            "from arrival to end",
            lambda one: one.finished_s - one.submitted_s,
        ),
        Column("status", pl.String, "", "succeeded, failed or cancelled", lambda one: one.status),
        Column(
            "met_slo",
            pl.Boolean,
            "",
            "whether it succeeded, in time and inside its budget",
            lambda one: one.met_slo,
        ),
        Column(
            "deadline_s", pl.Float64, "s", "as before; null without one", lambda one: one.deadline_s
        ),
        Column("budget_usd", pl.Float64, "USD", "null without one", lambda one: one.budget_usd),
        Column(
            "cost_usd",
            pl.Float64,
            "USD",
            "of all its attempts, failed ones included",
            lambda one: one.cost_usd,
        ),
        Column(
            "children_usd",
            pl.Float64,
            "USD",
            "of its children, which have rows of their own",
            lambda one: one.children_usd,
        ),
        Column(
            "error_code", pl.String, "", "why it failed; else empty", lambda one: one.error_code
        ),
    ),
)


def _model(one: AttemptRecord) -> str:
    return one.step.call.model if isinstance(one.step.call, LlmCall) else ""


def _tool(one: AttemptRecord) -> str:
    return "" if isinstance(one.step.call, LlmCall) else one.step.call.tool


def _wait_s(one: AttemptRecord) -> float | None:
    return None if one.started_s is None else one.started_s - one.placed_s


def _ttft_s(one: AttemptRecord) -> float | None:
    wait_s, first_s = _wait_s(one), one.usage.start_to_first_token_s
    return None if wait_s is None or first_s is None else wait_s + first_s


ATTEMPTS: Table[AttemptRecord] = Table(
    name="ledger_attempts",
    row="an attempt that ended, in order of its end",
    columns=(
        Column("task_id", pl.String, "", "its task", lambda one: one.step.task_id),
        Column("agent", pl.String, "", "the task's agent", lambda one: one.step.agent),
        Column("step_id", pl.Int64, "", "number of its step", lambda one: one.step.step_id),
        Column("step", pl.String, "", "name of its step", lambda one: one.step.name),
        Column("kind", pl.String, "", "llm or tool", lambda one: one.step.kind),
        Column("attempt", pl.Int64, "", "0 for the first one", lambda one: one.step.attempt),
        Column("model", pl.String, "", "of LLM steps; else empty", _model),
        Column("tool", pl.String, "", "of tool steps; else empty", _tool),
        Column("pool", pl.String, "", "where it ran", lambda one: one.decision.pool),
        Column("replica", pl.Int64, "", "index in the pool", lambda one: one.decision.replica),
        Column("reason", pl.String, "", "why it went there", lambda one: one.decision.reason),
        Column("outcome", pl.String, "", "ok, failed or cancelled", lambda one: one.outcome),
        Column(
            "error_code", pl.String, "", "why it failed; else empty", lambda one: one.error_code
        ),
        Column(
            "placed_s",
            pl.Float64,
            "s",
            "when it was placed: since 1970 live, since the start simulated",
            lambda one: one.placed_s,
        ),
        Column("wait_s", pl.Float64, "s", "in the queue; null if it never started", _wait_s),
        Column(
            "ttft_s",
            pl.Float64,
            "s",
            "from placement to the first token, queue included; null for tools and empty answers",
            _ttft_s,
        ),
        Column(
            "latency_s",
            pl.Float64,
            "s",
            "from placement to end, queueing included",
            lambda one: one.latency_s,
        ),
        Column(
            "predicted_latency_s",
            pl.Float64,
            "s",
            "the same, as the policy expected it",
            lambda one: one.decision.predicted_finish_s,
        ),
        Column(
            "slack_s",
            pl.Float64,
            "s",
            "left to the deadline, as predicted; null without a deadline",
            lambda one: one.decision.slack_s,
        ),
        Column(
            "input_tokens",
            pl.Int64,
            "tokens",
            "length of the prompt",
            lambda one: one.usage.input_tokens,
        ),
        Column(
            "cached_tokens",
            pl.Int64,
            "tokens",
            "of the prompt, read from a cache",
            lambda one: one.usage.cached_tokens,
        ),
        Column(
            "output_tokens",
            pl.Int64,
            "tokens",
            "that were generated",
            lambda one: one.usage.output_tokens,
        ),
        Column("cpu_s", pl.Float64, "s", "of a tool, where it ran", lambda one: one.usage.cpu_s),
        Column("cost_usd", pl.Float64, "USD", "what it cost", lambda one: one.cost_usd),
        Column(
            "predicted_cost_usd",
            pl.Float64,
            "USD",
            "the same, as the policy expected it",
            lambda one: one.decision.predicted_cost_usd,
        ),
    ),
)

POOLS: Table[_Pool] = Table(
    name="ledger_pools",
    row="a pool, by name",
    columns=(
        Column("pool", pl.String, "", "its name", lambda one: one.spec.name),
        Column("provider", pl.String, "", "who is paid", lambda one: one.spec.provider),
        Column("region", pl.String, "", "where it stands", lambda one: one.spec.region),
        Column("hardware", pl.String, "", "gpu, arm, x86 or vendor", lambda one: one.spec.hardware),
        Column("replicas", pl.Int64, "replicas", "how many", lambda one: one.spec.replicas),
        Column(
            "usd_per_hour",
            pl.Float64,
            "USD per hour",
            "of one replica; 0 where tokens are paid",
            lambda one: one.spec.usd_per_hour,
        ),
        Column("attempts", pl.Int64, "attempts", "that ended there", lambda one: one.attempts),
        Column("used_usd", pl.Float64, "USD", "cost of what was used", lambda one: one.used_usd),
        Column(
            "rent_usd",
            pl.Float64,
            "USD",
            "for the time from the first task's arrival to the last one's end, used or idle; null "
            "where tokens are paid",
            lambda one: one.paid_usd,
        ),
    ),
)


def ledger_tasks(ledger: Ledger) -> pl.DataFrame:
    """Which tasks ended, and how?

    Args:
        ledger: Of a log or of a simulation (`Ledger.of(simulation.events)`).

    Returns:
        One row per task; columns as `TASKS`.
    """
    return TASKS.frame(ledger.tasks)


def ledger_attempts(ledger: Ledger) -> pl.DataFrame:
    """What ran where, how long, and what did it cost?

    Args:
        ledger: As `ledger_tasks`.

    Returns:
        One row per attempt; columns as `ATTEMPTS`.
    """
    return ATTEMPTS.frame(ledger.attempts)


def ledger_pools(ledger: Ledger) -> pl.DataFrame:
    """What was used of each pool, and what was paid?

    Args:
        ledger: As `ledger_tasks`.

    Returns:
        One row per pool; columns as `POOLS`.
    """
    used: dict[str, list[float]] = {}
    for attempt in ledger.attempts:
        used.setdefault(attempt.decision.pool, []).append(attempt.cost_usd)
    return POOLS.frame(_pool(ledger, name, used.get(name, [])) for name in sorted(ledger.pools))


def _pool(ledger: Ledger, name: str, used_usd: list[float]) -> _Pool:
    spec = ledger.pools[name]
    is_rented = spec.token_price is None and name in ledger.rents
    paid_usd = ledger.rents[name].usd(ledger.first_s, ledger.last_s) if is_rented else None
    return _Pool(spec, len(used_usd), math.fsum(used_usd), paid_usd)
