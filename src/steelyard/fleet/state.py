"""FleetState: the fold of the event log. Live, simulated and replayed bookkeeping is this one."""

from array import array
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from steelyard.domain.decision import Decision
from steelyard.domain.events import (
    AttemptFinished,
    AttemptStarted,
    BidChanged,
    Event,
    PoolAdded,
    PoolRemoved,
    ReplicaChanged,
    RequestServed,
    StepPlaced,
    StepRecorded,
    StepWaiting,
    TaskFinished,
    TaskSubmitted,
    parts,
)
from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import LlmCall, Step
from steelyard.fleet.accounts import OpenAttempt, TaskAccount
from steelyard.fleet.breakers import Breakers
from steelyard.fleet.estimates import StepEstimate
from steelyard.fleet.lessons import Lessons
from steelyard.fleet.prefix import Place, PrefixIndex
from steelyard.fleet.replica_books import ReplicaBooks, window
from steelyard.fleet.view import (
    NO_HISTORY,
    FewView,
    FleetView,
    LlmArrays,
    TaskHistory,
    ToolArrays,
    llm_arrays,
    tool_arrays,
)
from steelyard.perf.predict import prefill_share_s

# Codes of failures that speak against the pool, not against the request.
_POOL_FAULTS = frozenset({"pool_unavailable", "pool_timeout", "pool_protocol", "pool"})
# Tasks that only a request header names are never finished; the oldest accounts are dropped.
_MAX_OPEN_TASKS = 100_000
_MODELLESS = ""
# Curves are kept per model and list of allowed pools, of which callers have few.
_MAX_ARRAYS = 1000


class FleetState:
    """Everything a policy needs to know of the fleet, kept up to date event by event.

    The state knows no clock: the time of every change is in the event, and `view` is told the
    time. Applying the same events gives the same state, so a replayed log shows every policy
    exactly what it saw live.
    """

    def __init__(self) -> None:
        self._pools: list[PoolSpec] = []
        self._specs: tuple[PoolSpec, ...] = ()
        self._staying: tuple[PoolSpec, ...] = ()
        self._index: dict[str, int] = {}
        self._books = ReplicaBooks()
        self._draining: set[tuple[int, int]] = set()
        self._leaving: set[str] = set()
        self._prefixes = PrefixIndex()
        self._rents: list[float] = []
        self._rent_usd_per_hour = np.zeros(0, dtype=np.float64)
        self._bid_usd_per_hour = array("d")
        self._lessons = Lessons()
        self._breakers = Breakers()
        self._arrays: dict[tuple[str, tuple[str, ...]], LlmArrays | ToolArrays] = {}
        self._tasks: dict[str, TaskAccount] = {}
        self._attempts: dict[tuple[str, int, int], OpenAttempt] = {}
        # Requests that will be one event; their tasks have no account.
        self._whole: dict[tuple[str, int, int], OpenAttempt] = {}
        # By class: a chain of cases would be walked with every event of every request.
        self._takes: dict[type[Any], Callable[[Any], None]] = {
            PoolAdded: self._add_pool,
            PoolRemoved: self._remove_pool,
            BidChanged: self._change_bid,
            ReplicaChanged: self._change_replica,
            TaskSubmitted: self._open_task,
            StepPlaced: self._place,
            AttemptStarted: self._start,
            AttemptFinished: self._finish,
            TaskFinished: self._close_task,
            StepWaiting: self._reserve_child,
            StepRecorded: self._charge_child,
            RequestServed: self._serve,
        }

    @property
    def pools(self) -> tuple[PoolSpec, ...]:
        """Specifications of the pools that take steps, in the order in which they joined."""
        return self._staying

    def spec(self, pool: str) -> PoolSpec | None:
        """Specification of a pool, of one that leaves, too; None when there is no such pool."""
        index = self._index.get(pool)
        return None if index is None else self._pools[index]

    def apply(self, event: Event) -> None:
        """Take one event into account.

        Args:
            event: The next event of the log.
        """
        take = self._takes.get(type(event))
        # Nothing else changes the fleet.
        if take is not None:
            take(event)

    def view(self, step: Step, now_s: float) -> FleetView:
        """What does the fleet look like to this step, now?

        Args:
            step: The step to be placed.
            now_s: Time on the log's clock.

        Returns:
            A snapshot that later events do not change.
        """
        seen = self.glance(step, now_s)
        return msgspec.structs.replace(
            seen,
            bid_usd_per_hour=seen.bid_usd_per_hour.copy(),
            correction=seen.correction.copy(),
            running=seen.running.copy(),
            waiting=seen.waiting.copy(),
            service_sum_s=seen.service_sum_s.copy(),
            prefill_share_sum_s=seen.prefill_share_sum_s.copy(),
            up=seen.up.copy(),
        )

    def glance(self, step: Step, now_s: float) -> FleetView:
        """The same without copies, for a policy that answers before the next event.

        Args:
            step: The step to be placed.
            now_s: Time on the log's clock.

        Returns:
            A view that shows the fleet as it is, later events included.
        """
        call = step.call
        model = call.model if isinstance(call, LlmCall) else _MODELLESS
        max_output_tokens = float(call.max_output_tokens) if isinstance(call, LlmCall) else 0.0
        memory_bytes = 0.0 if isinstance(call, LlmCall) else float(call.memory_bytes)
        estimate = self._lessons.known(step) or StepEstimate.unseen()
        account, books = self._tasks.get(step.task_id), self._books
        up = self._breakers.trusted(books.up, books.starts, now_s)
        return FleetView(
            now_s=now_s,
            pools=self._specs,
            arrays=self._arrays_for(model, step.pools),
            rent_usd_per_hour=self._rent_usd_per_hour,
            bid_usd_per_hour=window(self._bid_usd_per_hour),
            correction=window(self._lessons.correction),
            closed=self._breakers.closed_array(now_s),
            offsets=books.offsets,
            running=books.running_window,
            waiting=books.waiting_window,
            service_sum_s=books.service_sum_window_s,
            prefill_share_sum_s=books.prefill_share_window_s,
            up=books.up_window if up is books.up else np.frombuffer(up, dtype=np.bool_),
            cached_tokens=self._cached_tokens(step),
            expected=estimate.expectation(step.step_id, max_output_tokens, memory_bytes),
            committed_usd=self.committed_usd(step.task_id),
            history=NO_HISTORY if account is None else self._history(account),
            failed_at=self._failed_at(account, step) if account and step.attempt else (),
        )

    @property
    def size(self) -> tuple[int, int]:
        """How many pools and replicas are there?"""
        return len(self._pools), len(self._books.running)

    def few(self, step: Step, call: LlmCall, now_s: float) -> FewView:
        """What does a fleet of few pools look like to an LLM step, until the next event?

        Args:
            step: The step to be placed.
            call: What it asks.
            now_s: Time on the log's clock.

        Returns:
            The same as `glance`, in plain numbers.
        """
        estimate = self._lessons.known(step)
        output, remaining_s, known = float(call.max_output_tokens), 0.0, False
        if estimate is not None:
            output, remaining_s, known = estimate.usual(step.step_id, output)
        account, books = self._tasks.get(step.task_id), self._books
        arrays = self._arrays.get((call.model, step.pools))
        if arrays is None:
            arrays = self._arrays_for(call.model, step.pools)
        held = self._prefixes.holders(call.prefix_hashes, call.prefix_tokens)
        return FewView(
            now_s,
            arrays.rows if isinstance(arrays, LlmArrays) else (),
            self._rents,
            self._bid_usd_per_hour,
            self._lessons.correction,
            self._breakers.closed(now_s),
            books.starts,
            books.running,
            books.waiting,
            books.service_sum_s,
            books.prefill_share_sum_s,
            self._breakers.trusted(books.up, books.starts, now_s),
            self._cached_list(held) if held else None,
            output,
            remaining_s,
            known,
            0.0 if account is None else account.spent_usd + account.reserved_usd,
        )

    def _failed_at(self, account: TaskAccount, step: Step) -> tuple[int, ...]:
        """Where did earlier attempts at a step fail? Places that are still there."""
        starts = self._books.starts
        return tuple(
            starts[pool] + replica
            for pool, replica in account.failed.get(step.step_id, ())
            if replica < self._pools[pool].replicas
        )

    def _cached_list(self, held: dict[Place, int]) -> list[float]:
        starts = self._books.starts
        cached = [0.0] * starts[-1]
        for (pool, replica), tokens in held.items():
            cached[starts[pool] + replica] = float(tokens)
        return cached

    def _history(self, account: TaskAccount) -> TaskHistory:
        place = account.last_place
        known = place is not None and place[1] < self._pools[place[0]].replicas
        return TaskHistory(
            submitted_s=account.submitted_s,
            attained_s=account.attained_s,
            last_at=self._books.starts[place[0]] + place[1] if place and known else -1,
            last_end_s=account.last_end_s,
        )

    def replica_index(self, pool: str, replica: int) -> int:
        """Where does a replica stand in the arrays of shape [replicas]?"""
        return self._books.starts[self._index[pool]] + replica

    def running_on(self, pool: str, replica: int) -> int:
        """How many steps run on a replica now?"""
        return int(self._books.running[self.replica_index(pool, replica)])

    def waiting_on(self, pool: str, replica: int) -> int:
        """How many steps wait for a replica now?"""
        return int(self._books.waiting[self.replica_index(pool, replica)])

    def replicas_up(self, pool: str) -> int:
        """How many replicas of a pool are up?"""
        index = self._index[pool]
        first, end = self._books.starts[index], self._books.starts[index + 1]
        return sum(self._books.up[first:end])

    def cached_tokens_on(self, pool: str, replica: int, call: LlmCall) -> int:
        """How many tokens of a prompt does a replica hold in its prefix cache?

        Args:
            pool: Name of the pool.
            replica: Index of the replica in the pool.
            call: The call with the prompt.

        Returns:
            Tokens, never more than the prompt has.
        """
        place = (self._index[pool], replica)
        held = self._prefixes.cached_tokens(place, call.prefix_hashes, call.prefix_tokens)
        return min(call.input_tokens, held)

    def spent_usd(self, task_id: str) -> float:
        """What have the finished attempts of an open task cost, in USD?"""
        account = self._tasks.get(task_id)
        return 0.0 if account is None else account.spent_usd

    def committed_usd(self, task_id: str) -> float:
        """What has an open task spent or reserved, its children's budgets included, in USD?"""
        account = self._tasks.get(task_id)
        return 0.0 if account is None else account.spent_usd + account.reserved_usd

    def has_task(self, task_id: str) -> bool:
        """Is the task open?"""
        return task_id in self._tasks

    def open_attempts(self, pool: str) -> frozenset[tuple[str, int, int]]:
        """Which attempts were placed in a pool and have not ended? Task, step and attempt."""
        index = self._index.get(pool)
        held = (self._attempts, self._whole)
        return frozenset(key for open_ in held for key, one in open_.items() if one.pool == index)

    def forget_task(self, task_id: str) -> None:
        """Close a task's account without learning from it: it goes on in another process."""
        self._tasks.pop(task_id, None)

    def _arrays_for(self, model: str, allowed: tuple[str, ...]) -> LlmArrays | ToolArrays:
        """Curves of all pools; those that the step may not go to, or that leave, serve nothing."""
        arrays = self._arrays.get((model, allowed))
        if arrays is None:
            if len(self._arrays) >= _MAX_ARRAYS:
                self._arrays.clear()
            pools = tuple(self._pools)
            names = {one.name for one in pools} - self._leaving
            names &= set(allowed) or names
            arrays = (
                tool_arrays(pools, names)
                if model == _MODELLESS
                else llm_arrays(pools, model, names)
            )
            self._arrays[(model, allowed)] = arrays
        return arrays

    def _cached_tokens(self, step: Step) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        cached = np.zeros(len(self._books.running), dtype=np.float64)
        call = step.call
        if isinstance(call, LlmCall) and call.prefix_hashes:
            held = self._prefixes.holders(call.prefix_hashes, call.prefix_tokens)
            for (pool, replica), tokens in held.items():
                cached[self._books.starts[pool] + replica] = tokens
        return cached

    def _change_bid(self, event: BidChanged) -> None:
        self._bid_usd_per_hour[self._index[event.pool]] = event.bid_usd_per_hour

    def _open_task(self, event: TaskSubmitted) -> None:
        self._tasks[event.task_id] = TaskAccount(event.agent, submitted_s=event.t_s)
        if len(self._tasks) > _MAX_OPEN_TASKS:
            self._tasks.pop(next(iter(self._tasks)))

    def _add_pool(self, event: PoolAdded) -> None:
        spec = event.spec
        index = self._index.get(spec.name)
        if index is None:
            self._index[spec.name] = len(self._pools)
            self._pools.append(spec)
            # A new array, never a longer one: views share it.
            self._bid_usd_per_hour = self._bid_usd_per_hour + array("d", [spec.usd_per_hour])
            self._lessons.add_pool()
            self._breakers.add()
        else:
            self._pools[index] = spec
            self._bid_usd_per_hour[index] = spec.usd_per_hour
        self._specs = tuple(self._pools)
        is_back = spec.name in self._leaving
        self._leaving.discard(spec.name)
        self._staying = tuple(one for one in self._pools if one.name not in self._leaving)
        # A new array, never a changed one: views share it.
        self._rents = [one.usd_per_hour for one in self._pools]
        self._rent_usd_per_hour = np.array(self._rents)
        self._arrays.clear()
        counts = [one.replicas for one in self._pools]
        for pool in range(len(self._books.starts) - 1):
            self._prefixes.shrink(pool, counts[pool])
            self._breakers.shrink(pool, counts[pool])
        self._draining = {one for one in self._draining if one[1] < counts[one[0]]}
        self._books.lay_out(counts)
        if is_back:
            self._begin_anew(self._index[spec.name])

    def _begin_anew(self, pool: int) -> None:
        """A pool that had left is back: what was known of its replicas was true of others."""
        self._prefixes.shrink(pool, 0)
        self._breakers.forget(pool)
        self._draining = {one for one in self._draining if one[0] != pool}
        first, end = self._books.starts[pool], self._books.starts[pool + 1]
        self._books.up[first:end] = b"\1" * (end - first)

    def _remove_pool(self, event: PoolRemoved) -> None:
        """Its place in the arrays stays: attempts that run there are known by it."""
        self._leaving.add(event.pool)
        self._staying = tuple(one for one in self._pools if one.name not in self._leaving)
        self._arrays.clear()

    def _change_replica(self, event: ReplicaChanged) -> None:
        place = (self._index[event.pool], event.replica)
        self._books.up[self.replica_index(event.pool, event.replica)] = event.up
        stayed = place in self._draining
        self._draining.discard(place)
        if event.draining:
            self._draining.add(place)
        elif not (event.up and stayed):
            self._prefixes.clear(place)
        if event.up:
            # Its watcher has tried it: better evidence than the failures before.
            self._breakers.works(place)

    def _place(self, event: StepPlaced) -> None:
        step, decision = event.step, event.decision
        attempt = OpenAttempt(
            step=step,
            pool=self._index[decision.pool],
            replica=decision.replica,
            service_s=decision.predicted_finish_s - decision.predicted_wait_s,
            reserved_usd=decision.predicted_cost_usd,
            placed_s=event.t_s,
            least_s=decision.predicted_least_s,
            share_s=_share_s(self._pools[self._index[decision.pool]], step, decision),
        )
        self._attempts[(step.task_id, step.step_id, step.attempt)] = attempt
        self._books.place(self._books.starts[attempt.pool] + attempt.replica, attempt)
        account = self._tasks.get(step.task_id)
        if account is not None:
            account.reserved_usd += attempt.reserved_usd

    def _start(self, event: AttemptStarted) -> None:
        attempt = self._attempts[(event.task_id, event.step_id, event.attempt)]
        at = self._flat(attempt)
        attempt.started_s = event.t_s
        if at is not None:
            self._books.start(at, attempt)

    def _flat(self, attempt: OpenAttempt) -> int | None:
        """Place of the attempt's replica; None when the pool has shrunk below it."""
        if attempt.replica >= self._pools[attempt.pool].replicas:
            return None
        return self._books.starts[attempt.pool] + attempt.replica

    def _finish(self, event: AttemptFinished) -> None:
        attempt = self._attempts.pop((event.task_id, event.step_id, event.attempt), None)
        if attempt is None:
            # Placed by another process, or given up as lost before: only its cost counts here.
            self._charge(event)
            return
        at = self._flat(attempt)
        if at is not None:
            self._books.finish(at, attempt)
        account = self._charge(event)
        if account is not None:
            account.reserved_usd -= attempt.reserved_usd
            _note_failure(account, attempt, event)
        if event.outcome == "ok":
            self._learn(event, attempt)
            if account is not None:
                self._advance(account, attempt, event)
        elif event.error_code in _POOL_FAULTS:
            self._count_failure(attempt, event.t_s)

    def begin(self, step: Step, decision: Decision, now_s: float) -> OpenAttempt:
        """A request that will be one event at its end is placed, and starts at once.

        Args:
            step: Its step.
            decision: Where it goes.
            now_s: Time on the log's clock.

        Returns:
            The attempt, for `end`.
        """
        pool = self._index[decision.pool]
        attempt = OpenAttempt(
            step=step,
            pool=pool,
            replica=decision.replica,
            service_s=decision.predicted_finish_s - decision.predicted_wait_s,
            reserved_usd=decision.predicted_cost_usd,
            started_s=now_s,
            placed_s=now_s,
            least_s=decision.predicted_least_s,
            share_s=_share_s(self._pools[pool], step, decision),
        )
        at = self._books.starts[pool] + decision.replica
        self._books.place(at, attempt)
        self._books.start(at, attempt)
        self._whole[(step.task_id, step.step_id, step.attempt)] = attempt
        return attempt

    def adopt(self, attempt: OpenAttempt, submitted: TaskSubmitted) -> None:
        """A begun request becomes five events after all: its first three change nothing more."""
        step = attempt.step
        self._open_task(submitted)
        self._tasks[step.task_id].reserved_usd += attempt.reserved_usd
        key = (step.task_id, step.step_id, step.attempt)
        self._attempts[key] = self._whole.pop(key)

    def end(self, attempt: OpenAttempt, event: RequestServed) -> None:
        """What `begin` began has ended; the same as the fold of the event's `parts`."""
        step = attempt.step
        del self._whole[(step.task_id, step.step_id, step.attempt)]
        at = self._flat(attempt)
        if at is not None:
            self._books.finish(at, attempt)
        if event.outcome == "ok":
            # Nothing is left of its task after its only step.
            self._learn(event, attempt).add_remaining(step.step_id, 0.0)

    def _serve(self, event: RequestServed) -> None:
        for part in parts(event):
            self.apply(part)

    def _reserve_child(self, event: StepWaiting) -> None:
        """A child begins: its budget is taken out of its parent's."""
        account = self._tasks.get(event.task_id)
        if account is None or event.kind != "child":
            return
        # A child of a retried task is reserved for anew.
        account.reserved_usd -= account.children_usd.get(event.step_id, 0.0)
        account.children_usd[event.step_id] = event.reserved_usd or 0.0
        account.reserved_usd += account.children_usd[event.step_id]

    def _charge_child(self, event: StepRecorded) -> None:
        """A child has ended: its parent is charged what it cost."""
        account = self._tasks.get(event.task_id)
        if account is None or event.kind != "child":
            return
        account.reserved_usd -= account.children_usd.pop(event.step_id, 0.0)
        account.spent_usd += event.cost_usd

    def _charge(self, event: AttemptFinished) -> TaskAccount | None:
        account = self._tasks.get(event.task_id)
        if account is not None:
            account.spent_usd += event.cost_usd
        return account

    def _count_failure(self, attempt: OpenAttempt, t_s: float) -> None:
        """Count towards the breaker; whatever ran when a fault showed fails by the same fault."""
        pool = attempt.pool
        if (pool, attempt.replica) in self._draining or self._flat(attempt) is None:
            # It was announced, and says nothing against the others.
            return
        started_s = t_s if attempt.started_s is None else attempt.started_s
        up = self._books.up[self._books.starts[pool] : self._books.starts[pool + 1]]
        others = sum(up[: attempt.replica]) + sum(up[attempt.replica + 1 :])
        place = (pool, attempt.replica)
        self._breakers.failed(place, started_s, t_s, alone=others == 0)

    def _learn(self, event: AttemptFinished | RequestServed, attempt: OpenAttempt) -> StepEstimate:
        """Correct what is expected of the pool and of such steps by what was measured."""
        self._breakers.works((attempt.pool, attempt.replica))
        call, spec = attempt.step.call, self._pools[attempt.pool]
        if isinstance(call, LlmCall) and attempt.replica < spec.replicas:
            place = (attempt.pool, attempt.replica)
            self._prefixes.add(place, call.prefix_hashes, call.prefix_tokens)
        return self._lessons.learn(event.usage, attempt, spec)

    def _advance(self, account: TaskAccount, attempt: OpenAttempt, event: AttemptFinished) -> None:
        """Note how far the task has come; waits and slow machines count as avoidable."""
        step = attempt.step
        account.attained_s += event.usage.wall_s
        if isinstance(step.call, LlmCall):
            account.last_place = (attempt.pool, attempt.replica)
            account.last_end_s = event.t_s
        if attempt.least_s is not None:
            took_s = event.t_s - attempt.placed_s
            account.avoidable_s += max(0.0, took_s - attempt.least_s)
        account.finished.append((step.name, step.step_id, event.t_s - account.avoidable_s))

    def _close_task(self, event: TaskFinished) -> None:
        account = self._tasks.pop(event.task_id, None)
        if account is None or event.status != "succeeded":
            return
        for name, step_id, t_s in account.finished:
            estimate = self._lessons.estimate_of(account.agent, name)
            estimate.add_remaining(step_id, max(0.0, event.t_s - account.avoidable_s - t_s))


def _note_failure(account: TaskAccount, attempt: OpenAttempt, event: AttemptFinished) -> None:
    """Remember where a step failed, until it has a result."""
    if event.outcome == "failed":
        places = account.failed.setdefault(event.step_id, [])
        places.append((attempt.pool, attempt.replica))
    elif account.failed:
        account.failed.pop(event.step_id, None)


def _share_s(spec: PoolSpec, step: Step, decision: Decision) -> float:
    """Prefill that a step brings to its replica per token, as was predicted when it was placed."""
    curve = spec.llm_curves.get(step.call.model) if isinstance(step.call, LlmCall) else None
    # A vendor's streams are spread over machines that nobody sees: no prefill of ours stalls them.
    if curve is None or not isinstance(step.call, LlmCall) or spec.token_price is not None:
        return 0.0
    uncached = max(0.0, float(step.call.input_tokens - decision.predicted_cached_tokens))
    return prefill_share_s(curve.prefill_s_per_token, uncached, decision.predicted_output_tokens)
