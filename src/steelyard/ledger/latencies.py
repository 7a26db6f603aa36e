"""How long did steps take? Percentiles by kind of step."""

import msgspec
import numpy as np

from steelyard.ledger.ledger import AttemptRecord


class Percentiles(msgspec.Struct, frozen=True, kw_only=True):
    """Median, 95th and 99th percentile, in seconds."""

    p50_s: float
    p95_s: float
    p99_s: float

    @classmethod
    def of(cls, values_s: list[float]) -> "Percentiles | None":
        """Of some values; None without any."""
        if not values_s:
            return None
        p50, p95, p99 = (float(one) for one in np.percentile(values_s, (50, 95, 99)))
        return cls(p50_s=p50, p95_s=p95, p99_s=p99)


def ttft_s(attempt: AttemptRecord) -> float | None:
    """Seconds from placement to first token, the queue included; None without one."""
    to_first_s = attempt.usage.start_to_first_token_s
    if attempt.started_s is None or to_first_s is None:
        return None
    return attempt.started_s - attempt.placed_s + to_first_s


def ttft_percentiles(attempts: list[AttemptRecord]) -> Percentiles | None:
    """Of the times to the first token; None where no attempt has one."""
    return Percentiles.of([one for one in map(ttft_s, attempts) if one is not None])


def e2e_percentiles(attempts: list[AttemptRecord]) -> Percentiles | None:
    """Of the times from placement to end; None without attempts."""
    return Percentiles.of([one.latency_s for one in attempts])


def by_kind(attempts: list[AttemptRecord]) -> dict[tuple[str, str], list[AttemptRecord]]:
    """Attempts that went well by agent and step name, sorted by them."""
    groups: dict[tuple[str, str], list[AttemptRecord]] = {}
    for attempt in attempts:
        if attempt.outcome == "ok":
            groups.setdefault((attempt.step.agent, attempt.step.name), []).append(attempt)
    return dict(sorted(groups.items()))
