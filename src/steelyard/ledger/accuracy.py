"""How far were predictions off? Quantiles of measured over predicted, by kind of step."""

from collections.abc import Callable
from typing import Literal

import msgspec
import numpy as np

from steelyard.ledger.latencies import ttft_s
from steelyard.ledger.ledger import AttemptRecord, Ledger

Quantity = Literal["step time", "first token", "cost"]


class RatioQuantiles(msgspec.Struct, frozen=True, kw_only=True):
    """Measured over predicted of one quantity; 1 is a perfect prediction.

    Attributes:
        quantity: `step time` (placement to end), `first token` (placement to it), or `cost`.
        agent: The agent; empty for all steps together.
        step: Name of the step; empty for all together.
        count: Attempts that went well and had a prediction above 0.
        p10: 10th percentile of the ratios.
        p50: Their median.
        p90: 90th percentile.
        p99: 99th percentile.
    """

    quantity: Quantity
    agent: str
    step: str
    count: int
    p10: float
    p50: float
    p90: float
    p99: float


def prediction_ratios(ledger: Ledger) -> tuple[RatioQuantiles, ...]:
    """How did measurements compare with what was predicted at placement?

    Args:
        ledger: The books of a measured run.

    Returns:
        By quantity: all steps together first, then by agent and step name.
    """
    good = [one for one in ledger.attempts if one.outcome == "ok"]
    told: list[RatioQuantiles] = []
    for quantity, pair in _PAIRS:
        groups: dict[tuple[str, str], list[float]] = {}
        for one in good:
            measured, predicted = pair(one)
            if measured is not None and predicted > 0.0:
                ratio = measured / predicted
                groups.setdefault(("", ""), []).append(ratio)
                groups.setdefault((one.step.agent, one.step.name), []).append(ratio)
        told.extend(_quantiles(quantity, *key, groups[key]) for key in sorted(groups))
    return tuple(told)


def _quantiles(quantity: Quantity, agent: str, step: str, ratios: list[float]) -> RatioQuantiles:
    p10, p50, p90, p99 = (float(one) for one in np.percentile(ratios, (10, 50, 90, 99)))
    return RatioQuantiles(
        quantity=quantity, agent=agent, step=step, count=len(ratios),
        p10=p10, p50=p50, p90=p90, p99=p99,
    )  # fmt: skip


def _step_time(one: AttemptRecord) -> tuple[float | None, float]:
    return one.latency_s, one.decision.predicted_finish_s


def _first_token(one: AttemptRecord) -> tuple[float | None, float]:
    return ttft_s(one), one.decision.predicted_wait_s + one.decision.predicted_ttft_s


def _cost(one: AttemptRecord) -> tuple[float | None, float]:
    return one.cost_usd, one.decision.predicted_cost_usd


_Pair = Callable[[AttemptRecord], tuple[float | None, float]]
_PAIRS: tuple[tuple[Quantity, _Pair], ...] = (
    ("step time", _step_time),
    ("first token", _first_token),
    ("cost", _cost),
)
