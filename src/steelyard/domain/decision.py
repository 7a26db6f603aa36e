"""Decision | Refusal: what the policy answers. A refusal is a value with a reason per pool."""

from typing import Literal

import msgspec

from steelyard.domain.task import Step
from steelyard.errors import BudgetExceededError, NoFeasiblePoolError, SpendCapError

Verdict = Literal[
    "chosen",
    "dearer",
    "later",
    "too_late",
    "over_budget",
    "cannot_run",
    "too_long",
    "down",
    "just_failed",
    "under_way",
    "over_cap",
]


class PoolVerdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Why one pool was chosen or not.

    `dearer` is by bid price, with a surcharge for the queue; `later` is no dearer, and
    ends later, or takes more than the step's share of the slack. `just_failed` is a pool
    that an earlier attempt at the step failed in; in one that is `under_way`, one still runs. In
    one that is `over_cap`, the step would cost more than is left of its provider's spend cap.

    Attributes:
        pool: Name of the pool.
        verdict: In one word.
        predicted_finish_s: Seconds from now to the step's end; None where it cannot run.
        predicted_cost_usd: Cost at the pool's rent; None where it cannot run.
    """

    pool: str
    verdict: Verdict
    predicted_finish_s: float | None = None
    predicted_cost_usd: float | None = None


class Decision(
    msgspec.Struct, frozen=True, kw_only=True, tag="decision", omit_defaults=True, gc=False
):
    """Where a step goes, and what the policy expects of it.

    Attributes:
        pool: Name of the chosen pool.
        replica: Index of the replica in the pool.
        predicted_wait_s: Seconds in the queue.
        predicted_ttft_s: Seconds from start to first token; for a tool, to its start.
        predicted_finish_s: Seconds from now to the step's end.
        predicted_cached_tokens: Prompt tokens expected in the replica's prefix cache.
        predicted_output_tokens: Expected length of the answer.
        predicted_cost_usd: Expected cost at the pool's rent; reserved from the task's budget.
        bid_usd_per_hour: Price of a replica-hour by which pools were compared.
        slack_s: `deadline - now - expected remaining work - predicted_finish_s`; None without
            a deadline.
        grace_s: How long after its latest start the step is given up as late; negative where the
            prediction of its own time is uncertain, positive where that of what comes after it is.
        predicted_least_s: Seconds from start to end in the fastest pool, had it no queue; what the
            attempt takes beyond that, another choice could have avoided. None in old logs.
        queue_key: Place in the replica's queue, the least first; None: by latest start.
        policy: Name of the policy.
        reason: One sentence for people.
        verdicts: One per pool, in the fleet's order.
    """

    pool: str
    replica: int
    predicted_wait_s: float
    predicted_ttft_s: float
    predicted_finish_s: float
    predicted_cached_tokens: int
    predicted_output_tokens: float
    predicted_cost_usd: float
    bid_usd_per_hour: float
    slack_s: float | None
    policy: str
    reason: str
    verdicts: tuple[PoolVerdict, ...]
    predicted_least_s: float | None = None
    queue_key: float | None = None
    grace_s: float = 0.0

    @property
    def slack_at_start_s(self) -> float | None:
        """Slack if the step started at once; queues order by it. None without a deadline."""
        return None if self.slack_s is None else self.slack_s + self.predicted_wait_s

    def gives_way(self, step: Step) -> bool:
        """Does the step let those pass that can be in time, as it cannot behind them?

        A step of a task that has begun does not: what was done of it would be lost. Nor does one
        of a policy that has an order of its own.

        Args:
            step: The step that was placed.
        """
        if self.slack_s is None or self.queue_key is not None or not step.begins_task:
            return False
        return self.slack_s + self.grace_s < 0.0


class Refusal(msgspec.Struct, frozen=True, kw_only=True, tag="refusal"):
    """Why no pool takes the step.

    Attributes:
        cause: `budget` when only money is missing, `deadline` when every pool that could run the
            step would miss it, `spend_cap` when providers' caps alone keep all from it that could
            run it, `no_pool` when none can run it at all.
        earliest_finish_s: Seconds from now to the earliest possible end; None if there is none.
        policy: Name of the policy.
        verdicts: One per pool, in the fleet's order.
        retry_after_s: Seconds after which a pool would be in time for a step of the same time to
            its deadline, if its queue only drains, or after which a spend cap is renewed; None
            where no wait helps.
    """

    cause: Literal["budget", "deadline", "no_pool", "spend_cap"]
    earliest_finish_s: float | None
    policy: str
    verdicts: tuple[PoolVerdict, ...]
    retry_after_s: float | None = None

    @property
    def may_pass(self) -> bool:
        """Is there a pool that could run the step, and is only down?"""
        return self.cause == "no_pool" and any(one.verdict == "down" for one in self.verdicts)

    @property
    def error_code(self) -> str:
        """Code of the error with which the refused step ends: more money, or no pool at all."""
        if self.cause == "spend_cap":
            return SpendCapError.code
        error = BudgetExceededError if self.cause == "budget" else NoFeasiblePoolError
        return error.code

    @property
    def reason(self) -> str:
        """One sentence for people: what every pool was missing."""
        told = "; ".join(f"{one.pool}: {one.verdict.replace('_', ' ')}" for one in self.verdicts)
        return told or "the fleet has no pools"
