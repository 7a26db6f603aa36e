"""LLM steps handed on as they come: tried again, or hedged, while nothing was sent."""

from steelyard.domain.task import Step
from steelyard.errors import PoolError
from steelyard.pools.backend import RelayRequest
from steelyard.runtime.attempts import Attempts
from steelyard.runtime.hedging import Hedges
from steelyard.runtime.race import Race
from steelyard.runtime.relaying import AnswerTarget
from steelyard.runtime.retry_budget import Retries
from steelyard.runtime.settlement import Settlement


class RelayedSteps:
    """Runs such steps.

    Args:
        attempts: Runs attempts.
        retries: When a failed one is tried again.

    Attributes:
        hedges: When a late one gets a second one beside it.
    """

    def __init__(self, attempts: Attempts, retries: Retries) -> None:
        self._attempts = attempts
        self._retries = retries
        self.hedges = Hedges(0.0)

    async def relay(
        self,
        step: Step,
        asked: RelayRequest,
        target: AnswerTarget,
        failed: PoolError | None = None,
        *,
        journal: bool = False,
    ) -> Settlement:
        """Place and run a step; see `Dispatcher.relay_llm`.

        Args:
            step: The step.
            asked: What to ask the model.
            target: Takes the answer.
            failed: Why the attempt of this number failed, where it is over already.
            journal: Whether the answer is recorded with the cost.
        """
        first = step.attempt
        if failed is None:
            self._retries.earn()
            self.hedges.earn()
        elif target.begun:
            raise failed
        else:
            step = await self._retries.next_attempt(step, failed, first)
        while True:
            race: Race | None = None
            try:
                if self.hedges.on:
                    race = Race(self._attempts, self.hedges, step, asked, target, journal=journal)
                    return await race.run()
                attempt = await self._attempts.gate.place(step)
                return await self._attempts.run_relay(attempt, asked, target, journal=journal)
            except PoolError as error:
                if target.begun:
                    raise
                last = step if race is None else race.last
                step = await self._retries.next_attempt(last, error, first)
