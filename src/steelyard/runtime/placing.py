"""Asks the policy, waits out short outages, and turns refusals into errors."""

import asyncio

from steelyard.domain.decision import Decision, Refusal
from steelyard.domain.events import StepRefused
from steelyard.domain.task import LlmCall, Step
from steelyard.errors import (
    BudgetExceededError,
    NoFeasiblePoolError,
    SpendCapError,
    SteelyardError,
)
from steelyard.placement.elsewhere import decide_elsewhere
from steelyard.placement.few_pools import is_small
from steelyard.placement.policy import CheapestFeasible, Policy
from steelyard.runtime.recorder import Recorder
from steelyard.runtime.spend_sharing import SpendSharing

# A breaker closes by time alone, which no event announces.
_LOOK_AGAIN_S = 0.5


class Placing:
    """Decides where steps go.

    Args:
        recorder: State and log.
        policy: Decides.
        outage_patience_s: How long a step waits for a pool that could run it and is down.

    Attributes:
        spend: Asks the store for more room in providers' caps; None where there is no store.
    """

    def __init__(self, recorder: Recorder, policy: Policy, outage_patience_s: float) -> None:
        self._recorder = recorder
        self.change_policy(policy)
        self._outage_patience_s = outage_patience_s
        self._came_back = asyncio.Event()
        self.spend: SpendSharing | None = None

    def change_policy(self, policy: Policy) -> None:
        """Let this policy decide from now on."""
        self._policy = policy
        self._by_few = policy.by_few if isinstance(policy, CheapestFeasible) else None

    def pool_came_back(self) -> None:
        """A replica is up again: waiting steps look once more."""
        self._came_back.set()

    async def decide(self, step: Step) -> tuple[Decision, float]:
        """Where does the step go, and at what time was that decided?

        When every pool that could run the step is down, it waits for one to come back, not beyond
        its deadline: an engine that is started anew takes seconds, and a task of a hundred steps
        should not fail for that.

        Args:
            step: The step.

        Returns:
            The decision, and the moment of the fleet it was made for; nothing was recorded since.

        Raises:
            NoFeasiblePoolError: The policy refused the step.
            BudgetExceededError: The policy refused it for its cost.
            SpendCapError: Providers' caps have no room for it.
        """
        give_up_s = self._recorder.now_s() + self._outage_patience_s
        if step.deadline_s is not None:
            give_up_s = min(give_up_s, step.deadline_s)
        asked = self.spend is None
        while True:
            self._came_back.clear()
            now_s = self._recorder.now_s()
            answer = self.ask(step, now_s)
            if not asked and self.spend is not None:
                asked, short = True, self._short(answer, now_s)
                if short:
                    await self.spend.more(short)
                    continue
            if isinstance(answer, Decision):
                return answer, now_s
            if now_s >= give_up_s or not answer.may_pass:
                event = StepRefused(t_s=now_s, step=step, refusal=answer)
                self._recorder.record(event, step.fence)
                raise _refusal_error(step, answer)
            await self.wait_for_change(min(_LOOK_AGAIN_S, give_up_s - now_s))

    def ask(self, step: Step, now_s: float) -> Decision | Refusal:
        """What does the policy say now? Nothing is recorded.

        Args:
            step: The step.
            now_s: Now, on the log's clock.
        """
        state, call = self._recorder.state, step.call
        if step.attempt:
            return decide_elsewhere(self._policy, step, state.glance(step, now_s))
        if self._by_few is not None and isinstance(call, LlmCall) and is_small(*state.size):
            return self._by_few(step, state.few(step, call, now_s))
        return self._policy(step, state.glance(step, now_s))

    def ask_at_once(self, step: Step, call: LlmCall, now_s: float) -> Decision | None:
        """As `ask`, of the first attempt of a task that nobody has opened.

        Returns:
            The decision; None where it is a refusal, or where the policy might ask what the task
            did before. Ours does not; it is the quick one, too.
        """
        if self._by_few is None:
            return None
        state = self._recorder.state
        pools, replicas = state.size
        if is_small(pools, replicas):
            answer = self._by_few(step, state.few(step, call, now_s))
        else:
            answer = self._policy(step, state.glance(step, now_s))
        if not isinstance(answer, Decision) or self._short(answer, now_s):
            return None
        return answer

    def _short(self, answer: Decision | Refusal, now_s: float) -> dict[str, float]:
        """Of which providers' caps might there be more, and how much would the step take?"""
        state, sharing = self._recorder.state, self.spend
        if sharing is None or not state.spend.capped:
            return {}
        short: dict[str, float] = {}
        for one in answer.verdicts:
            spec = state.spec(one.pool) if one.verdict == "over_cap" else None
            usd = one.predicted_cost_usd or 0.0
            if (
                spec is not None
                and state.spend.is_short(spec.provider, usd, now_s)
                and sharing.may_help(spec.provider, usd)
            ):
                short[spec.provider] = max(usd, short.get(spec.provider, 0.0))
        return short

    async def wait_for_change(self, longest_s: float) -> None:
        """Wait until a pool joins or changes, or a replica comes back; for so long at most.

        What was true when this is called is not looked at again.
        """
        self._came_back.clear()
        try:
            async with asyncio.timeout(longest_s):
                await self._came_back.wait()
        except TimeoutError:
            return


def _refusal_error(step: Step, refusal: Refusal) -> SteelyardError:
    what = f"step {step.name} of task {step.task_id}"
    if refusal.cause == "budget":
        return BudgetExceededError(
            f"{what} would exceed the task's budget of {step.budget_usd} USD in every pool "
            f"({refusal.reason}); raise the budget or shorten the answer"
        )
    if refusal.cause == "spend_cap":
        spent = SpendCapError(
            f"{what} would exceed the spend cap of the provider in every pool that could run it "
            f"({refusal.reason}); raise [limits.providers], or wait until the next hour or day"
        )
        spent.retry_after_s = refusal.retry_after_s
        return spent
    if refusal.cause == "deadline":
        late = NoFeasiblePoolError(
            f"{what} would miss its deadline in every pool ({refusal.reason}); the earliest "
            f"possible end is in {refusal.earliest_finish_s:.1f} s"
        )
        late.retry_after_s = refusal.retry_after_s
        return late
    return NoFeasiblePoolError(
        f"{what} cannot run in any pool ({refusal.reason}); add a pool that can, or wait for one"
    )
