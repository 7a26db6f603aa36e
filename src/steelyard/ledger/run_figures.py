"""What did a whole run come to? Cost, latency by kind of step, use of pools, energy, over time."""

import math

import msgspec
import numpy as np

from steelyard.domain.pool import PoolSpec
from steelyard.domain.units import SECONDS_PER_HOUR, rental_usd
from steelyard.ledger.ledger import AttemptRecord, Ledger
from steelyard.perf.predict import FloatArray

_BUCKETS = 60


class ReplicaFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica is made of, beyond what placement must know.

    Attributes:
        gpus: Number of its GPUs.
        watts_idle: Estimated power when idle; None without a source.
        watts_max: Estimated power at full load; None without a source.
    """

    gpus: int = 0
    watts_idle: float | None = None
    watts_max: float | None = None


class Percentiles(msgspec.Struct, frozen=True, kw_only=True):
    """Median, 95th and 99th percentile, in seconds."""

    p50_s: float
    p95_s: float
    p99_s: float


class StepFigures(msgspec.Struct, frozen=True, kw_only=True):
    """All attempts of one step name of one agent that went well.

    Attributes:
        agent: The agent.
        step: Name of the step.
        kind: `llm` or `tool`.
        count: How many.
        ttft: Placement to first token, the queue included; None for tools.
        e2e: Placement to end.
    """

    agent: str
    step: str
    kind: str
    count: int
    ttft: Percentiles | None
    e2e: Percentiles


class PoolFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How a pool was used.

    Attributes:
        pool: Its name.
        hardware: `gpu`, `arm`, `x86` or `vendor`.
        replicas: How many.
        attempts: Attempts that ended there.
        used_usd: Cost of what was used.
        paid_usd: Rent, idle time included, or the vendor's charge.
        utilisation_frac: Used over paid for; 0 for a pool without rent.
        busy_frac: Share of the time for which a replica had anything to do.
        cached_frac: Share of the prompt tokens read from its caches; None without prompts.
        gpu_hours: GPUs times hours rented.
        energy_kwh: Estimate from idle and full power, by `busy_frac`; None without a source.
    """

    pool: str
    hardware: str
    replicas: int
    attempts: int
    used_usd: float
    paid_usd: float
    utilisation_frac: float
    busy_frac: float
    cached_frac: float | None
    gpu_hours: float
    energy_kwh: float | None


class TimeFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The run over time, in buckets of equal length.

    Attributes:
        bucket_s: Their length.
        running: Pool to the mean number of attempts that ran in each bucket.
        waiting: Mean number of attempts that waited.
        used_usd: Cost of the attempts that ended in each bucket.
        good_tasks: Tasks that ended there and met every SLO.
        tasks: All tasks that ended there.
    """

    bucket_s: float
    running: dict[str, tuple[float, ...]]
    waiting: tuple[float, ...]
    used_usd: tuple[float, ...]
    good_tasks: tuple[int, ...]
    tasks: tuple[int, ...]


class RunFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to.

    Attributes:
        tasks: Tasks that ended.
        span_s: First arrival to last end.
        cost_usd: Cost of what was used.
        paid_usd: What was paid, idle time included.
        usd_per_task: Paid, for one task.
        used_usd_per_task: Used, for one task.
        slo_attainment_frac: Share of the tasks that met every SLO.
        goodput_per_s: Tasks per second that did.
        refused: Steps that were refused.
        gpu_hours: GPU-hours rented.
        energy_kwh: Sum over the pools with a source; None if none has one.
        steps: By agent and step name.
        pools: By pool.
        over_time: The same over time.
    """

    tasks: int
    span_s: float
    cost_usd: float
    paid_usd: float
    usd_per_task: float
    used_usd_per_task: float
    slo_attainment_frac: float
    goodput_per_s: float
    refused: int
    gpu_hours: float
    energy_kwh: float | None
    steps: tuple[StepFigures, ...]
    pools: tuple[PoolFigures, ...]
    over_time: TimeFigures


def run_figures(ledger: Ledger, facts: dict[str, ReplicaFacts] | None = None) -> RunFigures:
    """What did a run come to?

    Args:
        ledger: Its books.
        facts: What replicas of each pool are made of; GPUs count as one per GPU replica and power
            as unknown where it is left out.

    Returns:
        The figures.
    """
    known = facts or {}
    pools = tuple(
        _pool(ledger, spec, known.get(name, ReplicaFacts(gpus=int(spec.hardware == "gpu"))))
        for name, spec in sorted(ledger.pools.items())
    )
    tasks = len(ledger.tasks)
    energies = [one.energy_kwh for one in pools if one.energy_kwh is not None]
    return RunFigures(
        tasks=tasks,
        span_s=ledger.span_s,
        cost_usd=ledger.cost_usd,
        paid_usd=ledger.rent_usd,
        usd_per_task=ledger.rent_usd / tasks if tasks else 0.0,
        used_usd_per_task=ledger.cost_usd / tasks if tasks else 0.0,
        slo_attainment_frac=ledger.slo_attainment_frac,
        goodput_per_s=ledger.goodput_per_s,
        refused=len(ledger.refused),
        gpu_hours=math.fsum(one.gpu_hours for one in pools),
        energy_kwh=math.fsum(energies) if energies else None,
        steps=_steps(ledger),
        pools=pools,
        over_time=_over_time(ledger),
    )


def _steps(ledger: Ledger) -> tuple[StepFigures, ...]:
    groups: dict[tuple[str, str], list[AttemptRecord]] = {}
    for attempt in ledger.attempts:
        if attempt.outcome == "ok":
            groups.setdefault((attempt.step.agent, attempt.step.name), []).append(attempt)
    return tuple(_step(*key, groups[key]) for key in sorted(groups))


def _step(agent: str, step: str, attempts: list[AttemptRecord]) -> StepFigures:
    ttfts_s = [
        one.started_s - one.placed_s + one.usage.start_to_first_token_s
        for one in attempts
        if one.started_s is not None and one.usage.start_to_first_token_s is not None
    ]
    return StepFigures(
        agent=agent,
        step=step,
        kind=attempts[0].step.kind,
        count=len(attempts),
        ttft=_percentiles(ttfts_s) if ttfts_s else None,
        e2e=_percentiles([one.latency_s for one in attempts]),
    )


def _percentiles(values_s: list[float]) -> Percentiles:
    p50, p95, p99 = (float(one) for one in np.percentile(values_s, (50, 95, 99)))
    return Percentiles(p50_s=p50, p95_s=p95, p99_s=p99)


def _pool(ledger: Ledger, spec: PoolSpec, facts: ReplicaFacts) -> PoolFigures:
    mine = [one for one in ledger.attempts if one.decision.pool == spec.name]
    used_usd = math.fsum(one.cost_usd for one in mine)
    rented_s = ledger.rented_s(spec.name)
    hours = spec.replicas * rented_s / SECONDS_PER_HOUR
    rent_usd = rental_usd(spec.usd_per_hour * spec.replicas, rented_s)
    paid_usd = used_usd if spec.token_price is not None else rent_usd
    busy_frac = _busy_s(mine) / (spec.replicas * rented_s) if hours > 0.0 else 0.0
    prompt = sum(one.usage.input_tokens for one in mine)
    energy_kwh = None
    if facts.watts_idle is not None and facts.watts_max is not None:
        watts = facts.watts_idle + min(1.0, busy_frac) * (facts.watts_max - facts.watts_idle)
        energy_kwh = watts * hours / 1000.0
    return PoolFigures(
        pool=spec.name,
        hardware=spec.hardware,
        replicas=spec.replicas,
        attempts=len(mine),
        used_usd=used_usd,
        paid_usd=paid_usd,
        utilisation_frac=used_usd / rent_usd if rent_usd > 0.0 else 0.0,
        busy_frac=busy_frac,
        cached_frac=sum(one.usage.cached_tokens for one in mine) / prompt if prompt else None,
        gpu_hours=facts.gpus * hours,
        energy_kwh=energy_kwh,
    )


def _busy_s(attempts: list[AttemptRecord]) -> float:
    """Replica-seconds in which anything ran: the union of the attempts' times on each replica."""
    by_replica: dict[int, list[tuple[float, float]]] = {}
    for one in attempts:
        if one.started_s is not None:
            spans = by_replica.setdefault(one.decision.replica, [])
            spans.append((one.started_s, one.finished_s))
    busy: list[float] = []
    for spans in by_replica.values():
        reached_s = -math.inf
        for start_s, end_s in sorted(spans):
            busy.append(max(0.0, end_s - max(start_s, reached_s)))
            reached_s = max(reached_s, end_s)
    return math.fsum(busy)


def _over_time(ledger: Ledger) -> TimeFigures:
    first_s = min((task.submitted_s for task in ledger.tasks), default=0.0)
    bucket_s = max(ledger.span_s, 1e-9) / _BUCKETS

    def bucket(t_s: float) -> int:
        return min(_BUCKETS - 1, max(0, int((t_s - first_s) / bucket_s)))

    used_usd = [0.0] * _BUCKETS
    for one in ledger.attempts:
        used_usd[bucket(one.finished_s)] += one.cost_usd
    done, good = [0] * _BUCKETS, [0] * _BUCKETS
    for task in ledger.tasks:
        done[bucket(task.finished_s)] += 1
        good[bucket(task.finished_s)] += task.met_slo
    running = {
        name: [
            (one.started_s, one.finished_s)
            for one in ledger.attempts
            if one.decision.pool == name and one.started_s is not None
        ]
        for name in sorted(ledger.pools)
    }
    waiting = [
        (one.placed_s, one.finished_s if one.started_s is None else one.started_s)
        for one in ledger.attempts
    ]
    return TimeFigures(
        bucket_s=bucket_s,
        running={name: _mean_level(spans, first_s, bucket_s) for name, spans in running.items()},
        waiting=_mean_level(waiting, first_s, bucket_s),
        used_usd=tuple(used_usd),
        good_tasks=tuple(good),
        tasks=tuple(done),
    )


def _mean_level(
    spans: list[tuple[float, float]], first_s: float, bucket_s: float
) -> tuple[float, ...]:
    """How many of the spans are open in each bucket, in the mean over the bucket?"""
    if not spans:
        return (0.0,) * _BUCKETS
    # The integral of the level up to each edge, by sorted starts and ends with their sums.
    edges: FloatArray = first_s + bucket_s * np.arange(_BUCKETS + 1, dtype=np.float64)
    total = _integral([one[0] for one in spans], edges) - _integral(
        [one[1] for one in spans], edges
    )
    return tuple(float(one) for one in np.diff(total) / bucket_s)


def _integral(times: list[float], edges: FloatArray) -> FloatArray:
    """For each edge, the sum of edge - t over the times t before it."""
    ordered: FloatArray = np.sort(np.array(times, dtype=np.float64))
    sums = np.concatenate(([0.0], np.cumsum(ordered)))
    before = np.searchsorted(ordered, edges)
    passed: FloatArray = before * edges - sums[before]
    return passed
