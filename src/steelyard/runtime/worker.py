"""A worker takes tasks from the store by lease and runs them; any number work on one store."""

import asyncio
import contextlib
import math
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from steelyard.domain.events import JsonValue, TaskFinished, TaskRetried, TaskSubmitted
from steelyard.errors import LeaseLostError, StoreError
from steelyard.runtime.context import LlmClient
from steelyard.runtime.definitions import AgentTask
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.ends import Ends
from steelyard.runtime.journal import Journal
from steelyard.runtime.open_tasks import TaskLimits, TaskTerms
from steelyard.runtime.runner import RunningTask, TaskRunner
from steelyard.runtime.waits import Waits
from steelyard.runtime.worker_settings import TaskOrder, WorkerSettings
from steelyard.store.event_store import EventStore
from steelyard.store.tasks import (
    Claim,
    HeldTask,
    Lease,
    Parking,
    Submission,
    TaskState,
)

__all__ = ["TaskOrder", "Worker", "WorkerSettings"]

AnyAgent = AgentTask[Any, ..., Any]

# A cancellation reaches every running step within 1 s: half of it is for looking.
_LONGEST_LOOK_S = 0.5


class Worker:
    """Runs the tasks of some agents.

    A worker that dies needs no help: its leases run out, and a peer goes on with its tasks. One
    that only seemed dead finds its writes refused, and stops.

    Args:
        store: Where tasks are.
        dispatcher: Places and runs steps; records into the same store.
        gateway: Asks the gateway of this process, and the model of LLM steps that name none.
        agents: What it can run.
        settings: How.
    """

    def __init__(
        self,
        store: EventStore,
        dispatcher: Dispatcher,
        gateway: tuple[LlmClient, str],
        agents: tuple[AnyAgent, ...],
        settings: WorkerSettings | None = None,
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._runner = TaskRunner(dispatcher, gateway[0], gateway[1], children=self)
        self._agents: dict[str, AnyAgent] = {agent.name: agent for agent in agents}
        chosen = settings or WorkerSettings()
        # A worker never takes its own tasks, so one that is started anew needs a new name.
        self.name = f"{chosen.name}-{uuid.uuid4().hex[:12]}"
        self._settings = chosen
        self._running: dict[str, RunningTask] = {}
        self._is_working = False
        # Tasks that take a slot, and those that claims and submissions may bring.
        self._own = 0
        # Whether a free slot is worth a look into the store before it is time for one.
        self._may_be_more = True
        self._arriving = 0
        self._fences: dict[str, int] = {}
        self._ends = Ends(store, dispatcher, chosen.look_s, lambda task_id: task_id in self._fences)
        self._wake = asyncio.Event()
        self._spawned: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------- from outside

    async def submit(
        self,
        agent: AnyAgent,
        task_id: str,
        limits: TaskLimits,
        arguments: dict[str, JsonValue],
        *,
        order: TaskOrder | None = None,
    ) -> str:
        """Put a task into the store; it is on disk when this returns.

        Args:
            agent: What to run.
            task_id: Unique id; a task that is there already stays as it is.
            limits: Deadline and budget.
            arguments: The agent's arguments by name.
            order: Its priority, and the caller's key; None for the usual ones.

        Returns:
            Id of the task; of the first one with the key, where there is one.
        """
        now_s = self._dispatcher.now_s()
        event = TaskSubmitted(
            t_s=now_s,
            task_id=task_id,
            agent=agent.name,
            deadline_s=limits.deadline_from(now_s),
            budget_usd=limits.budget_usd,
            arguments=arguments,
        )
        order = order or TaskOrder()
        takes = self._takes_at_once(agent)
        submission = Submission(
            event=event,
            key=order.key,
            priority=order.priority,
            worker=self.name if takes else "",
            lease_s=self._settings.lease_s if takes else 0.0,
        )
        self._arriving += takes
        try:
            lease = await asyncio.wrap_future(self._store.submit(submission))
        finally:
            self._arriving -= takes
        if lease is None:
            self._wake.set()
        elif task_id not in self._fences and self._is_working:
            self._spawn(lease)
        if not order.key:
            return task_id
        return await asyncio.wrap_future(self._store.task_with_key(order.key)) or task_id

    def _takes_at_once(self, agent: AnyAgent) -> bool:
        """May this worker hold a task from its submission on? It saves asking for it.

        Only with a free place, so that no queued task waits for it, and only where no limit counts
        tasks over all workers.
        """
        limit = agent.limit
        free = limit.max_running is None and limit.starts is None
        return free and self._is_working and agent.name in self._agents and self._free() > 0

    def _free(self) -> int:
        """How many more tasks may it take? Children come on top."""
        return self._settings.slots - self._own - self._arriving

    async def result(
        self, task_id: str, told: Callable[[TaskState], None] = lambda _: None
    ) -> TaskFinished:
        """Wait for a task's end, whoever runs it.

        Args:
            task_id: The task.
            told: Called now and then with the state of a task that has not ended.

        Returns:
            How it ended; on disk by then.

        Raises:
            TaskNotFoundError: There is no such task.
        """
        return await self._ends.wait(task_id, told)

    # ------------------------------------------------------------------ working

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncGenerator["Worker", None]:
        """Take and run tasks while the block runs; what is running then is given back."""
        loops = [
            asyncio.create_task(self._until_broken(self._take_tasks)),
            asyncio.create_task(self._until_broken(self._look)),
        ]
        self._is_working = True
        try:
            yield self
        finally:
            self._is_working = False
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            self._leave_all()
            await asyncio.gather(*self._spawned, return_exceptions=True)

    async def _until_broken(self, loop: Callable[[], Awaitable[None]]) -> None:
        try:
            await loop()
        except StoreError as error:
            # Without its store a worker cannot know what it may do: it lets go of everything.
            self._ends.failure = error
            self._leave_all()

    def _leave_all(self) -> None:
        for running in list(self._running.values()):
            running.stop("leave")

    async def _take_tasks(self) -> None:
        loop = asyncio.get_running_loop()
        woke_s = -math.inf
        while True:
            # Asked anew each time: children may bring agents that were not known at the start.
            limits = {name: agent.limit for name, agent in self._agents.items()}
            limited = any(one.max_running is not None or one.starts for one in limits.values())
            free = self._free()
            self._wake.clear()
            leases: list[Lease] = []
            if free > 0 and limits:
                wish = Claim(
                    worker=self.name,
                    agents=limits,
                    count=free,
                    lease_s=self._settings.lease_s,
                    t_s=self._dispatcher.now_s(),
                    wake=loop.time() - woke_s >= self._settings.look_s / 2.0,
                )
                woke_s = loop.time() if wish.wake else woke_s
                self._arriving += free
                try:
                    leases = await asyncio.wrap_future(self._store.claim(wish))
                finally:
                    self._arriving -= free
            for lease in leases:
                self._spawn(lease)
            self._may_be_more = limited or free <= 0 or len(leases) == free
            if not leases or len(leases) < free:
                # Not asyncio.wait_for: before Python 3.12 it may swallow a cancellation.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._settings.look_s):
                        await self._wake.wait()

    def _spawn(self, lease: Lease, *, is_child: bool = False) -> None:
        self._own += not is_child
        self._fences[lease.task_id] = lease.fence
        work = asyncio.create_task(self._run(lease, is_child=is_child))
        self._spawned.add(work)
        work.add_done_callback(self._spawned.discard)

    async def _run(self, lease: Lease, *, is_child: bool) -> None:
        """Run a leased task; its end is in the store, so nothing is raised here."""
        await self._end_older_run(lease)
        running, terms = self._begin(self._agents[lease.agent], lease)
        running.is_child = is_child
        running.worker = asyncio.current_task()
        try:
            if running.steps.journal.cancel_requested:
                running.finished = self._dispatcher.close_task(lease.task_id, "cancelled")
            else:
                await self._runner.drive(running, terms)
        except (LeaseLostError, StoreError):
            # Another worker has it, or the log is broken, which every caller hears of by itself.
            pass
        except asyncio.CancelledError:
            if running.stopped is None:
                raise
        finally:
            await self._over(lease, running)

    async def _end_older_run(self, lease: Lease) -> None:
        """A task that was lost to a peer may come back before its old run here has noticed."""
        older = self._running.get(lease.task_id)
        if older is not None and older.worker is not None:
            older.stop("leave")
            await asyncio.wait([older.worker])

    def _begin(self, agent: AnyAgent, lease: Lease) -> tuple[RunningTask, TaskTerms]:
        submitted = next(one for one in lease.events if isinstance(one, TaskSubmitted))
        retried = [one for one in lease.events if isinstance(one, TaskRetried)]
        promised = retried[-1] if retried else submitted
        terms = TaskTerms(
            agent=lease.agent,
            deadline_s=promised.deadline_s,
            budget_usd=promised.budget_usd,
            fence=lease.fence,
        )
        journal = self._dispatcher.take_task(lease.task_id, terms, lease.events)
        running = self._runner.prepare(
            agent, lease.task_id, terms, journal, dict(submitted.arguments)
        )
        running.steps.waits.when_idle(
            self._settings.look_s / 2.0, lambda: self._park(running, terms)
        )
        self._running[lease.task_id] = running
        return running, terms

    def _park(self, running: RunningTask, terms: TaskTerms) -> None:
        """Let go of a task that only waits, unless its wait is as good as over."""
        waits, now_s = running.steps.waits, self._dispatcher.now_s()
        ends = [waits.until_s(), running.main_ends_s(terms.deadline_s)]
        until_s = min((one for one in ends if one is not None), default=None)
        if until_s is not None and until_s - now_s <= self._settings.park_s:
            return
        running.parking = Parking(
            task_id=running.steps.task_id,
            fence=terms.fence or 0,
            after_s=None if until_s is None else until_s - now_s,
            signals=waits.signals(),
            children=waits.children(),
        )
        running.stop("park")

    async def _over(self, lease: Lease, running: RunningTask) -> None:
        """Make the end of a run known, once it is on disk."""
        task_id, finished = lease.task_id, running.finished
        self._running.pop(task_id, None)
        self._own -= not running.is_child
        if self._may_be_more:
            self._wake.set()
        try:
            if finished is None:
                self._dispatcher.drop_task(task_id)
                if running.parking is not None and running.stopped == "park":
                    await asyncio.wrap_future(self._store.park(running.parking))
                else:
                    await asyncio.wrap_future(self._store.release(task_id, lease.fence))
            else:
                await self._dispatcher.durable(task_id, lease.fence)
        except (LeaseLostError, StoreError):
            finished = None
        finally:
            if self._fences.get(task_id) == lease.fence:
                del self._fences[task_id]
        if finished is not None:
            self._ends.tell(task_id, finished)

    # ------------------------------------------------------------------ looking

    async def _look(self) -> None:
        """Renew leases in time; see who is cancelled, signalled, or held by another worker."""
        loop = asyncio.get_running_loop()
        renewed_s = loop.time()
        strays: set[tuple[str, int]] = set()
        while True:
            await asyncio.sleep(
                min(self._settings.look_s, self._settings.lease_s / 4.0, _LONGEST_LOOK_S)
            )
            due = loop.time() - renewed_s >= self._settings.lease_s / 4.0
            known = dict(self._fences)
            if not known and not due:
                continue
            asked_s = loop.time()
            held = await asyncio.wrap_future(
                self._store.renew(self.name, self._settings.lease_s if due else 0.0)
            )
            renewed_s = asked_s if due else renewed_s
            await self._attend(known, {one.task_id: one for one in held})
            # Leases whose answer never came here: the caller gave up, or the connection broke.
            # What is seen twice is not just on its way.
            unknown = {(one.task_id, one.fence) for one in held if one.task_id not in self._fences}
            for task_id, fence in sorted(unknown & strays):
                await asyncio.wrap_future(self._store.release(task_id, fence))
            strays = unknown

    async def _attend(self, known: dict[str, int], held: dict[str, HeldTask]) -> None:
        for task_id, fence in known.items():
            running = self._running.get(task_id)
            if running is None or self._fences.get(task_id) != fence:
                continue
            found = held.get(task_id)
            if found is None or found.fence != fence:
                running.stop("leave")
            elif found.cancelled:
                running.stop("cancel")
            elif found.signals > running.inbox.count:
                running.inbox.update(Journal.of(await self._dispatcher.journal(task_id)))

    # ----------------------------------------------------------------- children

    async def retry_child(self, event: TaskSubmitted, cause: str) -> None:
        """Let a child that ended badly go on, since its parent was retried; once per cause."""
        journal = Journal.of(await self._dispatcher.journal(event.task_id))
        ended = journal.finished
        if ended is None or ended.status == "succeeded" or cause in journal.retries:
            return
        retried = TaskRetried(
            t_s=self._dispatcher.now_s(),
            task_id=event.task_id,
            deadline_s=event.deadline_s,
            budget_usd=event.budget_usd,
            cause=cause,
        )
        await asyncio.wrap_future(self._store.retry(retried))

    async def cost_usd(self, task_id: str) -> float:
        """What have a task and its children cost so far, in USD?"""
        return await asyncio.wrap_future(self._store.cost_usd(task_id))

    async def run_child(self, agent: AnyAgent, event: TaskSubmitted, waits: Waits) -> TaskFinished:
        """Submit a task of a task, run it here when it is new, and wait for its end."""
        # Known from here on, or nobody would take the child again once it was parked or lost.
        self._agents.setdefault(agent.name, agent)
        submission = Submission(event=event, worker=self.name, lease_s=self._settings.lease_s)
        lease = await asyncio.wrap_future(self._store.submit(submission))
        if lease is not None and event.task_id not in self._fences:
            self._spawn(lease, is_child=True)

        def told(state: TaskState) -> None:
            waits.child_waits(event.task_id, nobody_runs_it=state != "running")

        try:
            return await self.result(event.task_id, told)
        except asyncio.CancelledError:
            parent = self._running.get(event.parent)
            if parent is None or not parent.goes_on:
                # Nobody waits for this child any more; whoever runs it will stop it.
                self._store.cancel(event.task_id, self._dispatcher.now_s())
            raise
        finally:
            told("running")
