"""Where does a step go that has failed, or is late? To another place, where there is one."""

from collections.abc import Iterator

import msgspec
import numpy as np

from steelyard.domain.decision import Decision, PoolVerdict, Refusal, Verdict
from steelyard.domain.task import Step
from steelyard.fleet.view import FleetView
from steelyard.perf.predict import BoolArray
from steelyard.placement.policy import Policy


def decide_elsewhere(policy: Policy, step: Step, view: FleetView) -> Decision | Refusal:
    """Ask a policy, and keep a retry away from where the step failed, a hedge from where it runs.

    The policy is shown the fleet without the pools that failed; if it finds no place in time
    there, without the replicas alone; then without the last one; then as it is. Of places that
    are all late, the least late counts, and elsewhere before where it failed. Live, simulated
    and replayed steps come through here; a first attempt is the policy's alone. Replicas on which
    an attempt at the step is under way are never shown: a second one there would wait behind it.

    Args:
        policy: Who decides.
        step: The step to be placed.
        view: The fleet as the step sees it, with `failed_at`.

    Returns:
        The decision or refusal.
    """
    if view.under_way_at:
        return _beside(policy, step, view)
    return _elsewhere(policy, step, view)


def _beside(policy: Policy, step: Step, view: FleetView) -> Decision | Refusal:
    up: BoolArray = view.up.copy()
    up[np.array(view.under_way_at, dtype=np.int64)] = False
    shown = msgspec.structs.replace(view, up=up, under_way_at=())
    answer = _elsewhere(policy, step, shown)
    told = _renamed(answer.verdicts, view, up, "under_way")
    if isinstance(answer, Refusal):
        return msgspec.structs.replace(answer, verdicts=told)
    reason = f"{answer.reason}; beside an attempt that is late"
    return msgspec.structs.replace(answer, verdicts=told, reason=reason)


def _elsewhere(policy: Policy, step: Step, view: FleetView) -> Decision | Refusal:
    late: Decision | None = None
    for up in _hidden(view):
        answer = policy(step, msgspec.structs.replace(view, up=up))
        if isinstance(answer, Refusal):
            continue
        if _in_time(answer):
            return _told(answer, view, up)
        if late is None or (answer.slack_s or 0.0) > (late.slack_s or 0.0):
            late = _told(answer, view, up)
    answer = policy(step, view)
    if late is None or (isinstance(answer, Decision) and _in_time(answer)):
        return answer
    return late


def _in_time(decision: Decision) -> bool:
    return decision.slack_s is None or decision.slack_s >= 0.0


def _hidden(view: FleetView) -> Iterator[BoolArray]:
    """Which replicas are shown, the fewest first? Nothing where nothing that is up is hidden."""
    if not view.failed_at:
        return
    places = np.array(view.failed_at, dtype=np.int64)
    pools = np.searchsorted(view.offsets, places, side="right") - 1
    whole = np.repeat(np.isin(np.arange(len(view.pools)), pools), np.diff(view.offsets))
    seen = view.up
    for hidden in (np.flatnonzero(whole), places, places[-1:]):
        up: BoolArray = view.up.copy()
        up[hidden] = False
        if not np.array_equal(up, seen):
            seen = up
            if not np.array_equal(up, view.up):
                yield up


def _told(decision: Decision, view: FleetView, up: BoolArray) -> Decision:
    """Say of pools that were hidden that they failed, not that they are down."""
    return msgspec.structs.replace(
        decision,
        verdicts=_renamed(decision.verdicts, view, up, "just_failed"),
        reason=f"{decision.reason}; not where it just failed",
    )


def _renamed(
    verdicts: tuple[PoolVerdict, ...], view: FleetView, up: BoolArray, verdict: Verdict
) -> tuple[PoolVerdict, ...]:
    """Verdicts that tell why pools were hidden that are up."""
    told: list[PoolVerdict] = []
    for pool, one in enumerate(verdicts):
        mine = slice(int(view.offsets[pool]), int(view.offsets[pool + 1]))
        gone = one.verdict == "down" and view.closed[pool] and bool(view.up[mine].any())
        hidden = gone and not bool(up[mine].any())
        told.append(PoolVerdict(pool=one.pool, verdict=verdict) if hidden else one)
    return tuple(told)
