"""Two attempts at one step at once: the first that answers goes on, the other one is cut short."""

import asyncio

import msgspec

from steelyard.domain.decision import Decision
from steelyard.domain.task import Step
from steelyard.errors import PoolError, SteelyardBugError, SteelyardError
from steelyard.pools.backend import LlmChunk, ReadFlow, RelayedAnswer, RelayRequest
from steelyard.runtime.attempt import Attempt
from steelyard.runtime.attempts import Attempts
from steelyard.runtime.hedging import Hedges
from steelyard.runtime.relaying import AnswerTarget
from steelyard.runtime.settlement import Settlement


class Race:
    """An attempt at a step, and perhaps a second one when its answer is late.

    Args:
        attempts: Runs attempts.
        hedges: When there is a second one.
        step: The step.
        asked: What to ask the model.
        target: Takes the answer of the first attempt that has one.
        journal: Whether the answer is recorded with the cost.

    Attributes:
        last: The last attempt that was placed.
    """

    def __init__(
        self,
        attempts: Attempts,
        hedges: Hedges,
        step: Step,
        asked: RelayRequest,
        target: AnswerTarget,
        *,
        journal: bool = False,
    ) -> None:
        self._attempts = attempts
        self._hedges = hedges
        self._asked = asked
        self._journal = journal
        self.target = target
        self.last = step
        self.winner: Runner | None = None
        self._first: Runner | None = None
        self._second: Runner | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._hedge: asyncio.Task[Settlement | None] | None = None
        # What runs the first attempt, as long as it does.
        self._task: asyncio.Task[object] | None = None

    async def run(self) -> Settlement:
        """Run the step.

        Returns:
            What the attempt that answered used and cost.

        Raises:
            PlacementError: The policy refused the step.
            PoolError: All its attempts failed; the last failure.
        """
        attempt = await self._attempts.gate.place(self.last)
        first = self._first = Runner(self, attempt, self._streams(attempt))
        loop = asyncio.get_running_loop()
        late_s = self._hedges.after_s(attempt.decision, streams=first.streams)
        self._timer = loop.call_later(late_s, self._is_late)
        try:
            settlement = await self._run_first(first)
            if settlement is None:
                settlement = await self._run_on()
            return settlement
        finally:
            self._stop_waiting()
            if self._hedge is not None:
                await _stopped(self._hedge)

    async def _run_first(self, first: "Runner") -> Settlement | None:
        """The first attempt's settlement; None where all depends on the second one now."""
        task = self._task = asyncio.current_task()
        cancelled_before = 0 if task is None else task.cancelling()
        try:
            return await self._run(first)
        except (asyncio.CancelledError, PoolError) as error:
            # A cancellation may come from the one that won, from a client that left, or from both.
            lost = self.winner is not None and self.winner is not first
            if lost and task is not None and task.uncancel() <= cancelled_before:
                return None
            if lost or not self._is_left_to_second(error):
                raise
            return None
        finally:
            self._task = None

    def _is_left_to_second(self, error: BaseException) -> bool:
        """May the second attempt, which runs, still answer when the first ended like this?"""
        runs = self._second is not None and self._hedge is not None and not self._hedge.done()
        return runs and self.winner is None and isinstance(error, PoolError) and error.retryable

    async def _run_on(self) -> Settlement:
        """The settlement of the second attempt, on which all depends."""
        settlement = None if self._hedge is None else await self._hedge
        if settlement is None:
            raise SteelyardBugError(f"step {self.last.key} was left to a second attempt: none ran")
        return settlement

    def _is_late(self) -> None:
        self._timer = None
        self._hedge = asyncio.create_task(self._run_second())

    async def _run_second(self) -> Settlement | None:
        first = self._first
        if first is None or self.winner is not None:
            return None
        step = msgspec.structs.replace(self.last, attempt=self.last.attempt + 1)
        gate = self._attempts.gate
        # Asked twice: money is set aside only where there is a place, and while the store is asked
        # for it the fleet may change.
        if not gate.has_place_beside(step, self._allows) or not await self.target.sets_aside():
            return None
        attempt = gate.place_beside(step, self._allows)
        if attempt is None:
            return None
        self.last = step
        self._hedges.take(first.attempt.decision, attempt.decision)
        runner = self._second = Runner(self, attempt, self._streams(attempt))
        return await self._run(runner)

    async def _run(self, runner: "Runner") -> Settlement:
        return await self._attempts.run_relay(
            runner.attempt, self._asked, runner, journal=self._journal
        )

    def _streams(self, attempt: Attempt) -> bool:
        return self._journal or self._attempts.streams(attempt, self._asked)

    def _allows(self, decision: Decision) -> bool:
        first = self._first
        return first is not None and self._hedges.affords(first.attempt.decision, decision)

    def claims(self, runner: "Runner") -> bool:
        """Is it this attempt whose answer counts? The first that asks is."""
        if self.winner is None:
            self.winner = runner
            self._stop_waiting()
            self._won(runner)
        return self.winner is runner

    def _won(self, runner: "Runner") -> None:
        now_s = self._attempts.now_s()
        for one in (self._first, self._second):
            # One that has failed was not waited for: it says nothing of how late answers come.
            if one is None or one.attempt.outcome == "failed":
                continue
            decision = one.attempt.decision
            self._hedges.began(decision, now_s - one.placed_s, streams=one.streams)
            if one is not runner:
                one.attempt.meter.hedge_away(decision.predicted_cached_tokens)
        if runner is self._first:
            if self._hedge is not None:
                self._hedge.cancel()
            return
        if self._task is not None:
            self._task.cancel()
        self.target.placed(runner.attempt.decision)

    def is_first(self, runner: "Runner") -> bool:
        """Is it the attempt with which the step came?"""
        return runner is self._first

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Runner:
    """Takes what one attempt says, and hands it on if it was the first to say something.

    Args:
        race: Knows who was.
        attempt: The attempt.
        streams: Whether its first token is seen.
    """

    __slots__ = ("_flow", "_held", "_race", "attempt", "placed_s", "streams")

    def __init__(self, race: Race, attempt: Attempt, streams: bool) -> None:
        self._race = race
        self.attempt = attempt
        self.streams = streams
        self.placed_s = attempt.placed_s
        self._flow: ReadFlow | None = None
        self._held: list[LlmChunk] = []

    @property
    def begun(self) -> bool:
        """Whether something was sent."""
        return self._race.target.begun

    def placed(self, decision: Decision) -> None:
        """It starts; of the second one the target learns when it answers first."""
        if self._race.is_first(self):
            self._race.target.placed(decision)

    async def sets_aside(self) -> bool:
        """There is no third one."""
        return False

    def flows(self, flow: ReadFlow | None) -> None:
        """Hold the upstream back by this."""
        self._flow = flow
        if self._race.winner is self:
            self._race.target.flows(flow)

    def events(self, data: bytes, tokens: int) -> None:
        """Hand on."""
        if self._claims():
            self._race.target.events(data, tokens)

    async def chunk(self, chunk: LlmChunk) -> None:
        """Hand on; what says nothing yet is held back until it is known who is first."""
        says = bool(chunk.text or chunk.tool_calls or chunk.finish_reason or chunk.usage)
        if not says and self._race.winner is None:
            self._held.append(chunk)
            return
        if self._claims():
            held, self._held = self._held, []
            for one in (*held, chunk):
                await self._race.target.chunk(one)

    def relayed(self, answer: RelayedAnswer) -> None:
        """All is here."""
        if self._claims():
            self._race.target.relayed(answer)

    def _claims(self) -> bool:
        if self._race.winner is not None:
            return self._race.winner is self
        claims = self._race.claims(self)
        if claims and self._flow is not None:
            self._race.target.flows(self._flow)
        return claims


async def _stopped(hedge: "asyncio.Task[Settlement | None]") -> None:
    """Cut a second attempt short; its end is recorded before the step is over."""
    hedge.cancel()
    (ended,) = await asyncio.gather(hedge, return_exceptions=True)
    # Its own failures count for nothing: the step ends with the other attempt. Bugs are raised.
    if isinstance(ended, Exception) and not isinstance(ended, SteelyardError):
        raise ended
