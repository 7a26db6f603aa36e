"""Every error that Steelyard raises on purpose. The class says what the caller can do.

```
SteelyardError                    base; `retryable` says whether another attempt can help
├── ConfigError                   names file, key, value and the cure
│   ├── MissingExtraError         an optional package is not installed
│   └── SandboxUnavailableError   this machine cannot confine tools
├── FigureError                   a figure is missing, unsourced or out of range
├── WorkloadError                 a workload or trace file cannot be read
├── PlacementError
│   ├── NoFeasiblePoolError       every pool was refused; carries the reasons
│   ├── BudgetExceededError       the step would overspend its task's budget
│   └── SpendCapError             it would overspend the providers' caps; carries retry_after_s
├── PoolError
│   ├── PoolUnavailableError      retryable: the pool or replica is down
│   ├── PoolOverloadedError       retryable, carries retry_after_s
│   ├── PoolTimeoutError          retryable: no answer in time
│   ├── PoolRejectedError         the request is wrong; do not retry elsewhere
│   ├── ToolFailedError           the tool ran and raised
│   └── PoolProtocolError         the pool's answer cannot be read
├── TaskError
│   ├── StepFailedError           attempts used up; __cause__ is the last one
│   ├── DeadlineExceededError
│   ├── NondeterminismError       a replay took another path
│   ├── SignalTimeoutError        nobody sent the signal in time
│   ├── LeaseLostError            another worker has the task now
│   └── TaskNotFoundError
├── StoreError
│   ├── StoreBusyError            retryable
│   └── SchemaMismatchError       the file was written by another version
├── PlanError
│   ├── InfeasiblePlanError       names the conflicting constraints
│   └── SolverError
└── SteelyardBugError             an invariant broke: please report
```

A message is one line: the thing, the value, the reason, the cure. Errors that are stored (in the
event log) carry `code`, which stays the same over releases.
"""

from typing import ClassVar


class SteelyardError(Exception):
    """Base of all errors that a caller may want to catch."""

    code: ClassVar[str] = "steelyard"
    retryable: ClassVar[bool] = False


class ConfigError(SteelyardError):
    """A configuration is wrong; the message names file, key, value and the allowed values."""

    code = "config"


class MissingExtraError(ConfigError):
    """An optional package is needed and not installed; the message holds the install command."""

    code = "missing_extra"


class SandboxUnavailableError(ConfigError):
    """No wanted sandbox works on this machine; the message says what each one lacks."""

    code = "sandbox_unavailable"


class FigureError(SteelyardError):
    """A figure is missing, has no source, or is out of range."""

    code = "figure"


class WorkloadError(SteelyardError):
    """A workload or trace file cannot be read; the message names file, row and column."""

    code = "workload"


class PlacementError(SteelyardError):
    """A step cannot be placed."""

    code = "placement"


class NoFeasiblePoolError(PlacementError):
    """Every pool was refused; the message holds one reason per pool.

    Attributes:
        retry_after_s: Seconds after which the queue that is in the way is predicted to be short
            enough; None where no wait helps.
    """

    code = "no_feasible_pool"
    retry_after_s: float | None = None


class BudgetExceededError(PlacementError):
    """The step would cost more than what is left of its task's budget."""

    code = "budget_exceeded"


class SpendCapError(PlacementError):
    """The step would cost more than what is left of the spend caps of all providers.

    Attributes:
        retry_after_s: Seconds after which the next hour or day of a cap begins.
    """

    code = "spend_cap"
    retry_after_s: float | None = None


class PoolError(SteelyardError):
    """A pool could not do the work.

    Attributes:
        upstream_code: `code` of the error that an endpoint answered with; empty without one.
        upstream_message: Its message.
    """

    code = "pool"
    upstream_code: str = ""
    upstream_message: str = ""


class PoolUnavailableError(PoolError):
    """The pool or its replica is down; another one may answer."""

    code = "pool_unavailable"
    retryable = True


class PoolOverloadedError(PoolError):
    """The pool takes no more work now.

    Args:
        message: What is full, and what to do.
        retry_after_s: Seconds after which a place is expected to be free.
    """

    code = "pool_overloaded"
    retryable = True

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class PoolTimeoutError(PoolError):
    """The pool did not answer in time."""

    code = "pool_timeout"
    retryable = True


class PoolRejectedError(PoolError):
    """The pool refuses the request itself; every other pool would, too."""

    code = "pool_rejected"


class ToolFailedError(PoolError):
    """A tool ran and raised; the message names the tool, the exception's type and its message."""

    code = "tool_failed"


class PoolProtocolError(PoolError):
    """The pool's answer cannot be read."""

    code = "pool_protocol"


class TaskError(SteelyardError):
    """A task cannot go on."""

    code = "task"


class StepFailedError(TaskError):
    """All attempts of a step failed; `__cause__` is the last failure."""

    code = "step_failed"


class DeadlineExceededError(TaskError):
    """The task's deadline passed."""

    code = "deadline_exceeded"


class NondeterminismError(TaskError):
    """A replayed task asked for another step than the one in the log."""

    code = "nondeterminism"


class SignalTimeoutError(TaskError):
    """Nobody sent the signal that a task waited for."""

    code = "signal_timeout"


class LeaseLostError(TaskError):
    """Another worker has taken the task over; this one may not write for it any more."""

    code = "lease_lost"


class TaskNotFoundError(TaskError):
    """No task has this id."""

    code = "task_not_found"


class StoreError(SteelyardError):
    """The event log cannot be read or written."""

    code = "store"


class StoreBusyError(StoreError):
    """Another process holds the event log."""

    code = "store_busy"
    retryable = True


class SchemaMismatchError(StoreError):
    """The event log was written by a version that this one cannot read."""

    code = "schema_mismatch"


class PlanError(SteelyardError):
    """No fleet plan can be made."""

    code = "plan"


class InfeasiblePlanError(PlanError):
    """No fleet meets the demand; the message names the constraints in conflict."""

    code = "infeasible_plan"


class SolverError(PlanError):
    """The solver stopped without an answer."""

    code = "solver"


class SteelyardBugError(SteelyardError):
    """An invariant broke. Please report it with the message."""

    code = "bug"
