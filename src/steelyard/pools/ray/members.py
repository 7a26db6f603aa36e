"""Which actors are the replicas of a pool, and what becomes of those that are lost or told to go.

A replica is an index; the actor behind it changes. A node that is lost takes its actors along:
what they worked on fails, the dispatcher places it anew, and another actor is started. A node
that has been told to leave (Ray's draining, which a spot notice asks for) keeps its actors until
their work has ended; their replicas take nothing new and move to other actors meanwhile.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from steelyard.errors import PoolUnavailableError
from steelyard.pools.ray.actors import Actor, ActorLostError, Cluster
from steelyard.pools.ray.frames import Ask, Drop, FromDriver, Health, Moved, Open, failed
from steelyard.pools.ray.host import OF_NO_REQUEST, installed_version
from steelyard.pools.ray.labels import room, why_no_room

_LOOK_S = 0.5
# A replica answers at least every two seconds; its node may be busy, too busy is lost.
_SILENT_S = 30.0
_END_S = 5.0
_BACKOFF_S, _MAX_BACKOFF_S = 0.5, 15.0
# Ray sees within some ten seconds that a node is gone.
_FIRST_BACKOFFS_S = (2.0, 5.0, 10.0)


class Member:
    """An actor and what it works on.

    Attributes:
        replica: The index that it serves, or served.
        actor: The actor.
        node_id: Its node; empty until it is on one.
        ordinal: Its number among the pool's actors on that node; negative until it has one.
        flights: Requests that it has not answered.
        leaving: Whether it takes nothing new.
        healthy: Whether its engine takes requests.
        context_tokens: What its engine has room for.
    """

    def __init__(self, replica: int, actor: Actor) -> None:
        self.replica = replica
        self.actor = actor
        self.node_id = ""
        self.ordinal = -1
        self.flights: set[int] = set()
        self.leaving = False
        self.healthy = True
        self.context_tokens = 0


class Members:
    """Keeps as many actors as are wanted.

    Args:
        opened: What the pool is.
        cluster: Where actors run.
        tell: Sends a frame to the gateway.
        forward: Sends a frame that is encoded already.
    """

    def __init__(
        self,
        opened: Open,
        cluster: Cluster,
        tell: Callable[[FromDriver], None],
        forward: Callable[[bytes], None],
    ) -> None:
        self._opened = opened
        self._cluster = cluster
        self._tell = tell
        self._forward = forward
        self._wanted = 0
        self._current: dict[int, Member] = {}
        self._leaving: set[Member] = set()
        self._starting: dict[int, asyncio.Task[None]] = {}
        # Actors that are no replica yet; they have their cores and their number already.
        self._beginning: set[Member] = set()
        self._by_flight: dict[int, Member] = {}
        self._pulls: set[asyncio.Task[None]] = set()
        self._sends: set[asyncio.Task[None]] = set()

    async def open(self) -> int:
        """Start the first replicas and wait for them; not where the driver was started again.

        Returns:
            Context of the engines in tokens; 0 for tools, and where nothing was waited for.

        Raises:
            PoolUnavailableError: One cannot be started.
        """
        self._wanted = self._opened.replicas
        if self._opened.again:
            self._fill()
            return 0
        started = await asyncio.gather(*(self._first(index) for index in range(self._wanted)))
        for member in started:
            self._take_in(member)
        return min((one.context_tokens for one in started), default=0)

    async def check_room(self) -> None:
        """Is there room for the replicas that must be there?

        Raises:
            PoolUnavailableError: There is not, nor will there be.
        """
        opened = self._opened
        if opened.node_wait_s > 0.0 or opened.again:
            return
        nodes = await self._cluster.nodes()
        fits = room(nodes, opened.selectors, opened.cores)
        if fits == 0:
            raise PoolUnavailableError(why_no_room(nodes, opened.selectors, opened.cores))
        if fits < opened.replicas:
            raise PoolUnavailableError(
                f"there is room for {fits} of {opened.replicas} replicas of {opened.cores:g} cores "
                "on the nodes that may be used; lower min_replicas, or add nodes"
            )

    def scale(self, replicas: int) -> None:
        """Have so many replicas from now on."""
        self._wanted = replicas
        for index in sorted(self._current, reverse=True):
            if index >= replicas:
                self._retire(self._current[index], "scaled down", rented=False)
        for index, task in [*self._starting.items()]:
            if index >= replicas:
                task.cancel()
        self._fill()

    async def watch(self) -> None:
        """Look after the nodes until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            nodes = {node.node_id: node for node in await self._cluster.nodes()}
            for member in [*self._current.values()]:
                node = nodes.get(member.node_id)
                if node is not None and node.leaves_in_s is not None:
                    reason = f"its node has been told to leave in {node.leaves_in_s:.0f} s"
                    self._retire(member, reason, rented=True)
            self._fill()

    def ask(self, asked: Ask, body: bytes) -> None:
        """Hand a request to its replica's actor, or tell that there is none."""
        member = self._current.get(asked.replica)
        if member is None or not member.healthy:
            down = PoolUnavailableError(f"replica {asked.replica} is down and being started; retry")
            self._tell(failed(asked.request_id, down))
            return
        member.flights.add(asked.request_id)
        self._by_flight[asked.request_id] = member
        self._send(member.actor.ask(body))

    def drop(self, dropped: Drop) -> None:
        """Stop work on a request."""
        member = self._by_flight.pop(dropped.request_id, None)
        if member is not None:
            member.flights.discard(dropped.request_id)
            self._send(member.actor.drop(dropped.request_id))

    async def close(self) -> None:
        """End all actors."""
        tasks = [*self._starting.values(), *self._pulls, *self._sends]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for member in [*self._current.values(), *self._leaving]:
            await self._end(member)

    def _send(self, call: Coroutine[Any, Any, None]) -> None:
        """Tell an actor something, in order; whoever pulls its answers sees that it is lost."""

        async def sent() -> None:
            with contextlib.suppress(ActorLostError):
                await call

        task = asyncio.create_task(sent())
        self._sends.add(task)
        task.add_done_callback(self._sends.discard)

    def _fill(self) -> None:
        """Start what is wanted and not there."""
        for index in range(self._wanted):
            if index not in self._current and index not in self._starting:
                task = asyncio.create_task(self._bring_up(index))
                self._starting[index] = task

    async def _bring_up(self, index: int) -> None:
        """Try until there is an actor behind an index, or none is wanted any more."""
        backoff_s = _BACKOFF_S
        try:
            while index < self._wanted:
                try:
                    if await self._may_start():
                        self._take_in(await self._start(index))
                        return
                    reason = "there is no room for it on the nodes that may be used"
                except PoolUnavailableError as error:
                    reason = str(error)
                self._tell(Moved(replica=index, up=False, reason=reason, rented=False))
                await asyncio.sleep(backoff_s)
                backoff_s = min(2.0 * backoff_s, _MAX_BACKOFF_S)
        finally:
            del self._starting[index]

    async def _may_start(self) -> bool:
        """Is there room for one more? Else Ray would let it wait for ever."""
        if self._opened.node_wait_s > 0.0:
            return True
        nodes = await self._cluster.nodes()
        taken = len(self._current) + len(self._beginning)
        return room(nodes, self._opened.selectors, self._opened.cores) > taken

    async def _first(self, index: int) -> Member:
        """Start an actor; again where it was put on a node whose end Ray had not seen yet."""
        for backoff_s in _FIRST_BACKOFFS_S:
            try:
                return await self._start(index)
            except ActorLostError:
                await asyncio.sleep(backoff_s)
        return await self._start(index)

    async def _start(self, index: int) -> Member:
        """Start an actor; it counts as beginning until `_take_in`."""
        member = Member(index, self._cluster.actor(self._opened))
        self._beginning.add(member)
        try:
            await self._begin(member)
        except BaseException:
            self._beginning.discard(member)
            member.actor.kill()
            raise
        return member

    async def _begin(self, member: Member) -> None:
        opened = self._opened
        try:
            async with asyncio.timeout(opened.start_s + opened.node_wait_s):
                member.node_id = await member.actor.node_id()
                member.ordinal = self._free_ordinal(member.node_id)
                version, member.context_tokens, why_not = await member.actor.begin(member.ordinal)
        except TimeoutError:
            after_s = opened.start_s + opened.node_wait_s
            raise PoolUnavailableError(
                f"replica {member.replica} was not up within {after_s:g} s; is the cluster full?"
            ) from None
        if version != installed_version():
            why_not = f"its node has Steelyard {version}, this machine {installed_version()}"
        if why_not:
            raise PoolUnavailableError(f"replica {member.replica} cannot start: {why_not}")

    def _free_ordinal(self, node_id: str) -> int:
        used = {
            one.ordinal
            for one in (*self._current.values(), *self._leaving, *self._beginning)
            if one.node_id == node_id and one.ordinal >= 0
        }
        return next(n for n in range(len(used) + 1) if n not in used)

    def _take_in(self, member: Member) -> None:
        self._beginning.discard(member)
        self._current[member.replica] = member
        # Another actor: what the one before had cached is gone, which `down` says.
        self._tell(Moved(replica=member.replica, up=False, reason="a new actor starts"))
        self._tell(Moved(replica=member.replica, up=True, reason=f"up on node {member.node_id}"))
        pull = asyncio.create_task(self._pull(member))
        self._pulls.add(pull)
        pull.add_done_callback(self._pulls.discard)

    def _retire(self, member: Member, reason: str, *, rented: bool) -> None:
        """Give an actor nothing new; it ends with its last request."""
        del self._current[member.replica]
        member.leaving = True
        self._leaving.add(member)
        self._tell(
            Moved(replica=member.replica, up=False, reason=reason, draining=True, rented=rented)
        )

    async def _pull(self, member: Member) -> None:
        """Hand on what an actor answers until it is lost, or has left."""
        reason = "it was silent"
        try:
            while not (member.leaving and not member.flights):
                async with asyncio.timeout(_SILENT_S):
                    told = await member.actor.pull()
                for request_id, last, body in told:
                    self._hand_on(member, request_id, last, body)
        except ActorLostError as error:
            reason = str(error)
        except TimeoutError:
            pass
        else:
            self._leaving.discard(member)
            await self._end(member)
            return
        self._lost(member, reason)

    def _hand_on(self, member: Member, request_id: int, last: bool, body: bytes) -> None:
        if request_id == OF_NO_REQUEST:
            member.healthy = msgspec.msgpack.decode(body, type=Health).up
            if not member.leaving:
                why = "its engine is ready" if member.healthy else "its engine ended"
                self._tell(Moved(replica=member.replica, up=member.healthy, reason=why))
        elif request_id in member.flights:
            if last:
                member.flights.discard(request_id)
                self._by_flight.pop(request_id, None)
            self._forward(body)

    def _lost(self, member: Member, reason: str) -> None:
        member.actor.kill()
        if member.leaving:
            self._leaving.discard(member)
        else:
            del self._current[member.replica]
            self._tell(Moved(replica=member.replica, up=False, reason=reason, rented=False))
        error = PoolUnavailableError(f"replica {member.replica} was lost: {reason}; retry")
        for request_id in member.flights:
            self._by_flight.pop(request_id, None)
            self._tell(failed(request_id, error))
        member.flights.clear()
        self._fill()

    async def _end(self, member: Member) -> None:
        with contextlib.suppress(ActorLostError, TimeoutError):
            async with asyncio.timeout(_END_S):
                await member.actor.end()
        member.actor.kill()
