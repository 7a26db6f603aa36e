"""Which hardware was cheaper for a kind of step, by what the policy predicted when it placed it?"""

import math
from collections import Counter

import msgspec

from steelyard.domain.decision import PoolVerdict
from steelyard.ledger.ledger import AttemptRecord, Ledger

# These pools could have met the deadline; the others could not, or could not run the step at all.
_ABLE = frozenset({"dearer", "later"})


class StepMargin(msgspec.Struct, frozen=True, kw_only=True):
    """The steps of one kind that ran well on one class of hardware, and what another would cost.

    Attributes:
        agent: The agent.
        step: Name of the step.
        hardware: Class of the pools that took them.
        steps: How many.
        measured_usd: What one cost, in the mean.
        predicted_usd: What one was predicted to cost, in the mean.
        compared: Steps for which a pool of another class could have met the deadline.
        compared_usd: What one of these was predicted to cost where it ran; None without any.
        rival_usd: The same in the cheapest pool of any other class; None without any.
        rival_hardware: The class that was cheapest most often; empty without any.
    """

    agent: str
    step: str
    hardware: str
    steps: int
    measured_usd: float
    predicted_usd: float
    compared: int
    compared_usd: float | None
    rival_usd: float | None
    rival_hardware: str

    @property
    def saved_usd(self) -> float | None:
        """What was saved per step against the other class; negative where it lost."""
        if self.compared_usd is None or self.rival_usd is None:
            return None
        return self.rival_usd - self.compared_usd


def step_margins(ledger: Ledger) -> tuple[StepMargin, ...]:
    """What did each kind of step cost beside the cheapest other hardware that was in time?

    Args:
        ledger: The books of a run.

    Returns:
        One per agent, step name and class of hardware, sorted by them.
    """
    groups: dict[tuple[str, str, str], list[AttemptRecord]] = {}
    for one in ledger.attempts:
        if one.outcome == "ok":
            hardware = ledger.pools[one.decision.pool].hardware
            groups.setdefault((one.step.agent, one.step.name, hardware), []).append(one)
    return tuple(_margin(ledger, key, groups[key]) for key in sorted(groups))


def _margin(ledger: Ledger, key: tuple[str, str, str], attempts: list[AttemptRecord]) -> StepMargin:
    agent, step, hardware = key
    pairs: list[tuple[float, float]] = []
    classes: Counter[str] = Counter()
    for one in attempts:
        rival = _rival(ledger, one, hardware)
        if rival is not None:
            rival_usd, rival_hardware = rival
            pairs.append((one.decision.predicted_cost_usd, rival_usd))
            classes[rival_hardware] += 1
    return StepMargin(
        agent=agent,
        step=step,
        hardware=hardware,
        steps=len(attempts),
        measured_usd=_mean([one.cost_usd for one in attempts]),
        predicted_usd=_mean([one.decision.predicted_cost_usd for one in attempts]),
        compared=len(pairs),
        compared_usd=_mean([mine for mine, _ in pairs]) if pairs else None,
        rival_usd=_mean([theirs for _, theirs in pairs]) if pairs else None,
        rival_hardware=min(classes, key=lambda name: (-classes[name], name), default=""),
    )


def _rival(ledger: Ledger, attempt: AttemptRecord, hardware: str) -> tuple[float, str] | None:
    """Predicted cost and class of the cheapest pool of another class that was in time."""
    found = [
        (verdict.predicted_cost_usd, ledger.pools[verdict.pool].hardware)
        for verdict in attempt.decision.verdicts
        if _is_able(verdict)
        and verdict.predicted_cost_usd is not None
        and verdict.pool in ledger.pools
        and ledger.pools[verdict.pool].hardware != hardware
    ]
    return min(found, default=None)


def _is_able(verdict: PoolVerdict) -> bool:
    return verdict.verdict in _ABLE


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
