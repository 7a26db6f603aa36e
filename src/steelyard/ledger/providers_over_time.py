"""What did each provider answer, fail and cost over time?"""

import math

import msgspec

from steelyard.ledger.health import HealthSpan
from steelyard.ledger.ledger import AttemptRecord, Ledger

# Answers that a provider is to blame for; a client that leaves is none.
_FAILED = "failed"


class ProviderOverTime(msgspec.Struct, frozen=True, kw_only=True):
    """One provider by bucket of time.

    Attributes:
        answered_per_s: Steps per second that ended well there.
        failed_per_s: Attempts per second that failed there.
        spend_frac: Its share of what the attempts that ended there cost; None where none did.
        answered: All steps that ended well.
        failed: All attempts that failed.
        spend_usd: What its attempts cost.
        unwell: When its pools were not whole, in seconds since the first task.
        pools: Names of its pools.
    """

    answered_per_s: tuple[float, ...]
    failed_per_s: tuple[float, ...]
    spend_frac: tuple[float | None, ...]
    answered: int
    failed: int
    spend_usd: float
    unwell: tuple[HealthSpan, ...]
    pools: tuple[str, ...]


class ProvidersOverTime(msgspec.Struct, frozen=True, kw_only=True):
    """All providers of a run.

    Attributes:
        first_s: When the first task arrived, on the log's clock.
        span_s: From then to the last end of an attempt.
        bucket_s: Length of a bucket.
        providers: By name.
    """

    first_s: float
    span_s: float
    bucket_s: float
    providers: dict[str, ProviderOverTime]


def providers_over_time(
    ledger: Ledger, health: tuple[HealthSpan, ...], buckets: int = 120
) -> ProvidersOverTime:
    """How did each provider do over time?

    Args:
        ledger: The books of a run.
        health: When pools were not whole.
        buckets: Into how many parts time is cut; a part is half a second at least.

    Returns:
        The figures.
    """
    first_s = ledger.first_s
    last_s = max((one.finished_s for one in ledger.attempts), default=first_s)
    span_s = max(last_s - first_s, 1e-9)
    bucket_s = max(0.5, span_s / buckets)
    count = max(1, math.ceil(span_s / bucket_s))
    mine: dict[str, list[AttemptRecord]] = {
        spec.provider: [] for spec in sorted(ledger.pools.values(), key=lambda one: one.provider)
    }
    for one in ledger.attempts:
        mine[ledger.pools[one.decision.pool].provider].append(one)
    spent = {
        name: _sums([(one.finished_s, one.cost_usd) for one in some], first_s, bucket_s, count)
        for name, some in mine.items()
    }
    totals = [math.fsum(column) for column in zip(*spent.values(), strict=True)]
    providers = {
        name: ProviderOverTime(
            answered_per_s=_rates(some, "ok", first_s, bucket_s, count),
            failed_per_s=_rates(some, _FAILED, first_s, bucket_s, count),
            spend_frac=tuple(
                part / total if total > 0.0 else None
                for part, total in zip(spent[name], totals, strict=True)
            ),
            answered=sum(one.outcome == "ok" for one in some),
            failed=sum(one.outcome == _FAILED for one in some),
            spend_usd=math.fsum(one.cost_usd for one in some),
            unwell=tuple(
                _since(one, first_s, span_s)
                for one in health
                if ledger.pools[one.pool].provider == name and one.start_s <= last_s
            ),
            pools=tuple(sorted(p for p, spec in ledger.pools.items() if spec.provider == name)),
        )
        for name, some in mine.items()
    }
    return ProvidersOverTime(first_s=first_s, span_s=span_s, bucket_s=bucket_s, providers=providers)


def _since(span: HealthSpan, first_s: float, span_s: float) -> HealthSpan:
    start_s, end_s = max(0.0, span.start_s - first_s), min(span_s, span.end_s - first_s)
    return msgspec.structs.replace(span, start_s=start_s, end_s=max(start_s, end_s))


def _rates(
    attempts: list[AttemptRecord], outcome: str, first_s: float, bucket_s: float, count: int
) -> tuple[float, ...]:
    ends = [(one.finished_s, 1.0) for one in attempts if one.outcome == outcome]
    return tuple(one / bucket_s for one in _sums(ends, first_s, bucket_s, count))


def _sums(
    amounts: list[tuple[float, float]], first_s: float, bucket_s: float, count: int
) -> list[float]:
    parts: list[list[float]] = [[] for _ in range(count)]
    for t_s, amount in amounts:
        parts[min(count - 1, max(0, int((t_s - first_s) / bucket_s)))].append(amount)
    return [math.fsum(one) for one in parts]
