"""What a task has done so far: a fold of its own events."""

from collections.abc import Iterable

import msgspec

from steelyard.domain.events import (
    AttemptFinished,
    CancelRequested,
    Event,
    JsonValue,
    SignalSent,
    StepKind,
    StepPlaced,
    StepRecorded,
    StepRefused,
    StepWaiting,
    TaskFinished,
    TaskPreempted,
    TaskRetried,
    TaskSubmitted,
)
from steelyard.domain.task import Step

# The path of what `wrap_up` does starts with this.
WRAP_UP = "wrap_up"


class CapWait(msgspec.Struct, frozen=True, kw_only=True):
    """A step waits for room under spend caps of providers.

    Attributes:
        caps: What it is predicted to cost at each of them, in USD.
        pools: The pools that have refused it.
        since_s: When it began to wait.
        until_s: When it asks again.
        refusals: How often it has asked in vain.
    """

    caps: dict[str, float]
    pools: tuple[str, ...]
    since_s: float
    until_s: float
    refusals: int


class StepRecord(msgspec.Struct):
    """What the log says of one step.

    Attributes:
        step_id: Its number.
        path: Its place in the program.
        kind: What kind of step it is.
        name: Its name.
        fingerprint: Hash of what was asked.
        parents: Steps whose results it used; empty for steps outside of pools.
        attempts: Attempts placed so far.
        open: Attempts placed and not ended.
        done: Whether it has a result or an error for good.
        result: Its result.
        error_code: Code of its error; empty without one.
        error: The error's message.
        until_s: End of a `sleep` that has begun.
        reserved_usd: What a `child` that has begun may cost.
        charged_usd: What a `child` that failed, and is run again, has cost before.
        cap_wait: The wait for room under spend caps that it is in; None for none.
    """

    step_id: int
    path: str
    kind: StepKind
    name: str
    fingerprint: str
    parents: tuple[int, ...] = ()
    attempts: int = 0
    open: set[int] = set()
    done: bool = False
    result: JsonValue = None
    error_code: str = ""
    error: str = ""
    until_s: float | None = None
    reserved_usd: float | None = None
    charged_usd: float = 0.0
    cap_wait: CapWait | None = None

    @property
    def told(self) -> str:
        """The step for people."""
        return f"{self.kind} step {self.name!r} at {self.path} (fingerprint {self.fingerprint})"


class Journal:
    """The steps of one task as they are recorded, by their place in the program."""

    def __init__(self) -> None:
        self.submitted: TaskSubmitted | None = None
        self.finished: TaskFinished | None = None
        self.preempted: TaskPreempted | None = None
        self.cancel_requested = False
        self.signals: dict[str, list[JsonValue]] = {}
        self.steps: dict[str, StepRecord] = {}
        self.next_step_id = 0
        self.retries: list[str] = []
        self._by_id: dict[int, StepRecord] = {}
        # Which pools have refused a step last, by its number.
        self._refused_by: dict[int, tuple[str, ...]] = {}

    @classmethod
    def of(cls, events: Iterable[Event]) -> "Journal":
        """The journal of a task's events, in order."""
        journal = cls()
        for event in events:
            journal.apply(event)
        return journal

    def in_order(self) -> list[StepRecord]:
        """All steps by number."""
        return [self._by_id[number] for number in sorted(self._by_id)]

    def update(self, newer: "Journal") -> None:
        """Take over what a newer reading of the same log says."""
        self.__dict__.update(newer.__dict__)

    def apply(self, event: Event) -> None:
        """Take one more event of the task into account."""
        match event:
            case TaskSubmitted():
                # A gateway that hears of another process's task submits it without its arguments.
                if self.submitted is None or self.finished is not None:
                    self.submitted = event
            case SignalSent():
                self.signals.setdefault(event.name, []).append(event.value)
            case CancelRequested():
                self.cancel_requested = True
            case TaskPreempted():
                self.preempted = event
            case TaskFinished():
                self.finished = event
                for record in self.steps.values():
                    record.cap_wait = None
            case TaskRetried():
                self._retry(event)
            case _:
                self._apply_to_step(event)

    def _apply_to_step(self, event: Event) -> None:
        match event:
            case StepPlaced():
                record = self._placed(event.step)
                record.cap_wait = None
                record.attempts = max(record.attempts, event.step.attempt + 1)
                record.open.add(event.step.attempt)
            case StepRefused():
                self._placed(event.step)
                refused_by = tuple(one.pool for one in event.refusal.verdicts)
                self._refused_by[event.step.step_id] = refused_by
            case AttemptFinished():
                self._finish(event)
            case StepRecorded() | StepWaiting():
                self._record(event)
            case _:
                pass

    def _at(self, record: StepRecord) -> StepRecord:
        found = self._by_id.setdefault(record.step_id, record)
        if record.path:
            self.steps[record.path] = found
        self.next_step_id = max(self.next_step_id, record.step_id + 1)
        return found

    def _placed(self, step: Step) -> StepRecord:
        return self._at(
            StepRecord(
                step_id=step.step_id,
                path=step.path,
                kind=step.kind,
                name=step.name,
                fingerprint=step.fingerprint,
                parents=step.parents,
            )
        )

    def _finish(self, event: AttemptFinished) -> None:
        record = self._by_id.get(event.step_id)
        # The end of an attempt that was given up as lost does not count: others went on without.
        if record is None or event.attempt not in record.open:
            return
        record.open.remove(event.attempt)
        if event.outcome == "ok" and not record.done:
            record.done = True
            record.result = event.result

    def _record(self, event: StepRecorded | StepWaiting) -> None:
        record = self._at(
            StepRecord(
                step_id=event.step_id,
                path=event.path,
                kind=event.kind,
                name=event.name,
                fingerprint=event.fingerprint,
            )
        )
        if isinstance(event, StepWaiting) and event.caps and event.until_s is not None:
            before = record.cap_wait
            record.cap_wait = CapWait(
                caps=event.caps,
                pools=self._refused_by.get(event.step_id, ()),
                since_s=event.t_s if before is None else before.since_s,
                until_s=event.until_s,
                refusals=1 if before is None else before.refusals + 1,
            )
        elif isinstance(event, StepWaiting):
            record.until_s = event.until_s
            record.reserved_usd = event.reserved_usd
        else:
            record.done = True
            record.cap_wait = None
            record.result = event.result
            record.error_code, record.error = event.error_code, event.error
            record.charged_usd += event.cost_usd

    def _retry(self, event: TaskRetried) -> None:
        """Open the task again, and let the failures that ended it be tried again.

        A failure after which the program did something else was handled: it stays, or the program
        would take another path than recorded.
        """
        self.retries.append(event.cause)
        self.finished = self.preempted = None
        self.cancel_requested = False
        self.steps = {path: one for path, one in self.steps.items() if not path.startswith(WRAP_UP)}
        last: dict[str, int] = {}
        for path in self.steps:
            line, place = _place(path)
            last[line] = max(place, last.get(line, -1))
        for path, record in self.steps.items():
            line, place = _place(path)
            if place != last[line] or (record.done and not record.error_code):
                continue
            record.done, record.error_code, record.error = False, "", ""
            record.reserved_usd = record.cap_wait = None
            if record.kind == "signal":
                record.until_s = None


def _place(path: str) -> tuple[str, int]:
    """The line of a path, and its number there."""
    line, _, place = path.rpartition(".")
    return line, int(place)
