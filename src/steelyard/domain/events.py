"""What happened: one union of events with three producers (live, simulator, replay).

Fleet state, ledger, reports and recorded workloads are folds of this log and of nothing else.
`t_s` is the time on the log's clock, in seconds: since 1970 live, since the start simulated.
"""

from typing import Any, Literal

import msgspec

from steelyard.domain.decision import Decision, Refusal
from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import Step

# Whatever JSON can hold; msgspec decodes it to dicts, lists, strings and numbers.
JsonValue = Any
AttemptOutcome = Literal["ok", "failed", "cancelled"]
TaskStatus = Literal["succeeded", "failed", "cancelled"]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt used.

    Attributes:
        input_tokens: Length of the prompt.
        cached_tokens: Part of it that was read from a prefix cache.
        output_tokens: Tokens generated.
        counting: Who counted the tokens: the engine or vendor (`measured`), or Steelyard.
        cached_counting: The same for `cached_tokens`.
        cpu_s: CPU seconds of a tool, on the machine that ran it.
        memory_bytes: Peak memory of a tool.
        wall_s: Seconds from start to end of the attempt.
        start_to_first_token_s: Seconds from the attempt's start, queueing left out, to its first
            token; None for tools and empty answers.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    counting: Literal["measured", "estimated"] = "measured"
    cached_counting: Literal["measured", "estimated"] = "measured"
    cpu_s: float = 0.0
    memory_bytes: int = 0
    wall_s: float = 0.0
    start_to_first_token_s: float | None = None


class PoolAdded(msgspec.Struct, frozen=True, kw_only=True, tag="pool_added"):
    """A pool joined the fleet, or its specification changed."""

    t_s: float
    spec: PoolSpec


class BidChanged(msgspec.Struct, frozen=True, kw_only=True, tag="bid_changed"):
    """The price of a replica-hour by which the policy compares this pool has changed."""

    t_s: float
    pool: str
    bid_usd_per_hour: float


class ReplicaChanged(msgspec.Struct, frozen=True, kw_only=True, tag="replica_changed"):
    """A replica went down or came back. Whatever it had cached is gone."""

    t_s: float
    pool: str
    replica: int
    up: bool
    reason: str


class TaskSubmitted(msgspec.Struct, frozen=True, kw_only=True, tag="task_submitted"):
    """A task arrived. `deadline_s` is absolute on the log's clock."""

    t_s: float
    task_id: str
    agent: str
    deadline_s: float | None = None
    budget_usd: float | None = None


class StepPlaced(msgspec.Struct, frozen=True, kw_only=True, tag="step_placed"):
    """The policy chose a replica; the step waits there until its attempt starts."""

    t_s: float
    step: Step
    decision: Decision


class StepRefused(msgspec.Struct, frozen=True, kw_only=True, tag="step_refused"):
    """The policy refused the step."""

    t_s: float
    step: Step
    refusal: Refusal


class AttemptStarted(msgspec.Struct, frozen=True, kw_only=True, tag="attempt_started"):
    """The replica began to work on the step."""

    t_s: float
    task_id: str
    step_id: int
    attempt: int


class AttemptFinished(msgspec.Struct, frozen=True, kw_only=True, tag="attempt_finished"):
    """The attempt ended; usage, cost and result are recorded together.

    Attributes:
        t_s: When.
        task_id: The task.
        step_id: The step.
        attempt: The attempt.
        outcome: How it ended.
        usage: What it used up to then.
        cost_usd: What that costs, by `steelyard.perf.cost`.
        error_code: Stable code of the error, empty when it went well.
        error: Its message.
        result: The answer, where the producer journals answers.
    """

    t_s: float
    task_id: str
    step_id: int
    attempt: int
    outcome: AttemptOutcome
    usage: Usage
    cost_usd: float
    error_code: str = ""
    error: str = ""
    result: JsonValue = None


class TaskFinished(msgspec.Struct, frozen=True, kw_only=True, tag="task_finished"):
    """The task ended."""

    t_s: float
    task_id: str
    status: TaskStatus
    error_code: str = ""
    error: str = ""
    result: JsonValue = None


Event = (
    PoolAdded
    | BidChanged
    | ReplicaChanged
    | TaskSubmitted
    | StepPlaced
    | StepRefused
    | AttemptStarted
    | AttemptFinished
    | TaskFinished
)
