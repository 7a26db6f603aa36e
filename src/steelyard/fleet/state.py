"""FleetState: the fold of the event log. Live, simulated and replayed bookkeeping is this one."""

import math
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
    ReplicaChanged,
    StepPlaced,
    StepRecorded,
    StepWaiting,
    TaskFinished,
    TaskSubmitted,
)
from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import LlmCall, Step
from steelyard.fleet.accounts import OpenAttempt, TaskAccount
from steelyard.fleet.estimates import RunningMean, StepEstimate
from steelyard.fleet.loads import ReplicaLoads
from steelyard.fleet.prefix import PrefixIndex
from steelyard.fleet.view import (
    NO_HISTORY,
    FleetView,
    LlmArrays,
    TaskHistory,
    ToolArrays,
    llm_arrays,
    tool_arrays,
)
from steelyard.perf.predict import prefill_s, prefill_share_s, shared_itl_s

# Failures in a row after which a pool's circuit breaker opens, and for how long at first.
_BREAKER_FAILURES = 3
_BREAKER_OPEN_S = 5.0
_BREAKER_MAX_OPEN_S = 60.0
# Codes of failures that speak against the pool, not against the request.
_POOL_FAULTS = frozenset({"pool_unavailable", "pool_timeout", "pool_protocol", "pool"})
# A correction beyond this factor says that a curve is wrong, not that a machine is slow.
_MAX_LOG_CORRECTION = math.log(20.0)
# Tasks that only a request header names are never finished; the oldest accounts are dropped.
_MAX_OPEN_TASKS = 100_000
_MAX_ESTIMATES = 10_000
_MODELLESS = ""


class FleetState:
    """Everything a policy needs to know of the fleet, kept up to date event by event.

    The state knows no clock: the time of every change is in the event, and `view` is told the
    time. Applying the same events gives the same state, so a replayed log shows every policy
    exactly what it saw live.
    """

    def __init__(self) -> None:
        self._pools: list[PoolSpec] = []
        self._specs: tuple[PoolSpec, ...] = ()
        self._index: dict[str, int] = {}
        self._loads = ReplicaLoads()
        self._draining: set[tuple[int, int]] = set()
        self._prefixes = PrefixIndex()
        self._rent_usd_per_hour = np.zeros(0, dtype=np.float64)
        self._bid_usd_per_hour = np.zeros(0, dtype=np.float64)
        self._log_correction: list[RunningMean] = []
        self._correction = np.zeros(0, dtype=np.float64)
        self._failures: list[int] = []
        self._failed_s: list[float] = []
        self._open_until_s = np.zeros(0, dtype=np.float64)
        self._arrays: dict[str, LlmArrays | ToolArrays] = {}
        self._estimates: dict[tuple[str, str], StepEstimate] = {}
        self._tasks: dict[str, TaskAccount] = {}
        self._attempts: dict[tuple[str, int, int], OpenAttempt] = {}
        # By class: a chain of cases would be walked with every event of every request.
        self._takes: dict[type[Any], Callable[[Any], None]] = {
            PoolAdded: self._add_pool,
            BidChanged: self._change_bid,
            ReplicaChanged: self._change_replica,
            TaskSubmitted: self._open_task,
            StepPlaced: self._place,
            AttemptStarted: self._start,
            AttemptFinished: self._finish,
            TaskFinished: self._close_task,
            StepWaiting: self._reserve_child,
            StepRecorded: self._charge_child,
        }

    @property
    def pools(self) -> tuple[PoolSpec, ...]:
        """Specifications of all pools, in the order in which they joined."""
        return self._specs

    def spec(self, pool: str) -> PoolSpec | None:
        """Specification of a pool; None when there is no such pool."""
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
        estimate = self._estimates.get((step.agent, step.name)) or StepEstimate.unseen()
        account = self._tasks.get(step.task_id)
        return FleetView(
            now_s=now_s,
            pools=self._specs,
            arrays=self._arrays_for(model),
            rent_usd_per_hour=self._rent_usd_per_hour,
            bid_usd_per_hour=self._bid_usd_per_hour,
            correction=self._correction,
            closed=self._open_until_s <= now_s,
            offsets=self._loads.offsets,
            running=self._loads.running,
            waiting=self._loads.waiting,
            service_sum_s=self._loads.service_sum_s,
            prefill_share_sum_s=self._loads.prefill_share_sum_s,
            up=self._loads.up,
            cached_tokens=self._cached_tokens(step),
            expected=estimate.expectation(step.step_id, max_output_tokens, memory_bytes),
            committed_usd=self.committed_usd(step.task_id),
            history=NO_HISTORY if account is None else self._history(account),
        )

    def _history(self, account: TaskAccount) -> TaskHistory:
        place = account.last_place
        known = place is not None and place[1] < self._pools[place[0]].replicas
        return TaskHistory(
            submitted_s=account.submitted_s,
            attained_s=account.attained_s,
            last_at=int(self._loads.offsets[place[0]]) + place[1] if place and known else -1,
            last_end_s=account.last_end_s,
        )

    def replica_index(self, pool: str, replica: int) -> int:
        """Where does a replica stand in the arrays of shape [replicas]?"""
        return int(self._loads.offsets[self._index[pool]]) + replica

    def running_on(self, pool: str, replica: int) -> int:
        """How many steps run on a replica now?"""
        return int(self._loads.running[self.replica_index(pool, replica)])

    def waiting_on(self, pool: str, replica: int) -> int:
        """How many steps wait for a replica now?"""
        return int(self._loads.waiting[self.replica_index(pool, replica)])

    def replicas_up(self, pool: str) -> int:
        """How many replicas of a pool are up?"""
        index = self._index[pool]
        first, end = int(self._loads.offsets[index]), int(self._loads.offsets[index + 1])
        return int(np.count_nonzero(self._loads.up[first:end]))

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

    def forget_task(self, task_id: str) -> None:
        """Close a task's account without learning from it: it goes on in another process."""
        self._tasks.pop(task_id, None)

    def _arrays_for(self, model: str) -> LlmArrays | ToolArrays:
        arrays = self._arrays.get(model)
        if arrays is None:
            pools = tuple(self._pools)
            arrays = tool_arrays(pools) if model == _MODELLESS else llm_arrays(pools, model)
            self._arrays[model] = arrays
        return arrays

    def _cached_tokens(self, step: Step) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        cached = np.zeros(len(self._loads.running), dtype=np.float64)
        call = step.call
        if isinstance(call, LlmCall) and call.prefix_hashes:
            held = self._prefixes.holders(call.prefix_hashes, call.prefix_tokens)
            for (pool, replica), tokens in held.items():
                cached[self._loads.offsets[pool] + replica] = tokens
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
            self._bid_usd_per_hour = np.append(self._bid_usd_per_hour, spec.usd_per_hour)
            self._log_correction.append(RunningMean())
            self._correction = np.append(self._correction, 1.0)
            self._failures.append(0)
            self._failed_s.append(-math.inf)
            self._open_until_s = np.append(self._open_until_s, -math.inf)
        else:
            self._pools[index] = spec
            self._bid_usd_per_hour[index] = spec.usd_per_hour
        self._specs = tuple(self._pools)
        # A new array, never a changed one: views share it.
        self._rent_usd_per_hour = np.array([one.usd_per_hour for one in self._pools])
        self._arrays.clear()
        self._lay_out_replicas()

    def _lay_out_replicas(self) -> None:
        """Give every replica its place in the arrays; those that stay keep their counts."""
        kept = np.diff(self._loads.offsets).tolist()
        counts = [spec.replicas for spec in self._pools]
        for index, before in enumerate(kept):
            self._prefixes.shrink(index, min(before, counts[index]))
        self._loads.lay_out(counts)

    def _change_replica(self, event: ReplicaChanged) -> None:
        place = (self._index[event.pool], event.replica)
        self._loads.up[self.replica_index(event.pool, event.replica)] = event.up
        stayed = place in self._draining
        self._draining.discard(place)
        if event.draining:
            self._draining.add(place)
        elif not (event.up and stayed):
            self._prefixes.clear(place)
        if event.up:
            # Its watcher has tried it: better evidence than the failures before.
            self._close_breaker(self._index[event.pool])

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
        self._loads.place(int(self._loads.offsets[attempt.pool]) + attempt.replica, attempt)
        account = self._tasks.get(step.task_id)
        if account is not None:
            account.reserved_usd += attempt.reserved_usd

    def _start(self, event: AttemptStarted) -> None:
        attempt = self._attempts[(event.task_id, event.step_id, event.attempt)]
        at = self._flat(attempt)
        attempt.started_s = event.t_s
        if at is not None:
            self._loads.start(at, attempt)

    def _flat(self, attempt: OpenAttempt) -> int | None:
        """Place of the attempt's replica; None when the pool has shrunk below it."""
        if attempt.replica >= self._pools[attempt.pool].replicas:
            return None
        return int(self._loads.offsets[attempt.pool]) + attempt.replica

    def _finish(self, event: AttemptFinished) -> None:
        attempt = self._attempts.pop((event.task_id, event.step_id, event.attempt), None)
        if attempt is None:
            # Placed by another process, or given up as lost before: only its cost counts here.
            self._charge(event)
            return
        at = self._flat(attempt)
        if at is not None:
            self._loads.finish(at, attempt)
        account = self._charge(event)
        if account is not None:
            account.reserved_usd -= attempt.reserved_usd
        if event.outcome == "ok":
            self._learn(event, attempt, account)
        elif event.error_code in _POOL_FAULTS:
            self._count_failure(attempt, event.t_s)

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
        if (pool, attempt.replica) in self._draining:
            # It was announced, and says nothing against the others.
            return
        started_s = t_s if attempt.started_s is None else attempt.started_s
        if started_s <= self._failed_s[pool]:
            return
        self._failed_s[pool] = t_s
        self._failures[pool] += 1
        over = self._failures[pool] - _BREAKER_FAILURES
        if over >= 0:
            # The exponent is bounded, too: an outage may fail thousands of attempts in a row.
            open_s = _BREAKER_OPEN_S * 2.0 ** min(over, 16)
            self._open_until_s[pool] = t_s + min(_BREAKER_MAX_OPEN_S, open_s)

    def _close_breaker(self, pool: int) -> None:
        self._failures[pool] = 0
        self._open_until_s[pool] = -math.inf

    def _learn(
        self, event: AttemptFinished, attempt: OpenAttempt, account: TaskAccount | None
    ) -> None:
        """Correct what is expected of the pool and of such steps by what was measured."""
        self._close_breaker(attempt.pool)
        step, usage, spec = attempt.step, event.usage, self._pools[attempt.pool]
        estimate = self._estimate_of(step.agent, step.name)
        if isinstance(step.call, LlmCall):
            estimate.output_tokens.add(usage.output_tokens)
            if attempt.replica < spec.replicas:
                place = (attempt.pool, attempt.replica)
                self._prefixes.add(place, step.call.prefix_hashes, step.call.prefix_tokens)
            curve = spec.llm_curves[step.call.model]
            uncached = float(usage.input_tokens - usage.cached_tokens)
            predicted_s = prefill_s(curve.ttft_floor_s, curve.prefill_s_per_token, uncached)
            predicted_s += usage.output_tokens * shared_itl_s(
                curve.itl_base_s,
                curve.itl_slope_s,
                float(attempt.concurrency),
                attempt.neighbours_share_s,
            )
            if predicted_s > 0.0 and usage.wall_s > 0.0:
                ratio = math.log(usage.wall_s / predicted_s)
                ratio = max(-_MAX_LOG_CORRECTION, min(_MAX_LOG_CORRECTION, ratio))
                mean = self._log_correction[attempt.pool]
                mean.add(ratio)
                self._correction[attempt.pool] = math.exp(mean.value)
        elif spec.tool_curve is not None:
            estimate.cpu_s.add(usage.cpu_s * spec.tool_curve.relative_speed)
            # The start is on the pool's curve already; counted here, it would be paid for twice.
            other_s = usage.wall_s - usage.cpu_s - spec.tool_curve.start_s
            estimate.other_s.add(max(0.0, other_s))
            estimate.memory_bytes.add(usage.memory_bytes)
        if account is not None:
            self._advance(account, attempt, event)

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

    def _estimate_of(self, agent: str, name: str) -> StepEstimate:
        """The estimate to learn into; the oldest goes when clients make up ever new names."""
        estimate = self._estimates.get((agent, name))
        if estimate is None:
            if len(self._estimates) >= _MAX_ESTIMATES:
                self._estimates.pop(next(iter(self._estimates)))
            estimate = self._estimates[(agent, name)] = StepEstimate.unseen()
        return estimate

    def _close_task(self, event: TaskFinished) -> None:
        account = self._tasks.pop(event.task_id, None)
        if account is None or event.status != "succeeded":
            return
        for name, step_id, t_s in account.finished:
            estimate = self._estimate_of(account.agent, name)
            estimate.add_remaining(step_id, max(0.0, event.t_s - account.avoidable_s - t_s))


def _share_s(spec: PoolSpec, step: Step, decision: Decision) -> float:
    """Prefill that a step brings to its replica per token, as was predicted when it was placed."""
    curve = spec.llm_curves.get(step.call.model) if isinstance(step.call, LlmCall) else None
    # A vendor's streams are spread over machines that nobody sees: no prefill of ours stalls them.
    if curve is None or not isinstance(step.call, LlmCall) or spec.token_price is not None:
        return 0.0
    uncached = max(0.0, float(step.call.input_tokens - decision.predicted_cached_tokens))
    return prefill_share_s(curve.prefill_s_per_token, uncached, decision.predicted_output_tokens)
