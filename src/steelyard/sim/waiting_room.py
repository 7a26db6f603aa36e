"""Steps that wait for a pool to come back instead of being refused, as live."""

import math
from collections.abc import Callable
from functools import partial

from steelyard.domain.task import Step
from steelyard.sim.agenda import Agenda
from steelyard.sim.tasks import SimTask

# A breaker closes by time alone, which no event announces; live looks as often.
_LOOK_AGAIN_S = 0.5

_Key = tuple[str, int, int]
# Told the task, the step's place in it, the step and the time.
Look = Callable[[SimTask, int, Step, float], None]


class WaitingRoom:
    """Steps for which every pool that could run them is down.

    Args:
        agenda: The clock.
        patience_s: Longest wait, at most to the deadline of the step.
        look: Asks the policy again.
    """

    def __init__(self, agenda: Agenda, patience_s: float, look: Look) -> None:
        self._agenda = agenda
        self._patience_s = patience_s
        self._look = look
        self._give_up_s: dict[_Key, float] = {}
        self._inside: dict[_Key, tuple[SimTask, int, Step]] = {}
        # The look that counts; those entered before it are void.
        self._looks: dict[_Key, int] = {}
        self._all_look = False

    def take(self, run: SimTask, at: int, step: Step, now_s: float) -> bool:
        """Let a step wait, unless it has waited for as long as it may.

        Args:
            run: Its task.
            at: Its place in the task.
            step: The step.
            now_s: Simulated time.

        Returns:
            Whether it waits.
        """
        key = _key(step)
        if key not in self._give_up_s:
            deadline_s = math.inf if step.deadline_s is None else step.deadline_s
            self._give_up_s[key] = min(now_s + self._patience_s, deadline_s)
        left_s = self._give_up_s[key] - now_s
        if left_s <= 0.0:
            self.leave(step)
            return False
        self._inside[key] = (run, at, step)
        self._enter(key, now_s + min(_LOOK_AGAIN_S, left_s))
        return True

    def leave(self, step: Step) -> None:
        """A step waits no more."""
        for told in (self._inside, self._give_up_s, self._looks):
            told.pop(_key(step), None)

    def look_soon(self, now_s: float) -> None:
        """A replica is up again: those who wait ask at once."""
        # A pool comes back replica by replica in one moment; one look after all of them is enough.
        if not self._all_look:
            self._all_look = True
            self._agenda.at(now_s, self._ask_all)

    def _enter(self, key: _Key, at_s: float) -> None:
        self._looks[key] = self._looks.get(key, 0) + 1
        self._agenda.at(at_s, partial(self._ask, key, self._looks[key]))

    def _ask(self, key: _Key, look: int, now_s: float) -> None:
        if self._looks.get(key) == look:
            self._look(*self._inside.pop(key), now_s)

    def _ask_all(self, now_s: float) -> None:
        self._all_look = False
        for key in tuple(self._inside):
            self._look(*self._inside.pop(key), now_s)


def _key(step: Step) -> _Key:
    return (step.task_id, step.step_id, step.attempt)
