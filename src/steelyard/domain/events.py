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
# `error_code` of an attempt that was cut short because another one at its step answered first.
HEDGED_AWAY = "hedged_away"
# `llm` and `tool` steps run in pools; the others are recorded by the task's own worker.
StepKind = Literal["llm", "tool", "local", "sleep", "signal", "child", "gather"]


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
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


class PoolRemoved(msgspec.Struct, frozen=True, kw_only=True, tag="pool_removed"):
    """No step is placed in the pool any more; those that were, end there."""

    t_s: float
    pool: str


class BidChanged(msgspec.Struct, frozen=True, kw_only=True, tag="bid_changed"):
    """The price of a replica-hour by which the policy compares this pool has changed."""

    t_s: float
    pool: str
    bid_usd_per_hour: float


class ReplicaChanged(msgspec.Struct, frozen=True, kw_only=True, tag="replica_changed"):
    """A replica went down, came back, or is to go.

    Attributes:
        t_s: When.
        pool: Its pool.
        replica: Its index in the pool.
        up: Whether it takes new steps.
        reason: Why, for people.
        draining: Whether one that takes no new steps goes on with those it has, caches and all;
            whatever others had cached is gone.
        rented: Whether it is paid for from now on. One that starts is, before it is up.
    """

    t_s: float
    pool: str
    replica: int
    up: bool
    reason: str
    draining: bool = False
    rented: bool = True


class TaskSubmitted(msgspec.Struct, frozen=True, kw_only=True, tag="task_submitted"):
    """A task arrived, with all that a worker needs to start it, or to start it again.

    Attributes:
        t_s: When.
        task_id: The task.
        agent: Name of its agent; workers take tasks of the agents that they know.
        deadline_s: Absolute, on the log's clock; None without one.
        budget_usd: What it may cost; None without a limit.
        arguments: The agent's arguments by name.
        parent: Task that submitted it as a step; empty without one.
    """

    t_s: float
    task_id: str
    agent: str
    deadline_s: float | None = None
    budget_usd: float | None = None
    arguments: dict[str, JsonValue] = {}
    parent: str = ""


class TaskResumed(msgspec.Struct, frozen=True, kw_only=True, tag="task_resumed"):
    """Another worker, or the same one started anew, goes on with the task.

    `fence` is the number of its lease: writes under an older one are refused from here on.
    """

    t_s: float
    task_id: str
    worker: str
    fence: int


class TaskRetried(msgspec.Struct, frozen=True, kw_only=True, tag="task_retried"):
    """An ended task goes on from where it failed; what had a result keeps it.

    Attributes:
        t_s: When.
        task_id: The task.
        deadline_s: Its new deadline; None without one.
        budget_usd: Its new budget, of which what it spent before is taken; None without a limit.
        cause: Which retry of its parent this one is a part of; empty for a person's wish.
    """

    t_s: float
    task_id: str
    deadline_s: float | None = None
    budget_usd: float | None = None
    cause: str = ""


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

    A step may have two open attempts (a hedge, ADR 34). The one that answers first goes on; the
    other one is `cancelled`, with `HEDGED_AWAY` for its code: no failure, and never tried again.

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


class StepRecorded(msgspec.Struct, frozen=True, kw_only=True, tag="step_recorded"):
    """A step got its result outside of pools, or failed for good in one.

    The results of `llm` and `tool` steps that went well are in their `AttemptFinished`.

    Attributes:
        t_s: When.
        task_id: The task.
        step_id: The step.
        path: Its place in the program, see `Step.path`.
        kind: What kind of step it is.
        name: Its name.
        fingerprint: Hash of what was asked.
        result: Its result, where it went well.
        error_code: Stable code of its error, empty when it went well.
        error: The error's message.
        cost_usd: What a child task and its children cost; 0 for other steps.
    """

    t_s: float
    task_id: str
    step_id: int
    path: str
    kind: StepKind
    name: str
    fingerprint: str
    result: JsonValue = None
    error_code: str = ""
    error: str = ""
    cost_usd: float = 0.0


class StepWaiting(msgspec.Struct, frozen=True, kw_only=True, tag="step_waiting"):
    """A step that may last long began; after a crash it goes on with what is said here.

    Attributes:
        t_s: When.
        task_id: The task.
        step_id: The step.
        path: Its place in the program.
        kind: What kind of step it is.
        name: Its name.
        fingerprint: Hash of what was asked.
        until_s: End of a `sleep`, or of the patience of a `signal`; when a step that waits for
            room under spend caps asks again. None without an end.
        reserved_usd: What a `child` may cost; it is taken off the task's own budget until then.
        caps: Providers whose spend caps have no room for the step now, and what it is predicted to
            cost at each, in USD; empty for steps that wait for something else.
    """

    t_s: float
    task_id: str
    step_id: int
    path: str
    kind: StepKind
    name: str
    fingerprint: str
    until_s: float | None = None
    reserved_usd: float | None = None
    caps: dict[str, float] = {}


class SignalSent(msgspec.Struct, frozen=True, kw_only=True, tag="signal_sent"):
    """Somebody sent a value to a task; a `signal` step of that name takes it."""

    t_s: float
    task_id: str
    name: str
    value: JsonValue = None


class CancelRequested(msgspec.Struct, frozen=True, kw_only=True, tag="cancel_requested"):
    """Somebody wants the task to end."""

    t_s: float
    task_id: str


class TaskPreempted(msgspec.Struct, frozen=True, kw_only=True, tag="task_preempted"):
    """The task's main function was stopped; its `wrap_up` makes do with what is recorded."""

    t_s: float
    task_id: str
    cause: Literal["deadline", "budget"]


class TaskFinished(msgspec.Struct, frozen=True, kw_only=True, tag="task_finished"):
    """The task ended. `wrapped_up` says that its result is what `wrap_up` made of a part.

    `ended_s` is when its last step ended, where that was taken for the task's end only after a
    while of silence.
    """

    t_s: float
    task_id: str
    status: TaskStatus
    error_code: str = ""
    error: str = ""
    result: JsonValue = None
    wrapped_up: bool = False
    ended_s: float | None = None

    @property
    def finished_s(self) -> float:
        """When was the task over?"""
        return self.t_s if self.ended_s is None else self.ended_s


class RequestServed(msgspec.Struct, frozen=True, kw_only=True, tag="request_served", gc=False):
    """A task of one step in one attempt, from beginning to end: a request that nobody named.

    It stands for five events (`parts`), and is written when the attempt has ended: what was under
    way when a gateway died is not in the log. Its parts come with it, so a log that holds such
    events is in order of time only once it was sorted by `t_s` (ADR 21).

    Attributes:
        t_s: When it ended.
        placed_s: When it came, was placed, and started.
        step: The step, its task's only one.
        decision: Where it ran.
        outcome: How it ended.
        usage: What it used.
        cost_usd: What that costs.
    """

    t_s: float
    placed_s: float
    step: Step
    decision: Decision
    outcome: Literal["ok", "cancelled"]
    usage: Usage
    cost_usd: float

    @property
    def task_id(self) -> str:
        """The task."""
        return self.step.task_id


Event = (
    PoolAdded
    | PoolRemoved
    | BidChanged
    | ReplicaChanged
    | TaskSubmitted
    | TaskResumed
    | TaskRetried
    | StepPlaced
    | StepRefused
    | AttemptStarted
    | AttemptFinished
    | StepRecorded
    | StepWaiting
    | SignalSent
    | CancelRequested
    | TaskPreempted
    | TaskFinished
    | RequestServed
)


def parts(event: RequestServed) -> tuple[Event, ...]:
    """For which events does one stand that was written for a whole request?

    Args:
        event: The request.

    Returns:
        Arrival, placement, start, end of the attempt, end of the task; in order of time.
    """
    step, placed_s = event.step, event.placed_s
    ok = event.outcome == "ok"
    return (
        TaskSubmitted(t_s=placed_s, task_id=step.task_id, agent=step.agent),
        StepPlaced(t_s=placed_s, step=step, decision=event.decision),
        AttemptStarted(
            t_s=placed_s, task_id=step.task_id, step_id=step.step_id, attempt=step.attempt
        ),
        AttemptFinished(
            t_s=event.t_s,
            outcome=event.outcome,
            usage=event.usage,
            cost_usd=event.cost_usd,
            task_id=step.task_id,
            step_id=step.step_id,
            attempt=step.attempt,
        ),
        TaskFinished(
            t_s=event.t_s, task_id=step.task_id, status="succeeded" if ok else "cancelled"
        ),
    )
