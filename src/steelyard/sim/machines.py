"""The machines behind the replicas: ordered, started, lost, preempted and released."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from steelyard.domain.events import Event, ReplicaChanged
from steelyard.domain.pool import PoolSpec
from steelyard.domain.units import SECONDS_PER_HOUR
from steelyard.fleet.state import FleetState
from steelyard.placement.candidates import spread
from steelyard.sim.agenda import Agenda
from steelyard.sim.attempts import SimAttempt
from steelyard.sim.conditions import Conditions, Outage
from steelyard.sim.renting import Renting
from steelyard.sim.replica import SimReplica


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What machines need of the simulation that they are in.

    Attributes:
        agenda: The clock.
        state: The books.
        emit: Takes an event.
        lose: Ends attempts whose machine is gone; told replica, attempts, time and reason.
        came_up: Told the time when a replica is up again.
        is_over: Has every task ended? Nothing more is rented or taken back then.
    """

    agenda: Agenda
    state: FleetState
    emit: Callable[[Event], None]
    lose: Callable[[SimReplica, list[SimAttempt], float, str], None]
    came_up: Callable[[float], None]
    is_over: Callable[[], bool]


class Machine:
    """One replica as something that is rented.

    Attributes:
        replica: What runs on it; `replica.down` counts its outages, and one while it is not
            rented or starts.
        renting: How its pool is rented.
        rented: Whether it is paid for.
        starting: Whether it is ordered and does not serve yet.
        noticed: Whether it will be taken back soon.
        leaving: Whether it is given back as soon as nothing runs on it.
        lease: Number of the machine behind the replica; what was meant for another is void.
    """

    __slots__ = (
        "lease", "leaving", "noticed", "random", "rented", "renting", "replica", "starting",
    )  # fmt: skip

    def __init__(self, replica: SimReplica, renting: Renting, seed: int) -> None:
        self.replica = replica
        self.renting = renting
        self.rented = True
        self.starting = False
        self.noticed = False
        self.leaving = False
        self.lease = 0
        # A stream of its own, so that every policy meets the same preemptions.
        self.random = (
            np.random.default_rng([seed, spread(replica.spec.name, 0), replica.index])
            if renting.preemptions_per_hour > 0.0
            else None
        )

    @property
    def draining(self) -> bool:
        """Does it finish what it has, and take nothing new?"""
        return self.noticed or self.leaving

    @property
    def up(self) -> bool:
        """Does it take new steps?"""
        return self.replica.down == 0 and not self.draining


class Machines:
    """All machines of a simulated fleet."""

    def __init__(
        self, pools: tuple[PoolSpec, ...], conditions: Conditions, seed: int, around: Surroundings
    ) -> None:
        self._around = around
        self._conditions = conditions
        self._pools: dict[str, list[Machine]] = {}
        for spec in pools:
            renting = conditions.renting_of(spec.name)
            self._pools[spec.name] = [
                Machine(SimReplica(spec, index, conditions.serving_of(spec.name)), renting, seed)
                for index in range(spec.replicas)
            ]

    def of(self, pool: str) -> list[Machine]:
        """Machines of a pool, by the number of their replica."""
        return self._pools[pool]

    def begin(self, rented: dict[str, int]) -> None:
        """Let the first day begin: give back what is not rented, enter outages and preemptions.

        Args:
            rented: Replicas of each pool that are there at the start.
        """
        for pool, machines in self._pools.items():
            for machine in machines[rented[pool] :]:
                self._give_back(machine, 0.0)
            for machine in machines[: rented[pool]]:
                self._await_preemption(machine, 0.0)
        for outage in self._conditions.outages:
            self._enter_outage(outage)

    # -------------------------------------------------------------- outages

    def _enter_outage(self, outage: Outage) -> None:
        agenda = self._around.agenda
        agenda.at(outage.start_s, partial(self._begin_outage, outage))
        starts = {m[0].renting.start_s for m in self._pools.values() if m and self._hit(outage, m)}
        for start_s in sorted(starts):
            # What comes back is booted and loaded anew.
            end_s = outage.start_s + outage.duration_s + start_s
            agenda.at(end_s, partial(self._end_outage, outage, start_s))

    def _hit(self, outage: Outage, machines: list[Machine]) -> bool:
        return outage.hits(machines[0].replica.spec)

    def _begin_outage(self, outage: Outage, now_s: float) -> None:
        lost: list[tuple[Machine, list[SimAttempt]]] = []
        for machines in self._pools.values():
            for machine in machines if machines and self._hit(outage, machines) else ():
                machine.replica.down += 1
                if machine.replica.down == 1:
                    lost.append((machine, self._drain(machine, now_s)))
                    self._tell(machine, now_s, "outage begins")
        for machine, attempts in lost:
            self._around.lose(machine.replica, attempts, now_s, "the replica was lost in an outage")
            self.note_end(machine.replica, now_s)

    def _end_outage(self, outage: Outage, start_s: float, now_s: float) -> None:
        for machines in self._pools.values():
            if not machines or machines[0].renting.start_s != start_s:
                continue
            for machine in machines if self._hit(outage, machines) else ():
                machine.replica.down -= 1
                if machine.up:
                    self._tell(machine, now_s, "outage over")

    def _drain(self, machine: Machine, now_s: float) -> list[SimAttempt]:
        machine.replica.alarm_s = math.inf
        return machine.replica.drain(now_s)

    # ----------------------------------------------------------- preemption

    def _await_preemption(self, machine: Machine, now_s: float) -> None:
        if machine.random is None:
            return
        mean_s = SECONDS_PER_HOUR / machine.renting.preemptions_per_hour
        notice_at_s = now_s + float(machine.random.exponential(mean_s))
        self._around.agenda.at(notice_at_s, partial(self._notice, machine, machine.lease))

    def _notice(self, machine: Machine, lease: int, now_s: float) -> None:
        if lease != machine.lease or self._around.is_over():
            return
        notice_s = machine.renting.notice_s
        if notice_s == 0.0:
            self._preempt(machine, lease, now_s)
            return
        was_up = machine.up
        machine.noticed = True
        if was_up:
            self._tell(machine, now_s, f"preempted in {notice_s:g} s")
        self._around.agenda.at(now_s + notice_s, partial(self._preempt, machine, lease))

    def _preempt(self, machine: Machine, lease: int, now_s: float) -> None:
        if lease != machine.lease or self._around.is_over():
            return
        attempts = self._drain(machine, now_s)
        # Before the replica goes, as live: connections break first.
        self._around.lose(machine.replica, attempts, now_s, "the replica was preempted")
        # One that was leaving has been given back with its last attempt.
        if lease == machine.lease:
            machine.noticed = False
            self._order(machine, now_s, "preempted; its replacement starts")

    # -------------------------------------------------- ordering, giving back

    def _order(self, machine: Machine, now_s: float, reason: str) -> None:
        """Rent a machine for a replica, in place of the one before, if there was one."""
        if machine.rented and not machine.starting:
            machine.replica.down += 1
        machine.rented = machine.starting = True
        machine.lease += 1
        self._tell(machine, now_s, reason)
        self._await_preemption(machine, now_s)
        action = partial(self._serve, machine, machine.lease)
        if machine.renting.start_s == 0.0:
            action(now_s)
        else:
            self._around.agenda.at(now_s + machine.renting.start_s, action)

    def _serve(self, machine: Machine, lease: int, now_s: float) -> None:
        if lease != machine.lease or self._around.is_over():
            return
        machine.starting = False
        machine.replica.down -= 1
        if machine.up:
            self._tell(machine, now_s, "started")

    def _give_back(self, machine: Machine, now_s: float) -> None:
        if not machine.starting:
            machine.replica.down += 1
        machine.rented = machine.starting = machine.leaving = machine.noticed = False
        machine.lease += 1
        self._tell(machine, now_s, "not rented")

    def resize(self, pool: str, wanted: int, now_s: float) -> None:
        """Order or give back machines until so many stay.

        One that is to go takes no new steps and is given back when its last one has ended; one
        that goes already is kept instead of ordering another.

        Args:
            pool: The pool.
            wanted: Number of machines.
            now_s: Simulated time.
        """
        machines = self._pools[pool]
        staying = [one for one in machines if one.rented and not one.leaving]
        missing = wanted - len(staying)
        if missing < 0:
            for machine in sorted(staying, key=self._leaving_order)[:-missing]:
                self._let_go(machine, now_s)
        for machine in machines:
            if missing > 0 and machine.leaving:
                missing -= 1
                machine.leaving = False
                if machine.up:
                    self._tell(machine, now_s, "kept after all")
        for machine in machines:
            if missing > 0 and not machine.rented:
                missing -= 1
                self._order(machine, now_s, "ordered")

    def _leaving_order(self, machine: Machine) -> tuple[bool, bool, int, int]:
        """Those that go anyway first, then those that do not serve yet, then the least loaded."""
        return (
            not machine.noticed,
            not machine.starting,
            self.load(machine.replica),
            -machine.replica.index,
        )

    def _let_go(self, machine: Machine, now_s: float) -> None:
        was_up = machine.up
        machine.leaving = True
        if self.load(machine.replica) == 0:
            self._give_back(machine, now_s)
        elif was_up:
            self._tell(machine, now_s, "is to be given back")

    def load(self, replica: SimReplica) -> int:
        """How many steps run on a replica or wait for it?"""
        state, pool = self._around.state, replica.spec.name
        return state.running_on(pool, replica.index) + state.waiting_on(pool, replica.index)

    def note_end(self, replica: SimReplica, now_s: float) -> None:
        """An attempt on a replica has ended; one that is to be given back may go now."""
        machine = self._pools[replica.spec.name][replica.index]
        if machine.leaving and self.load(replica) == 0:
            self._give_back(machine, now_s)

    def _tell(self, machine: Machine, now_s: float, reason: str) -> None:
        self._around.emit(
            ReplicaChanged(
                t_s=now_s,
                pool=machine.replica.spec.name,
                replica=machine.replica.index,
                up=machine.up,
                reason=reason,
                draining=machine.draining and machine.replica.down == 0,
                rented=machine.rented,
            )
        )
        if machine.up:
            self._around.came_up(now_s)
