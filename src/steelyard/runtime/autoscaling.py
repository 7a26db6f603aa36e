"""How many replicas shall a pool have now? From its queue and from the slack of its steps."""

import asyncio
import math
from collections import deque
from collections.abc import Mapping

import msgspec

from steelyard.domain.events import Event, StepPlaced, StepRefused
from steelyard.fleet.state import FleetState
from steelyard.pools.elastic import ElasticBackend
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.starting import Progress, RunningPool

_LOOK_S = 1.0
# A replica is planned to be this full; what is left takes the next step without a wait.
_FULL_FRAC = 0.75
# A replica goes when it was not needed for so long: starting one takes seconds to minutes.
_IDLE_S = 60.0


class PoolLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What a pool has to do.

    Attributes:
        running: Steps that run.
        waiting: Steps that wait for a place.
        late: Steps since the last look that were placed too late for their deadline, or refused
            for it, while the pool was busy.
        up: Replicas that take steps.
        slots: Steps at once on one replica.
    """

    running: int
    waiting: int
    late: int
    up: int
    slots: int


def needed_replicas(load: PoolLoad, full_frac: float = _FULL_FRAC) -> int:
    """How many replicas does a load need?

    `running + waiting <= full_frac * slots * replicas`, and where steps are late, room for those
    beside what is up already.

    Args:
        load: The load.
        full_frac: How full a replica may be.

    >>> needed_replicas(PoolLoad(running=6, waiting=3, late=0, up=2, slots=4))
    3
    >>> needed_replicas(PoolLoad(running=3, waiting=0, late=2, up=2, slots=4))
    3
    """
    by_queue = math.ceil((load.running + load.waiting) / (full_frac * load.slots))
    if load.late == 0:
        return by_queue
    return max(by_queue, load.up + math.ceil(load.late / load.slots))


class ReplicaTarget:
    """The number of replicas to have: grows at once, shrinks when less has been enough for long.

    Args:
        bounds: The least and the most.
        idle_s: How long less must have been enough.
    """

    def __init__(self, bounds: tuple[int, int], idle_s: float = _IDLE_S) -> None:
        self._least, self._most = bounds
        self._idle_s = idle_s
        self._needs: deque[tuple[float, int]] = deque()
        self._begun_s: float | None = None
        self.replicas = self._least

    def observe(self, load: PoolLoad, now_s: float) -> int:
        """How many shall there be from now on?

        Args:
            load: What the pool has to do now.
            now_s: Time on any clock that does not go back.

        Returns:
            Replicas, within the bounds.
        """
        need = min(max(needed_replicas(load), self._least), self._most)
        if self._begun_s is None:
            self._begun_s = now_s
        # Needs that a later one has topped say nothing any more.
        while self._needs and self._needs[-1][1] <= need:
            self._needs.pop()
        self._needs.append((now_s, need))
        while self._needs[0][0] < now_s - self._idle_s:
            self._needs.popleft()
        if need > self.replicas:
            self.replicas = need
        elif now_s - self._begun_s >= self._idle_s:
            self.replicas = min(self.replicas, self._needs[0][1])
        return self.replicas


class Autoscaler:
    """Scales all pools that can be scaled, once a second.

    Args:
        dispatcher: Knows what the pools have to do.
        pools: The pools by name, as they come and go.
        progress: Told what is being done.
    """

    def __init__(
        self, dispatcher: Dispatcher, pools: Mapping[str, RunningPool], progress: Progress
    ) -> None:
        self._dispatcher = dispatcher
        self._pools = pools
        self._progress = progress
        self._late: dict[str, int] = {}
        self._targets: dict[int, ReplicaTarget] = {}
        dispatcher.subscribe(self._count)

    async def run(self) -> None:
        """Do so until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            self.look()

    def look(self) -> None:
        """Scale every pool as its load asks now."""
        state, now_s = self._dispatcher.state, self._dispatcher.now_s()
        kept: dict[int, ReplicaTarget] = {}
        for name, pool in self._pools.items():
            backend = pool.backend
            if not isinstance(backend, ElasticBackend) or state.spec(name) is None:
                continue
            key = id(backend)
            target = kept[key] = self._targets.get(key) or ReplicaTarget(backend.bounds)
            load = self._load(state, name, backend)
            before, wanted = target.replicas, target.observe(load, now_s)
            if wanted != before:
                backend.scale(wanted)
                self._progress(
                    f"pool {name}: {wanted} replicas instead of {before} ({load.running} steps "
                    f"run, {load.waiting} wait, {load.late} are late)"
                )
        self._targets = kept
        self._late.clear()

    def _load(self, state: FleetState, pool: str, backend: ElasticBackend) -> PoolLoad:
        spec = state.spec(pool)
        replicas = range(0 if spec is None else spec.replicas)
        return PoolLoad(
            running=sum(state.running_on(pool, replica) for replica in replicas),
            waiting=sum(state.waiting_on(pool, replica) for replica in replicas),
            late=self._late.get(pool, 0),
            up=state.replicas_up(pool),
            slots=backend.replica_slots,
        )

    def _count(self, event: Event) -> None:
        """Note steps for which a pool was too slow because others were there."""
        if isinstance(event, StepPlaced):
            decision = event.decision
            if decision.slack_s is not None and decision.slack_s < 0.0 < decision.predicted_wait_s:
                self._late[decision.pool] = self._late.get(decision.pool, 0) + 1
        elif isinstance(event, StepRefused) and event.refusal.cause == "deadline":
            state = self._dispatcher.state
            for verdict in event.refusal.verdicts:
                if verdict.verdict == "too_late" and state.open_attempts(verdict.pool):
                    self._late[verdict.pool] = self._late.get(verdict.pool, 0) + 1
