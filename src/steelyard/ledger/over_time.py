"""A run in buckets of time: what ran and waited, what it cost, how it did."""

import itertools
import math

import msgspec
import numpy as np

from steelyard.domain.units import SECONDS_PER_HOUR
from steelyard.ledger.latencies import Percentiles, by_kind, e2e_percentiles, ttft_percentiles
from steelyard.ledger.ledger import AttemptRecord, Ledger
from steelyard.ledger.power import ReplicaFacts
from steelyard.perf.predict import FloatArray

BUCKETS = 60
_Span = tuple[float, float]


class PoolOverTime(msgspec.Struct, frozen=True, kw_only=True):
    """A pool by bucket.

    Attributes:
        rented: Mean number of replicas that were rented.
        paid_usd: Rent, or the charge of a vendor for attempts that ended there.
        utilisation_frac: Used over paid for; an attempt's cost is spread over its run. Above 1
            where steps went on whose replica is charged by more than its time, 0 without rent.
        busy_frac: Share of the rented time in which a replica had anything to do.
        cached_frac: Share of the prompt tokens of attempts that ended there that was read from
            caches; None without prompts.
        gpu_hours: GPUs times hours rented.
        energy_kwh: Estimate; None without a source.
    """

    rented: tuple[float, ...]
    paid_usd: tuple[float, ...]
    utilisation_frac: tuple[float, ...]
    busy_frac: tuple[float, ...]
    cached_frac: tuple[float | None, ...]
    gpu_hours: tuple[float, ...]
    energy_kwh: tuple[float, ...] | None


class StepOverTime(msgspec.Struct, frozen=True, kw_only=True):
    """Latencies of the attempts of one kind that ended well in each bucket; None without any."""

    agent: str
    step: str
    ttft: tuple[Percentiles | None, ...]
    e2e: tuple[Percentiles | None, ...]


class TimeFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The run over time, in buckets of equal length.

    Attributes:
        bucket_s: Their length.
        running: Pool to the mean number of attempts that ran in each bucket.
        waiting: Mean number of attempts that waited.
        used_usd: Cost of the attempts that ended in each bucket.
        paid_usd: Rent, and charges of vendors, of each bucket.
        good_tasks: Tasks that ended there and met every SLO.
        tasks: All tasks that ended there.
        usd_per_task: Paid for each task that ended there; None where none did.
        slo_attainment_frac: Share of them that met every SLO; None where none ended.
        goodput_per_s: Tasks per second that did.
        gpu_hours: GPU-hours rented.
        energy_kwh: Sum over the pools with a source; None if none has one.
        pools: By pool.
        steps: By agent and step name.
    """

    bucket_s: float
    running: dict[str, tuple[float, ...]]
    waiting: tuple[float, ...]
    used_usd: tuple[float, ...]
    paid_usd: tuple[float, ...]
    good_tasks: tuple[int, ...]
    tasks: tuple[int, ...]
    usd_per_task: tuple[float | None, ...]
    slo_attainment_frac: tuple[float | None, ...]
    goodput_per_s: tuple[float, ...]
    gpu_hours: tuple[float, ...]
    energy_kwh: tuple[float, ...] | None
    pools: dict[str, PoolOverTime]
    steps: tuple[StepOverTime, ...]


class _Buckets:
    """Equal parts of a run's span."""

    def __init__(self, ledger: Ledger) -> None:
        self.first_s = ledger.first_s
        self.bucket_s = max(ledger.span_s, 1e-9) / BUCKETS
        self.edges_s: FloatArray = self.first_s + self.bucket_s * np.arange(
            BUCKETS + 1, dtype=np.float64
        )

    def at(self, t_s: float) -> int:
        """Which one holds a time? The first or last holds what lies beyond."""
        return min(BUCKETS - 1, max(0, int((t_s - self.first_s) / self.bucket_s)))

    def by_end(self, attempts: list[AttemptRecord]) -> list[list[AttemptRecord]]:
        """Attempts by the bucket in which they ended."""
        found: list[list[AttemptRecord]] = [[] for _ in range(BUCKETS)]
        for one in attempts:
            found[self.at(one.finished_s)].append(one)
        return found

    def sums_s(self, spans: list[_Span], weights: list[float] | None = None) -> FloatArray:
        """Seconds of all spans in each bucket, each times its weight; shape [buckets]."""
        if not spans:
            return np.zeros(BUCKETS, dtype=np.float64)
        factors = [1.0] * len(spans) if weights is None else weights
        # The integral of the level up to each edge, by sorted starts and ends with their sums.
        # From the first arrival on: sums of many times since 1970 lose the digits that count here.
        edges_s = self.bucket_s * np.arange(BUCKETS + 1, dtype=np.float64)
        total = _integral([one[0] - self.first_s for one in spans], factors, edges_s)
        total = total - _integral([one[1] - self.first_s for one in spans], factors, edges_s)
        return np.diff(total)

    def levels(self, spans: list[_Span]) -> tuple[float, ...]:
        """How many of the spans are open in each bucket, in the mean over the bucket?"""
        return _floats(self.sums_s(spans) / self.bucket_s)


def over_time(ledger: Ledger, facts: dict[str, ReplicaFacts]) -> TimeFigures:
    """How did a run go over time?

    Args:
        ledger: Its books.
        facts: What a replica of each pool is made of.

    Returns:
        Figures per bucket.
    """
    buckets = _Buckets(ledger)
    mine: dict[str, list[AttemptRecord]] = {name: [] for name in sorted(ledger.pools)}
    for one in ledger.attempts:
        mine[one.decision.pool].append(one)
    pools = {
        name: _pool(ledger, buckets, name, attempts, facts[name]) for name, attempts in mine.items()
    }
    waiting = [
        (one.placed_s, one.finished_s if one.started_s is None else one.started_s)
        for one in ledger.attempts
    ]
    done, good = [0] * BUCKETS, [0] * BUCKETS
    for task in ledger.tasks:
        done[buckets.at(task.finished_s)] += 1
        good[buckets.at(task.finished_s)] += task.met_slo
    paid_usd = _sum([one.paid_usd for one in pools.values()])
    energies = [one.energy_kwh for one in pools.values() if one.energy_kwh is not None]
    return TimeFigures(
        bucket_s=buckets.bucket_s,
        running={name: buckets.levels(_runs(attempts)) for name, attempts in mine.items()},
        waiting=buckets.levels(waiting),
        used_usd=tuple(
            math.fsum(one.cost_usd for one in some) for some in buckets.by_end(ledger.attempts)
        ),
        paid_usd=paid_usd,
        good_tasks=tuple(good),
        tasks=tuple(done),
        usd_per_task=tuple(p / n if n else None for p, n in zip(paid_usd, done, strict=True)),
        slo_attainment_frac=tuple(g / n if n else None for g, n in zip(good, done, strict=True)),
        goodput_per_s=tuple(one / buckets.bucket_s for one in good),
        gpu_hours=_sum([one.gpu_hours for one in pools.values()]),
        energy_kwh=_sum(energies) if energies else None,
        pools=pools,
        steps=tuple(
            _step(buckets, kind, attempts) for kind, attempts in by_kind(ledger.attempts).items()
        ),
    )


def _pool(
    ledger: Ledger,
    buckets: _Buckets,
    name: str,
    attempts: list[AttemptRecord],
    facts: ReplicaFacts,
) -> PoolOverTime:
    rent = ledger.rents[name]
    edges: list[float] = buckets.edges_s.tolist()
    spans = list(itertools.pairwise(edges))
    rented_s = np.array([rent.replica_s(*span) for span in spans])
    rent_usd = np.array([rent.usd(*span) for span in spans])
    runs = _runs(attempts)
    lasting = zip(_started(attempts), runs, strict=True)
    weights = [one.cost_usd / max(run[1] - run[0], 1e-12) for one, run in lasting]
    used_usd = buckets.sums_s(runs, weights)
    busy_s = buckets.sums_s(busy_spans(attempts))
    ended = buckets.by_end(attempts)
    charged = tuple(math.fsum(one.cost_usd for one in some) for some in ended)
    hours = (rented_s / SECONDS_PER_HOUR).tolist()
    energies = [
        facts.energy_kwh(rented_h, busy / SECONDS_PER_HOUR)
        for rented_h, busy in zip(hours, busy_s.tolist(), strict=True)
    ]
    known = [one for one in energies if one is not None]
    return PoolOverTime(
        rented=_floats(rented_s / buckets.bucket_s),
        paid_usd=_floats(rent_usd) if ledger.pools[name].token_price is None else charged,
        utilisation_frac=_shares(used_usd, rent_usd),
        busy_frac=_shares(busy_s, rented_s),
        cached_frac=tuple(cached_frac(some) for some in ended),
        gpu_hours=tuple(facts.gpus * one for one in hours),
        energy_kwh=tuple(known) if known else None,
    )


def _step(buckets: _Buckets, kind: tuple[str, str], attempts: list[AttemptRecord]) -> StepOverTime:
    ended = buckets.by_end(attempts)
    return StepOverTime(
        agent=kind[0],
        step=kind[1],
        ttft=tuple(ttft_percentiles(some) for some in ended),
        e2e=tuple(e2e_percentiles(some) for some in ended),
    )


def cached_frac(attempts: list[AttemptRecord]) -> float | None:
    """Which share of the prompts was read from caches? None without prompts."""
    prompt = sum(one.usage.input_tokens for one in attempts)
    return sum(one.usage.cached_tokens for one in attempts) / prompt if prompt else None


def busy_spans(attempts: list[AttemptRecord]) -> list[_Span]:
    """When did anything run? The union of the attempts' times on each replica."""
    by_replica: dict[int, list[_Span]] = {}
    for one, run in zip(_started(attempts), _runs(attempts), strict=True):
        by_replica.setdefault(one.decision.replica, []).append(run)
    busy: list[_Span] = []
    for spans in by_replica.values():
        reached_s = -math.inf
        for start_s, end_s in sorted(spans):
            if end_s > reached_s:
                busy.append((max(start_s, reached_s), end_s))
                reached_s = end_s
    return busy


def _started(attempts: list[AttemptRecord]) -> list[AttemptRecord]:
    return [one for one in attempts if one.started_s is not None]


def _runs(attempts: list[AttemptRecord]) -> list[_Span]:
    return [(one.started_s, one.finished_s) for one in attempts if one.started_s is not None]


def _sum(rows: list[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(math.fsum(column) for column in zip(*rows, strict=True)) or (0.0,) * BUCKETS


def _shares(parts: FloatArray, wholes: FloatArray) -> tuple[float, ...]:
    # Differences of long sums leave a rounding error below zero.
    shares = np.maximum(parts, 0.0) / np.where(wholes > 0.0, wholes, np.inf)
    return _floats(shares)


def _floats(values: FloatArray) -> tuple[float, ...]:
    return tuple(float(one) for one in values)


def _integral(times: list[float], weights: list[float], edges: FloatArray) -> FloatArray:
    """For each edge, the sum of weight x (edge - t) over the times t before it."""
    order = np.argsort(np.array(times, dtype=np.float64), kind="stable")
    ordered: FloatArray = np.array(times, dtype=np.float64)[order]
    factors: FloatArray = np.array(weights, dtype=np.float64)[order]
    heights = np.concatenate(([0.0], np.cumsum(factors)))
    sums = np.concatenate(([0.0], np.cumsum(factors * ordered)))
    before = np.searchsorted(ordered, edges)
    passed: FloatArray = heights[before] * edges - sums[before]
    return passed
