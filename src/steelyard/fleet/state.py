"""FleetState: the fold of the event log. Live, simulated and replayed bookkeeping is this one."""

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

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
from steelyard.fleet.accounts import OpenAttempt, placed_attempt
from steelyard.fleet.breakers import Breakers
from steelyard.fleet.contexts import Contexts
from steelyard.fleet.estimates import StepEstimate
from steelyard.fleet.lessons import Lessons
from steelyard.fleet.prefix import PrefixIndex, RecentPrefix
from steelyard.fleet.provider_spend import ProviderSpend
from steelyard.fleet.replica_books import ReplicaBooks
from steelyard.fleet.roster import Roster
from steelyard.fleet.sharing import ReplicaLoad
from steelyard.fleet.snapshots import Snapshots
from steelyard.fleet.task_books import TaskBooks, note_failure
from steelyard.fleet.view import FewView, FleetView

# Codes of failures that speak against the pool, not against the request.
_POOL_FAULTS = frozenset({"pool_unavailable", "pool_timeout", "pool_protocol", "pool"})


class FleetState:
    """Everything a policy needs to know of the fleet, kept up to date event by event.

    The state knows no clock: the time of every change is in the event, and `view` is told the
    time. Applying the same events gives the same state, so a replayed log shows every policy
    exactly what it saw live.

    Attributes:
        size: How many pools and replicas there are.
        few: The same as `glance` for an LLM step and a fleet of few pools; see `Snapshots.few`.
        spend: What providers' steps have cost, and what is left of their caps.
    """

    def __init__(self) -> None:
        self._roster = Roster()
        self._books = ReplicaBooks()
        self._draining: set[tuple[int, int]] = set()
        self._prefixes = PrefixIndex()
        self._contexts = Contexts(self._roster, self._books, self._prefixes)
        self._lessons = Lessons()
        self._breakers = Breakers()
        self._tasks = TaskBooks()
        self._attempts: dict[tuple[str, int, int], OpenAttempt] = {}
        # What providers' steps have cost, and what is left of their caps.
        self.spend = ProviderSpend()
        self._snapshots = Snapshots(
            (self._roster, self._books),
            self._prefixes,
            (self._lessons, self._breakers),
            (self._tasks.accounts, self._attempts),
            self.spend,
        )
        # Requests that will be one event; their tasks have no account.
        self._whole: dict[tuple[str, int, int], OpenAttempt] = {}
        # How many pools and replicas there are.
        self.size = (0, 0)
        self.few: Callable[[Step, LlmCall, float], FewView] = self._snapshots.few
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
            StepWaiting: self._tasks.reserve_child,
            StepRecorded: self._tasks.charge_child,
            RequestServed: self._serve,
        }

    @property
    def pools(self) -> tuple[PoolSpec, ...]:
        """Specifications of the pools that take steps, in the order in which they joined."""
        return self._roster.staying

    def spec(self, pool: str) -> PoolSpec | None:
        """Specification of a pool, of one that leaves, too; None when there is no such pool."""
        index = self._roster.index.get(pool)
        return None if index is None else self._roster.pools[index]

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
        """What does the fleet look like to this step, now? See `Snapshots.view`."""
        return self._snapshots.view(step, now_s)

    def glance(self, step: Step, now_s: float) -> FleetView:
        """The same without copies, until the next event. See `Snapshots.glance`."""
        return self._snapshots.glance(step, now_s)

    def replica_index(self, pool: str, replica: int) -> int:
        """Where does a replica stand in the arrays of shape [replicas]?"""
        return self._books.starts[self._roster.index[pool]] + replica

    def running_on(self, pool: str, replica: int) -> int:
        """How many steps run on a replica now? 0 on one that its pool has no more."""
        index = self._roster.index[pool]
        at = self._books.starts[index] + replica
        return int(self._books.running[at]) if at < self._books.starts[index + 1] else 0

    def has_room(self, pool: str, replica: int, cap: int) -> bool:
        """May one more step start on a replica that runs `cap` at once, and maybe not only ours?"""
        return self._books.has_room(self.replica_index(pool, replica), cap)

    def own_load(self, pool: str, replica: int) -> ReplicaLoad:
        """What does this process alone do on a replica?"""
        return self._books.own(self.replica_index(pool, replica))

    def recent_prefixes(self, pool: str, replica: int) -> tuple[RecentPrefix, ...]:
        """Which prompts did this process have computed on a replica lately?"""
        return self._prefixes.recent((self._roster.index[pool], replica))

    def add_prefix(self, pool: str, replica: int, prefix: RecentPrefix) -> None:
        """Another process had a prompt computed on a replica, which may have left meanwhile."""
        if self._roster.has(pool, replica):
            self._prefixes.add_told((self._roster.index[pool], replica), prefix)

    def share(
        self,
        elsewhere: Mapping[tuple[str, int], ReplicaLoad],
        shares: Mapping[tuple[str, int], int],
    ) -> None:
        """Count what other processes do; it is in no event, and a replay does not see it.

        Replicas that have left meanwhile are passed over.

        Args:
            elsewhere: What all others together do, by pool and replica.
            shares: How many steps this process may run, by pool and replica.
        """
        self._books.share(
            {
                self.replica_index(*at): one
                for at, one in elsewhere.items()
                if self._roster.has(*at)
            },
            {self.replica_index(*at): one for at, one in shares.items() if self._roster.has(*at)},
        )

    def waiting_on(self, pool: str, replica: int) -> int:
        """How many steps wait for a replica now?"""
        return int(self._books.waiting[self.replica_index(pool, replica)])

    def replicas_up(self, pool: str) -> int:
        """How many replicas of a pool are up?"""
        index = self._roster.index[pool]
        first, end = self._books.starts[index], self._books.starts[index + 1]
        return sum(self._books.up[first:end])

    def open_until_s(self, pool: str) -> float:
        """Until when is the breaker of a pool open, unless it works before?"""
        return self._breakers.open_until_s(self._roster.index[pool])

    def cached_tokens_on(self, pool: str, replica: int, call: LlmCall) -> int:
        """How many tokens of a prompt does a replica hold in its prefix cache?

        Args:
            pool: Name of the pool.
            replica: Index of the replica in the pool.
            call: The call with the prompt.

        Returns:
            Tokens, never more than the prompt has.
        """
        place = (self._roster.index[pool], replica)
        held = self._prefixes.cached_tokens(place, call.prefix_hashes, call.prefix_tokens)
        return min(call.input_tokens, held)

    def spent_usd(self, task_id: str) -> float:
        """What have the finished attempts of an open task cost, in USD?"""
        return self._tasks.spent_usd(task_id)

    def committed_usd(self, task_id: str) -> float:
        """What has an open task spent or reserved, its children's budgets included, in USD?"""
        return self._tasks.committed_usd(task_id)

    def has_task(self, task_id: str) -> bool:
        """Is the task open?"""
        return self._tasks.has_task(task_id)

    def forget_task(self, task_id: str) -> None:
        """Close a task's account without learning from it: it goes on in another process."""
        self._leave_memory(task_id)
        self._tasks.forget_task(task_id)

    def open_attempts(self, pool: str) -> frozenset[tuple[str, int, int]]:
        """Which attempts were placed in a pool and have not ended? Task, step and attempt."""
        index = self._roster.index.get(pool)
        held = (self._attempts, self._whole)
        return frozenset(key for open_ in held for key, one in open_.items() if one.pool == index)

    def _change_bid(self, event: BidChanged) -> None:
        self._roster.bid_usd_per_hour[self._roster.index[event.pool]] = event.bid_usd_per_hour

    def _add_pool(self, event: PoolAdded) -> None:
        spec, roster = event.spec, self._roster
        if spec.name not in roster.index:
            self._lessons.add_pool()
            self._breakers.add()
        is_back = roster.leaves(spec.name)
        roster.put(spec)
        self.spend.put(spec, roster.pools)
        self._prefixes.size(roster.index[spec.name], spec.kv_tokens)
        counts = [one.replicas for one in roster.pools]
        for pool in range(len(self._books.starts) - 1):
            self._prefixes.shrink(pool, counts[pool])
            self._breakers.shrink(pool, counts[pool])
        self._contexts.shrink(
            self._tasks.accounts.values(), chain(self._attempts.values(), self._whole.values())
        )
        self._draining = {one for one in self._draining if one[1] < counts[one[0]]}
        self._books.lay_out(counts)
        self.size = (len(counts), sum(counts))
        if is_back:
            self._begin_anew(roster.index[spec.name])

    def _begin_anew(self, pool: int) -> None:
        """A pool that had left is back: what was known of its replicas was true of others."""
        self._prefixes.shrink(pool, 0)
        self._breakers.forget(pool)
        self._draining = {one for one in self._draining if one[0] != pool}
        first, end = self._books.starts[pool], self._books.starts[pool + 1]
        self._books.up[first:end] = b"\1" * (end - first)

    def _remove_pool(self, event: PoolRemoved) -> None:
        self._roster.remove(event.pool)
        self.spend.keep_caps({one.provider for one in self._roster.staying})

    def _change_replica(self, event: ReplicaChanged) -> None:
        place = (self._roster.index[event.pool], event.replica)
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
        pool = self._roster.index[decision.pool]
        attempt = placed_attempt(step, decision, (pool, self._roster.pools[pool]), event.t_s)
        attempt.late = decision.gives_way(step)
        self.spend.reserve(attempt.provider, attempt.reserved_usd)
        self._attempts[(step.task_id, step.step_id, step.attempt)] = attempt
        self._books.place(self._books.starts[attempt.pool] + attempt.replica, attempt)
        self._breakers.placed((attempt.pool, attempt.replica), event.t_s)
        account = self._tasks.accounts.get(step.task_id)
        if account is not None:
            account.reserved_usd += attempt.reserved_usd
            self._contexts.move(account, attempt)

    def _start(self, event: AttemptStarted) -> None:
        attempt = self._attempts[(event.task_id, event.step_id, event.attempt)]
        at = self._flat(attempt)
        attempt.started_s = event.t_s
        if at is not None:
            self._books.start(at, attempt)
            self._contexts.fill(attempt)

    def _flat(self, attempt: OpenAttempt) -> int | None:
        """Place of the attempt's replica; None when the pool has shrunk below it."""
        return None if attempt.gone else self._books.starts[attempt.pool] + attempt.replica

    def _finish(self, event: AttemptFinished) -> None:
        attempt = self._attempts.pop((event.task_id, event.step_id, event.attempt), None)
        if attempt is None:
            # Placed by another process, or given up as lost before: only its cost counts here.
            self._tasks.charge(event)
            return
        self.spend.settle(attempt.provider, attempt.reserved_usd, event.cost_usd, event.t_s)
        at = self._flat(attempt)
        if at is not None:
            self._books.finish(at, attempt)
            self._contexts.free(attempt, event.usage, ended=event.outcome == "ok")
        account = self._tasks.charge(event)
        if account is not None:
            account.reserved_usd -= attempt.reserved_usd
            note_failure(account, attempt, event)
        if event.outcome == "ok":
            self._learn(event, attempt)
            if account is not None:
                self._tasks.advance(account, attempt, event)
        elif event.error_code in _POOL_FAULTS:
            self._count_failure(attempt, event.t_s)
        else:
            self._say_nothing(attempt, event.t_s)

    def begin(self, step: Step, decision: Decision, now_s: float) -> OpenAttempt:
        """A request that will be one event at its end is placed, and starts at once.

        Args:
            step: Its step.
            decision: Where it goes.
            now_s: Time on the log's clock.

        Returns:
            The attempt, for `end`.
        """
        pool = self._roster.index[decision.pool]
        attempt = placed_attempt(step, decision, (pool, self._roster.pools[pool]), now_s)
        attempt.started_s = now_s
        self.spend.reserve(attempt.provider, attempt.reserved_usd)
        at = self._books.starts[pool] + decision.replica
        self._books.place(at, attempt)
        self._books.start(at, attempt)
        self._breakers.placed((pool, decision.replica), now_s)
        self._contexts.fill(attempt)
        self._whole[(step.task_id, step.step_id, step.attempt)] = attempt
        return attempt

    def adopt(self, attempt: OpenAttempt, submitted: TaskSubmitted) -> None:
        """A begun request becomes five events after all: its first three change nothing more."""
        step = attempt.step
        self._open_task(submitted)
        account = self._tasks.accounts[step.task_id]
        account.reserved_usd += attempt.reserved_usd
        self._contexts.move(account, attempt)
        key = (step.task_id, step.step_id, step.attempt)
        self._attempts[key] = self._whole.pop(key)

    def end(self, attempt: OpenAttempt, event: RequestServed) -> None:
        """What `begin` began has ended; the same as the fold of the event's `parts`."""
        step = attempt.step
        del self._whole[(step.task_id, step.step_id, step.attempt)]
        self.spend.settle(attempt.provider, attempt.reserved_usd, event.cost_usd, event.t_s)
        at = self._flat(attempt)
        if at is not None:
            self._books.finish(at, attempt)
            self._contexts.free(attempt, event.usage, ended=event.outcome == "ok")
        if event.outcome == "ok":
            # Nothing is left of its task after its only step.
            self._learn(event, attempt).add_remaining(step.step_id, 0.0)
        else:
            self._say_nothing(attempt, event.t_s)

    def _serve(self, event: RequestServed) -> None:
        for part in parts(event):
            self.apply(part)

    def _count_failure(self, attempt: OpenAttempt, t_s: float) -> None:
        """Count towards the breaker; whatever ran when a fault showed fails by the same fault."""
        pool = attempt.pool
        if (pool, attempt.replica) in self._draining or self._flat(attempt) is None:
            # It was announced, and says nothing against the others.
            self._say_nothing(attempt, t_s)
            return
        started_s = t_s if attempt.started_s is None else attempt.started_s
        up = self._books.up[self._books.starts[pool] : self._books.starts[pool + 1]]
        others = sum(up[: attempt.replica]) + sum(up[attempt.replica + 1 :])
        place = (pool, attempt.replica)
        self._breakers.failed(place, started_s, t_s, alone=others == 0)

    def _say_nothing(self, attempt: OpenAttempt, t_s: float) -> None:
        self._breakers.said_nothing((attempt.pool, attempt.replica), attempt.placed_s, t_s)

    def _learn(self, event: AttemptFinished | RequestServed, attempt: OpenAttempt) -> StepEstimate:
        """Correct what is expected of the pool and of such steps by what was measured."""
        self._breakers.works((attempt.pool, attempt.replica))
        call, spec = attempt.step.call, self._roster.pools[attempt.pool]
        if isinstance(call, LlmCall) and not attempt.gone:
            place = (attempt.pool, attempt.replica)
            self._prefixes.learn(place, call.prefix_hashes, call.prefix_tokens)
        return self._lessons.learn(event.usage, attempt, spec)

    def _open_task(self, event: TaskSubmitted) -> None:
        self._leave_memory(event.task_id)
        dropped = self._tasks.open_task(event)
        if dropped is not None:
            self._contexts.move(dropped, None)

    def _leave_memory(self, task_id: str) -> None:
        account = self._tasks.accounts.get(task_id)
        if account is not None:
            self._contexts.move(account, None)

    def _close_task(self, event: TaskFinished) -> None:
        self._leave_memory(event.task_id)
        self._tasks.close_task(event, self._lessons)
