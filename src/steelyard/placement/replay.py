"""Would the policy decide the same again? Replays a log and asks it at every placement."""

from collections.abc import Iterable, Iterator

import msgspec

from steelyard.domain.decision import Decision, Refusal
from steelyard.domain.events import Event, StepPlaced, StepRefused
from steelyard.domain.task import Step
from steelyard.fleet.state import FleetState
from steelyard.placement.elsewhere import decide_elsewhere
from steelyard.placement.policy import Policy


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """One placement of a log, as recorded and as decided again.

    Attributes:
        step: The step.
        recorded: What the log says.
        decided: What the policy says on the replayed view.
    """

    step: Step
    recorded: Decision | Refusal
    decided: Decision | Refusal

    @property
    def same(self) -> bool:
        """Are both equal in every field, predictions included?"""
        return self.recorded == self.decided


def replay(events: Iterable[Event], policy: Policy) -> Iterator[Replayed]:
    """What would a policy have decided at every placement of a log?

    The log is folded anew; each placement is decided on the view at its own moment. Requests that
    were written down at their end (`RequestServed`) are put where they began: events go by time.

    Args:
        events: The log.
        policy: The one that was used, to check the log; another one, to compare.

    Yields:
        Every placement and refusal.
    """
    state = FleetState()
    for event in sorted(events, key=lambda one: one.t_s):
        match event:
            case StepPlaced(step=step, decision=decision):
                decided = decide_elsewhere(policy, step, state.view(step, event.t_s))
                yield Replayed(step=step, recorded=decision, decided=decided)
            case StepRefused(step=step, refusal=refusal):
                decided = decide_elsewhere(policy, step, state.view(step, event.t_s))
                yield Replayed(step=step, recorded=refusal, decided=decided)
            case _:
                pass
        state.apply(event)
