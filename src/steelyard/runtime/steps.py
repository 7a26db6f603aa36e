"""The steps of one running task: replayed where its journal has them, performed where not.

A step is known by its place in the program, its *path*. The main line counts 0, 1, 2, ...; the
branches of a gather at place 3 are 3.0, 3.1, ..., and each counts its own steps: 3.1.0, 3.1.1, ...
Paths therefore do not depend on which branch is faster. `step_id` numbers steps in the order in
which they were first asked for, and the log keeps which number a path has.
"""

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable, Generator
from contextvars import ContextVar
from typing import Any

import msgspec

from steelyard.domain.events import (
    JsonValue,
    StepKind,
    StepRecorded,
    StepWaiting,
    TaskPreempted,
)
from steelyard.errors import (
    LeaseLostError,
    NondeterminismError,
    SpendCapError,
    SteelyardError,
    StepFailedError,
    StoreError,
)
from steelyard.runtime.cap_waits import CapWaits
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.fingerprint import fingerprint
from steelyard.runtime.journal import Journal, StepRecord
from steelyard.runtime.recorded_errors import recorded_error
from steelyard.runtime.waits import Waits


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """A step that is to be performed now.

    Attributes:
        step_id: Its number.
        path: Its place in the program.
        kind: What kind of step it is.
        name: Its name.
        fingerprint: Hash of what is asked.
        attempt: Number of its next attempt.
        until_s: End of a `sleep` that began before; None otherwise.
        reserved_usd: What a `child` that began before may cost; None otherwise.
        charged_usd: What a `child` cost when it failed before.
    """

    step_id: int
    path: str
    kind: StepKind
    name: str
    fingerprint: str
    attempt: int = 0
    until_s: float | None = None
    reserved_usd: float | None = None
    charged_usd: float = 0.0


class _Branch:
    """A line of steps, counted from 0."""

    def __init__(self, owner: "TaskSteps", prefix: str) -> None:
        self.owner = owner
        self._prefix = prefix
        self._count = 0

    def next_path(self) -> str:
        self._count += 1
        return f"{self._prefix}{self._count - 1}"


# Which branch the running code is in; asyncio gives every branch of a gather its own value.
_BRANCH: ContextVar[_Branch | None] = ContextVar("steelyard_branch", default=None)


class TaskSteps:
    """Replays and performs the steps of one run of a task.

    Args:
        task_id: The task.
        fence: Number of the lease; None outside of durable tasks.
        journal: What is recorded of the task.
        dispatcher: Records, and numbers steps.
    """

    def __init__(
        self, task_id: str, fence: int | None, journal: Journal, dispatcher: Dispatcher
    ) -> None:
        self.task_id = task_id
        self.fence = fence
        self.journal = journal
        self.waits = Waits()
        # No further step is performed, and none recorded.
        self.closed = False
        self._dispatcher = dispatcher
        self._root = _Branch(self, "")
        self._asked: set[str] = set()
        self._costs_usd: dict[str, float] = {}
        self._caps = CapWaits(task_id, dispatcher, self.waits)

    async def perform(
        self,
        kind: StepKind,
        name: str,
        asked: JsonValue,
        run: Callable[[Slot], Awaitable[JsonValue]],
    ) -> JsonValue:
        """The result of the next step: from the journal, or by running it.

        Args:
            kind: What kind of step it is.
            name: Its name.
            asked: What it asks for, as JSON values.
            run: Performs it. `llm` and `tool` steps are recorded with their attempts in there.

        Returns:
            Its result.

        Raises:
            NondeterminismError: The journal has another step in this place.
            SteelyardError: The step failed, now or in the journal.
            asyncio.CancelledError: The task was told to stop before.
        """
        if self.closed:
            # The task was told to stop, and goes on nevertheless, in a `finally` for instance.
            raise asyncio.CancelledError
        slot = self._slot(kind, name, fingerprint(asked, name))
        record = self.journal.steps.get(slot.path)
        if record is not None and record.done:
            if record.error_code:
                raise recorded_error(record.error_code, record.error)
            return record.result
        self.waits.begin()
        try:
            result = await self._run(slot, run)
        except (LeaseLostError, StoreError):
            # These say nothing of the step: a later worker will run it.
            raise
        except SteelyardError as error:
            await self._record(slot, None, error)
            raise
        else:
            if kind not in {"llm", "tool"}:
                await self._record(slot, result, None)
            return result
        finally:
            self.waits.end()

    async def _run(self, slot: Slot, run: Callable[[Slot], Awaitable[JsonValue]]) -> JsonValue:
        """Run a step; a durable one for which spend caps have no room waits until they have."""
        if self.fence is None or slot.kind not in {"llm", "tool"}:
            return await run(slot)
        record = self.journal.steps.get(slot.path)
        wait = None if record is None else record.cap_wait
        while True:
            if wait is not None:
                await self._caps.sit_out(wait)
            try:
                return await run(slot)
            except SpendCapError as error:
                # The refusal must be in the log for whoever goes on with the task, and for us.
                await self._dispatcher.durable(self.task_id, self.fence)
                attempts, wait = await self._caps.refused(slot.path, error)
                slot = msgspec.structs.replace(slot, attempt=attempts)
                await self.wait_begins(slot, wait.until_s, caps=wait.caps)

    async def local(self, name: str, asked: JsonValue, run: Callable[[], Any]) -> JsonValue:
        """The result of a local step: a function that runs right here, once."""

        async def performed(_: Slot) -> JsonValue:
            try:
                result: Any = run()
                if inspect.isawaitable(result):
                    result = await result
                # What a replay will read must be what the first run sees: tuples are lists.
                return msgspec.json.decode(msgspec.json.encode(result))
            except SteelyardError:
                raise
            except Exception as error:  # the executor's attempt boundary: steps raise anything
                raise StepFailedError(
                    f"local step {name} raised {type(error).__name__}: {error}"
                ) from error

        return await self.perform("local", name, asked, performed)

    def charge(self, slot: Slot, cost_usd: float) -> None:
        """A child cost so much; recorded with its step's end."""
        self._costs_usd[slot.path] = cost_usd

    async def wait_begins(
        self,
        slot: Slot,
        until_s: float | None,
        reserved_usd: float | None = None,
        caps: dict[str, float] | None = None,
    ) -> None:
        """Record that a step begins that may last long, and on what terms."""
        event = StepWaiting(
            t_s=self._dispatcher.now_s(),
            task_id=self.task_id,
            step_id=slot.step_id,
            path=slot.path,
            kind=slot.kind,
            name=slot.name,
            fingerprint=slot.fingerprint,
            until_s=until_s,
            reserved_usd=reserved_usd,
            caps=caps or {},
        )
        self._dispatcher.record(event, self.fence)
        await self._dispatcher.durable(self.task_id, self.fence)

    def fork(self) -> tuple[Slot, StepRecord | None]:
        """A place for a gather, and what the journal says of it: only failures are recorded."""
        slot = self._slot("gather", "gather", "")
        return slot, self.journal.steps.get(slot.path)

    @contextlib.contextmanager
    def branch(self, prefix: str) -> Generator[None, None, None]:
        """Count the steps of the block on a line of their own."""
        token = _BRANCH.set(_Branch(self, f"{prefix}."))
        try:
            yield
        finally:
            _BRANCH.reset(token)

    async def failed(self, slot: Slot, error: SteelyardError) -> None:
        """Record that a gather failed, so that a replay fails in the same way."""
        await self._record(slot, None, error)

    async def preempted(self, event: TaskPreempted) -> None:
        """Record that the main line was stopped."""
        self._dispatcher.record(event, self.fence)
        await self._dispatcher.durable(self.task_id, self.fence)

    def check_complete(self) -> None:
        """Refuse a replay that ended before it came to what is recorded.

        Raises:
            NondeterminismError: The main line has a recorded step that was not asked for.
        """
        for path, record in self.journal.steps.items():
            if record.done and path.isdigit() and path not in self._asked:
                raise NondeterminismError(
                    f"task {self.task_id} ended without asking for its recorded {record.told}; "
                    "run it with the code that it was begun with"
                )

    def _slot(self, kind: StepKind, name: str, asked: str) -> Slot:
        branch = _BRANCH.get()
        if branch is None or branch.owner is not self:
            branch = self._root
        path = branch.next_path()
        self._asked.add(path)
        record = self.journal.steps.get(path)
        if record is None:
            step_id = -1 if kind == "gather" else self._dispatcher.next_step_id(self.task_id)
            return Slot(step_id=step_id, path=path, kind=kind, name=name, fingerprint=asked)
        if (record.kind, record.name, record.fingerprint) != (kind, name, asked):
            raise NondeterminismError(
                f"task {self.task_id} now asks for {kind} step {name!r} at {path} (fingerprint "
                f"{asked}), where it had asked for {record.told}; run it with the code that it "
                "was begun with, and draw chance and time in steps"
            )
        return Slot(
            step_id=record.step_id,
            path=path,
            kind=kind,
            name=name,
            fingerprint=asked,
            attempt=record.attempts,
            until_s=record.until_s,
            reserved_usd=record.reserved_usd,
            charged_usd=record.charged_usd,
        )

    async def _record(self, slot: Slot, result: JsonValue, error: SteelyardError | None) -> None:
        step_id = slot.step_id
        if step_id < 0:
            step_id = self._dispatcher.next_step_id(self.task_id)
        event = StepRecorded(
            t_s=self._dispatcher.now_s(),
            task_id=self.task_id,
            step_id=step_id,
            path=slot.path,
            kind=slot.kind,
            name=slot.name,
            fingerprint=slot.fingerprint,
            result=result,
            error_code="" if error is None else error.code,
            error="" if error is None else str(error),
            cost_usd=self._costs_usd.pop(slot.path, 0.0),
        )
        self._dispatcher.record(event, self.fence)
        await self._dispatcher.durable(self.task_id, self.fence)
