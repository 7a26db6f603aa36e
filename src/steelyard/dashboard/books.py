"""What did it cost, by agent, provider and day? Sums of the ledger's own records."""

import math
from collections import defaultdict
from datetime import UTC, datetime

from steelyard.dashboard.sheets import DayBar, Sheet, Tile
from steelyard.ledger.ledger import Ledger, OpenTask, TaskRecord
from steelyard.report.alike import usd_alike
from steelyard.report.format import count, name, per_second, percent, seconds, usd
from steelyard.report.grid import Grid, columns

_DAYS = 30


def books_sheet(ledger: Ledger) -> Sheet:
    """The page of the ledger.

    Args:
        ledger: The books.

    Returns:
        Every figure is measured: from ended attempts and the rent of all replicas.
    """
    by_day = cost_by_day(ledger)
    shown = sorted(by_day)[-_DAYS:]
    highest = max((by_day[day] for day in shown), default=0.0)
    days = tuple(
        DayBar(
            day=day,
            value=usd(by_day[day]),
            of_highest_frac=by_day[day] / highest if highest else 0.0,
        )
        for day in shown
    )
    open_tasks = ledger.open_tasks()
    grids = (
        agent_grid(ledger, open_tasks),
        provider_grid(ledger),
        pool_grid(ledger),
        day_grid(ledger, by_day),
    )
    return Sheet(tiles=_tiles(ledger, open_tasks), grids=grids, days=days)


def _tiles(ledger: Ledger, open_tasks: tuple[OpenTask, ...]) -> tuple[Tile, ...]:
    met = sum(task.met_slo for task in ledger.tasks)
    used_usd = ledger.cost_usd
    rent_usd = math.fsum((*rents_usd(ledger).values(), _by_token_usd(ledger)))
    first_s, last_s = _span_s(ledger)
    return (
        Tile(label="time span", value=seconds(last_s - first_s), note=_span_told(first_s, last_s)),
        Tile(label="used", value=usd(used_usd), note=f"{count(len(ledger.attempts))} attempts"),
        Tile(
            label="paid, idle time included",
            value=usd(rent_usd),
            note=f"{percent(used_usd / rent_usd if rent_usd else None)} of it used",
        ),
        Tile(
            label="SLO attainment",
            value=percent(ledger.slo_attainment_frac if ledger.tasks else None),
            note=f"{count(met)} of {count(len(ledger.tasks))} ended tasks",
        ),
        Tile(
            label="goodput",
            value=per_second(ledger.goodput_per_s, "tasks"),
            note="ended tasks that met their SLO",
        ),
        Tile(
            label="budget left",
            value=usd(_left_usd(open_tasks)),
            note=f"of {count(len(open_tasks))} open tasks",
        ),
    )


def _left_usd(tasks: tuple[OpenTask, ...] | list[OpenTask]) -> float | None:
    """What may still be spent by tasks with a budget; None where none has one."""
    left = [max(0.0, one.budget_usd - one.cost_usd) for one in tasks if one.budget_usd is not None]
    return math.fsum(left) if left else None


def agent_grid(ledger: Ledger, open_tasks: tuple[OpenTask, ...]) -> Grid:
    """What did each agent cost, and did it keep its promises?

    Args:
        ledger: The books.
        open_tasks: Tasks that have not ended.

    Returns:
        One row per agent, the dearest first.
    """
    spent: dict[str, list[float]] = defaultdict(list)
    for attempt in ledger.attempts:
        spent[attempt.step.agent].append(attempt.cost_usd)
    ended: dict[str, list[TaskRecord]] = defaultdict(list)
    for task in ledger.tasks:
        ended[task.agent].append(task)
    still: dict[str, list[OpenTask]] = defaultdict(list)
    for one in open_tasks:
        still[one.agent].append(one)
    costs_usd = {agent: math.fsum(spent[agent]) for agent in {*spent, *ended, *still}}
    agents = sorted(costs_usd, key=lambda agent: (-costs_usd[agent], agent))
    money = (
        usd_alike([costs_usd[agent] for agent in agents]),
        usd_alike([costs_usd[one] / len(ended[one]) if ended[one] else None for one in agents]),
        usd_alike([_left_usd(still[agent]) for agent in agents]),
    )
    rows = [
        (
            name(agent) or "no agent",
            count(len(ended[agent])),
            count(len(still[agent])),
            cost,
            each,
            percent(_met_frac(ended[agent])),
            left,
        )
        for agent, cost, each, left in zip(agents, *money, strict=True)
    ]
    heads = ("ended", "open", "cost", "cost per ended task", "SLO attainment", "budget left")
    return Grid(
        title="By agent",
        origin="measured",
        columns=columns(("agent",), heads),
        rows=tuple(rows),
        note="Budget left is that of open tasks. A task that only requests name is open until a "
        "silence ends it.",
    )


def _met_frac(tasks: list[TaskRecord]) -> float | None:
    return sum(task.met_slo for task in tasks) / len(tasks) if tasks else None


def rents_usd(ledger: Ledger) -> dict[str, float]:
    """What did each pool's replicas cost while they were there, used or idle?

    From the first arrival to the last end of an attempt, not of a task as in a report: in a log
    that goes on, open tasks have used what must be paid, too.

    Args:
        ledger: The books.

    Returns:
        USD by pool; pools join and leave a live gateway.
    """
    first_s, last_s = _span_s(ledger)
    return {pool: rent.usd(first_s, last_s) for pool, rent in ledger.rents.items()}


def _span_s(ledger: Ledger) -> tuple[float, float]:
    """From when to when does the ledger reach? On the log's clock."""
    begun_s = [attempt.placed_s for attempt in ledger.attempts]
    ended_s = [attempt.finished_s for attempt in ledger.attempts]
    if ledger.tasks:
        begun_s.append(ledger.first_s)
        ended_s.append(ledger.last_s)
    return min(begun_s, default=0.0), max(ended_s, default=0.0)


def _span_told(first_s: float, last_s: float) -> str:
    if last_s <= 0.0:
        return "nothing has ended yet"
    first, last = (datetime.fromtimestamp(t_s, UTC) for t_s in (first_s, last_s))
    return f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"


def _by_token_usd(ledger: Ledger) -> float:
    return math.fsum(
        attempt.cost_usd
        for attempt in ledger.attempts
        if ledger.pools[attempt.decision.pool].token_price is not None
    )


def provider_grid(ledger: Ledger) -> Grid:
    """What did each provider get, and how much of it was used?

    Args:
        ledger: The books.

    Returns:
        One row per provider, the dearest first.
    """
    used: dict[str, list[float]] = defaultdict(list)
    by_token: dict[str, list[float]] = defaultdict(list)
    for attempt in ledger.attempts:
        spec = ledger.pools[attempt.decision.pool]
        used[spec.provider].append(attempt.cost_usd)
        if spec.token_price is not None:
            by_token[spec.provider].append(attempt.cost_usd)
    paid: dict[str, float] = {}
    rented = rents_usd(ledger)
    for provider in {spec.provider for spec in ledger.pools.values()}:
        rents = [rented[pool] for pool, spec in ledger.pools.items() if spec.provider == provider]
        paid[provider] = math.fsum((*rents, *by_token[provider]))
    total_usd = math.fsum(paid.values())
    providers = sorted(paid, key=lambda one: (-paid[one], one))
    used_usd = [math.fsum(used[provider]) for provider in providers]
    money = (usd_alike(used_usd), usd_alike([paid[provider] for provider in providers]))
    rows = [
        (
            name(provider),
            count(len(used[provider])),
            used_told,
            paid_told,
            percent(spent_usd / paid[provider] if paid[provider] else None),
            percent(paid[provider] / total_usd if total_usd else None),
        )
        for provider, spent_usd, used_told, paid_told in zip(
            providers, used_usd, *money, strict=True
        )
    ]
    return Grid(
        title="By provider",
        origin="measured",
        columns=columns(
            ("provider",), ("attempts", "used", "paid", "used of paid", "share of all paid")
        ),
        rows=tuple(rows),
        note="Paid: rent of all replicas from the first arrival to the last end of an attempt, "
        "used or idle, and what vendors charged per token.",
    )


def pool_grid(ledger: Ledger) -> Grid:
    """How much of each pool's rent was used?

    Args:
        ledger: The books.

    Returns:
        One row per pool, sorted by name.
    """
    used: dict[str, list[float]] = defaultdict(list)
    for attempt in ledger.attempts:
        used[attempt.decision.pool].append(attempt.cost_usd)
    rented = rents_usd(ledger)
    pools = sorted(ledger.pools.items())
    used_usd = [math.fsum(used[pool]) for pool, _ in pools]
    rents = [None if spec.token_price else rented[pool] for pool, spec in pools]
    rows = [
        (
            name(pool),
            spec.hardware,
            count(spec.replicas),
            count(len(used[pool])),
            used_told,
            rent_told,
            percent(spent_usd / rented[pool] if rented[pool] else None),
        )
        for (pool, spec), spent_usd, used_told, rent_told in zip(
            pools, used_usd, usd_alike(used_usd), usd_alike(rents), strict=True
        )
    ]
    return Grid(
        title="By pool",
        origin="measured",
        columns=columns(
            ("pool", "hardware"), ("replicas", "attempts", "used", "rent", "used of rent")
        ),
        rows=tuple(rows),
    )


def cost_by_day(ledger: Ledger) -> dict[str, float]:
    """What did the attempts cost that ended on each day, in USD?

    Args:
        ledger: The books of a live system, with times since 1970.

    Returns:
        By day in UTC.
    """
    spent: dict[int, list[float]] = defaultdict(list)
    for attempt in ledger.attempts:
        spent[int(attempt.finished_s // 86400)].append(attempt.cost_usd)
    return {_day(number): math.fsum(costs) for number, costs in spent.items()}


def _day(number: int) -> str:
    return datetime.fromtimestamp(number * 86400.0, UTC).strftime("%Y-%m-%d")


def day_grid(ledger: Ledger, by_day: dict[str, float]) -> Grid:
    """What did each day cost, and did its tasks keep their promises?

    Args:
        ledger: The books.
        by_day: See `cost_by_day`.

    Returns:
        One row per day, the newest first.
    """
    ended: dict[str, list[TaskRecord]] = defaultdict(list)
    for task in ledger.tasks:
        ended[_day(int(task.finished_s // 86400))].append(task)
    days = sorted({*by_day, *ended}, reverse=True)[:_DAYS]
    costs = usd_alike([by_day.get(day, 0.0) for day in days])
    rows = [
        (day, count(len(ended[day])), cost, percent(_met_frac(ended[day])))
        for day, cost in zip(days, costs, strict=True)
    ]
    return Grid(
        title="By day",
        origin="measured",
        columns=columns(("day, UTC",), ("tasks ended", "cost", "SLO attainment")),
        rows=tuple(rows),
        note=f"The newest {_DAYS} days.",
    )
