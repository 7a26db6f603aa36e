"""What a gateway's metrics and tasks say, as one look of `steelyard top`."""

import math
import re
from collections.abc import Iterator

import msgspec

from steelyard.report.format import NONE, count, name, per_second, percent, seconds, usd
from steelyard.report.grid import Grid, columns

_LINE = re.compile(r"(?P<metric>[A-Za-z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_LABEL = re.compile(r'(?P<key>\w+)="(?P<value>(?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")
_MOST_TASKS = 12


class PoolLook(msgspec.Struct, frozen=True, kw_only=True):
    """A pool, as its gateway counts it since its start.

    Attributes:
        pool: Its name.
        replicas_up: Replicas that are up.
        running: Attempts that run.
        waiting: Placed steps that wait.
        ended: Attempts that ended.
        failed: Those of them that did not go well.
        cached_frac: Share of the prompt tokens read from caches; None without prompts.
        cost_usd: What they cost.
        ttft_s: Mean time to first token, the queue included; None without any.
    """

    pool: str
    replicas_up: int
    running: int
    waiting: int
    ended: int
    failed: int
    cached_frac: float | None
    cost_usd: float
    ttft_s: float | None


class TaskLook(msgspec.Struct, frozen=True, kw_only=True):
    """A durable task, as far as it is shown.

    Attributes:
        task_id: Its id.
        agent: Its agent.
        state: Its state.
        submitted_s: When it came, seconds since 1970.
    """

    task_id: str
    agent: str
    state: str
    submitted_s: float = 0.0


class CapLook(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's spend cap.

    Attributes:
        provider: The provider.
        span: `hour` or `day`.
        used_usd: Spent and reserved in the one that runs, by all processes.
        cap_usd: The cap.
    """

    provider: str
    span: str
    used_usd: float
    cap_usd: float


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """One look at a gateway.

    Attributes:
        t_s: When, on this machine's clock, seconds since 1970.
        pools: By name.
        tasks_open: Tasks that have not ended, requests under way among them.
        tasks_ended: By status.
        tasks: The newest durable tasks.
        caps: Spend caps of providers.
    """

    t_s: float
    pools: tuple[PoolLook, ...]
    tasks_open: int
    tasks_ended: dict[str, int]
    tasks: tuple[TaskLook, ...] = ()
    caps: tuple[CapLook, ...] = ()

    @property
    def ended(self) -> int:
        """Tasks that ended since the gateway started."""
        return sum(self.tasks_ended.values())

    @property
    def cost_usd(self) -> float:
        """What all attempts cost since the gateway started, in USD."""
        return math.fsum(one.cost_usd for one in self.pools)


_Key = tuple[str, tuple[tuple[str, str], ...]]


def read_metrics(text: str) -> dict[_Key, float]:
    r"""What does a text in Prometheus' format say?

    Args:
        text: Lines of `name{label="value"} number`; others are passed over.

    Returns:
        Values by name and sorted labels.

    >>> read_metrics('up{pool="a b"} 2\n# HELP x y\nopen 3\n')
    {('up', (('pool', 'a b'),)): 2.0, ('open', ()): 3.0}
    """
    found: dict[_Key, float] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        labels = tuple(
            sorted(
                (one["key"], _ESCAPED.sub(_unescaped, one["value"]))
                for one in _LABEL.finditer(match["labels"] or "")
            )
        )
        found[(match["metric"], labels)] = float(match["value"])
    return found


def _unescaped(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]


def look_at(metrics: dict[_Key, float], tasks: tuple[TaskLook, ...], t_s: float) -> Look:
    """What do a gateway's metrics mean?

    Args:
        metrics: As `read_metrics` gives them.
        tasks: Durable tasks, the newest first.
        t_s: Now, seconds since 1970.

    Returns:
        The look.
    """
    names = sorted(
        {
            dict(labels)["pool"]
            for metric, labels in metrics
            if metric == "steelyard_replicas_up" and "pool" in dict(labels)
        }
    )
    ended = {
        dict(labels).get("status", ""): int(value)
        for (metric, labels), value in metrics.items()
        if metric == "steelyard_tasks_total"
    }
    return Look(
        t_s=t_s,
        pools=tuple(_pool(metrics, pool) for pool in names),
        tasks_open=int(metrics.get(("steelyard_tasks_open", ()), 0.0)),
        tasks_ended=ended,
        tasks=tasks[:_MOST_TASKS],
        caps=tuple(_caps(metrics)),
    )


def _caps(metrics: dict[_Key, float]) -> Iterator[CapLook]:
    for (metric, labels), cap_usd in sorted(metrics.items()):
        if metric == "steelyard_provider_cap_usd":
            told = dict(labels)
            yield CapLook(
                provider=told.get("provider", ""),
                span=told.get("span", ""),
                used_usd=metrics.get(("steelyard_provider_spend_usd", labels), 0.0),
                cap_usd=cap_usd,
            )


def _pool(metrics: dict[_Key, float], pool: str) -> PoolLook:
    def one(metric: str) -> float:
        return metrics.get((f"steelyard_{metric}", (("pool", pool),)), 0.0)

    ended = {
        dict(labels)["outcome"]: value
        for (metric, labels), value in metrics.items()
        if metric == "steelyard_attempts_total" and ("pool", pool) in labels
    }
    tokens, first = one("prompt_tokens_total"), one("time_to_first_token_seconds_count")
    return PoolLook(
        pool=pool,
        replicas_up=int(one("replicas_up")),
        running=int(one("num_requests_running")),
        waiting=int(one("num_requests_waiting")),
        ended=int(sum(ended.values())),
        failed=int(sum(value for outcome, value in ended.items() if outcome != "ok")),
        cached_frac=one("prompt_tokens_cached_total") / tokens if tokens else None,
        cost_usd=one("cost_usd_total"),
        ttft_s=one("time_to_first_token_seconds_sum") / first if first else None,
    )


def look_grids(look: Look, before: Look | None) -> tuple[Grid, ...]:
    """One look as tables.

    Args:
        look: The look.
        before: The one before it, for rates; None for the first.

    Returns:
        Pools, totals, spend caps where there are any, tasks; the last has no rows where nothing
        durable runs.
    """
    caps = (_cap_grid(look),) if look.caps else ()
    return (_pool_grid(look), _total_grid(look, before), *caps, _task_grid(look))


def _cap_grid(look: Look) -> Grid:
    rows = tuple(
        (
            name(one.provider, 40),
            one.span,
            usd(one.used_usd),
            usd(one.cap_usd),
            percent(one.used_usd / one.cap_usd if one.cap_usd else None),
        )
        for one in look.caps
    )
    told = columns(("provider", "span"), ("spent and reserved", "cap", "of the cap"))
    return Grid(title="Spend caps of providers", origin="measured", columns=told, rows=rows)


def _pool_grid(look: Look) -> Grid:
    rows = tuple(
        (
            name(one.pool, 40),
            count(one.replicas_up),
            count(one.running),
            count(one.waiting),
            count(one.ended),
            count(one.failed),
            percent(one.cached_frac),
            seconds(one.ttft_s),
            usd(one.cost_usd),
        )
        for one in look.pools
    )
    heads = ("up", "running", "waiting", "ended", "failed", "cached", "TTFT mean", "cost")
    return Grid(title="Pools", origin="measured", columns=columns(("pool",), heads), rows=rows)


def _total_grid(look: Look, before: Look | None) -> Grid:
    ended_per_s: float | None = None
    usd_per_hour = NONE
    if before is not None and look.t_s > before.t_s:
        span_s = look.t_s - before.t_s
        ended_per_s = max(0, look.ended - before.ended) / span_s
        usd_per_hour = f"{usd(max(0.0, look.cost_usd - before.cost_usd) / span_s * 3600.0)}/h"
    states = ", ".join(f"{count(n)} {status}" for status, n in sorted(look.tasks_ended.items()))
    cells = (count(look.tasks_open), count(look.ended), usd(look.cost_usd))
    rates = (per_second(ended_per_s, "tasks"), usd_per_hour)
    return Grid(
        title="Since the gateway started",
        origin="measured",
        columns=columns(
            ("",), ("open", "ended", "cost", "tasks ending", "spending"), ("ended as",)
        ),
        rows=(("all tasks and requests", *cells, *rates, states or NONE),),
    )


def _task_grid(look: Look) -> Grid:
    return Grid(
        title="Newest durable tasks",
        origin=None,
        columns=columns(("task", "agent", "state"), ("age",)),
        rows=tuple(
            (
                name(one.task_id, 40),
                name(one.agent, 24),
                one.state,
                seconds(max(0.0, look.t_s - one.submitted_s) if one.submitted_s else None),
            )
            for one in look.tasks
        ),
    )
