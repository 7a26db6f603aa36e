"""A durable step for which providers' spend caps have no room waits until they may have.

Where what has been spent fills a cap, that is when its hour or day is over. Where only the
predictions of steps under way do, it is soon: the step asks again after 2 s, then after twice as
long each time, a minute at most. While it waits its task is parked like one that sleeps.
"""

import datetime as dt

from steelyard.domain.events import StepRefused
from steelyard.errors import SpendCapError
from steelyard.fleet.provider_spend import SECONDS_PER_DAY
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.journal import CapWait, Journal, StepRecord
from steelyard.runtime.waits import Wait, Waits

# A step of a task without a deadline waits no longer, over all hours and days.
LONGEST_WAIT_S = 7.0 * SECONDS_PER_DAY
_FIRST_PAUSE_S = 2.0
_LONGEST_PAUSE_S = 60.0


class CapWaits:
    """The waits of one task.

    Args:
        task_id: The task.
        dispatcher: Knows pools and caps; reads the journal.
        waits: Told that the task only waits.
    """

    def __init__(self, task_id: str, dispatcher: Dispatcher, waits: Waits) -> None:
        self._task_id = task_id
        self._dispatcher = dispatcher
        self._waits = waits

    async def refused(self, path: str, error: SpendCapError) -> tuple[int, CapWait]:
        """A step was refused: until when is it to wait?

        Args:
            path: Its place in the program.
            error: The refusal, which is in the log.

        Returns:
            How many attempts at it were placed before, and the wait.

        Raises:
            SpendCapError: There is nothing to wait for, or not before its deadline.
        """
        events = await self._dispatcher.journal(self._task_id)
        record = Journal.of(events).steps.get(path)
        refusals = [
            one.refusal for one in events if isinstance(one, StepRefused) and one.step.path == path
        ]
        if record is None or not refusals:
            raise error
        caps: dict[str, float] = {}
        for verdict in refusals[-1].verdicts:
            spec = self._dispatcher.state.spec(verdict.pool)
            usd = verdict.predicted_cost_usd
            # Of all that refuse it, those over their caps alone have predicted what it costs.
            if spec is not None and usd is not None:
                caps[spec.provider] = min(usd, caps.get(spec.provider, usd))
        now_s, before = self._dispatcher.now_s(), record.cap_wait
        since_s = now_s if before is None else before.since_s
        count = 1 if before is None else before.refusals + 1
        wait = CapWait(
            caps=caps,
            pools=tuple(one.pool for one in refusals[-1].verdicts),
            since_s=since_s,
            until_s=now_s + self._pause_s(caps, count, now_s, error),
            refusals=count,
        )
        self._check_patience(wait, error)
        return record.attempts, wait

    async def sit_out(self, wait: CapWait) -> None:
        """Wait; no longer than needed where a cap was raised or a pool has joined meanwhile."""
        now_s = self._dispatcher.now_s
        with self._waits.waiting(Wait(until_s=wait.until_s)):
            while now_s() < wait.until_s and not self._has_changed(wait, now_s()):
                await self._dispatcher.placing.wait_for_change(wait.until_s - now_s())

    def _pause_s(
        self, caps: dict[str, float], count: int, now_s: float, error: SpendCapError
    ) -> float:
        spend, deadline_s = self._dispatcher.state.spend, self._deadline_s()
        found = [spend.room_after_s(name, usd, now_s) for name, usd in sorted(caps.items())]
        pauses_s = [one for one in found if one is not None]
        if not pauses_s:
            raise SpendCapError(
                f"{error}; it would cost more than a whole hour or day may, so that no wait helps"
            ) from error
        if min(pauses_s) > 0.0:
            return min(pauses_s)
        pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(count - 1, 10))
        if deadline_s is not None:
            # Half of what is left, so that there are several tries before the deadline.
            pause_s = max(_FIRST_PAUSE_S, min(pause_s, (deadline_s - now_s) / 2.0))
        return pause_s

    def _check_patience(self, wait: CapWait, error: SpendCapError) -> None:
        deadline_s = self._deadline_s()
        if deadline_s is not None and wait.until_s >= deadline_s:
            raise SpendCapError(
                f"{error}; the task's deadline is {moment(deadline_s)}, and there may be room from "
                f"{moment(wait.until_s)} on"
            ) from error
        if deadline_s is None and wait.until_s - wait.since_s > LONGEST_WAIT_S:
            raise SpendCapError(
                f"{error}; it has waited since {moment(wait.since_s)}, and without a deadline no "
                f"step waits more than {LONGEST_WAIT_S / SECONDS_PER_DAY:.0f} days"
            ) from error

    def _has_changed(self, wait: CapWait, now_s: float) -> bool:
        """Is there room before it was to be expected, or a pool that was not asked?"""
        if wait.until_s - now_s <= _LONGEST_PAUSE_S:
            return False
        state = self._dispatcher.state
        if any(spec.name not in wait.pools for spec in state.pools):
            return True
        return any(state.spend.room_after_s(*one, now_s) == 0.0 for one in wait.caps.items())

    def _deadline_s(self) -> float | None:
        terms = self._dispatcher.task_terms(self._task_id)
        return None if terms is None else terms.deadline_s


def told_wait(record: StepRecord) -> str:
    """What does a step wait for, in a sentence for people? Empty where not for caps."""
    wait = record.cap_wait
    if wait is None:
        return ""
    return (
        f"step {record.step_id} ({record.name}) waits for room under the spend cap of "
        f"{', '.join(sorted(wait.caps))}, since {moment(wait.since_s)}; it asks again at "
        f"{moment(wait.until_s)}"
    )


def moment(t_s: float) -> str:
    """A time for people.

    >>> moment(0.0)
    '1970-01-01 00:00:00 UTC'
    """
    return dt.datetime.fromtimestamp(t_s, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
