"""Run a workload through a fleet on a virtual clock, with the live policy and bookkeeping."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from steelyard.domain.decision import Refusal
from steelyard.domain.events import (
    AttemptFinished,
    AttemptStarted,
    BidChanged,
    Event,
    PoolAdded,
    StepPlaced,
    StepRefused,
    TaskFinished,
    TaskSubmitted,
)
from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import LlmCall, Step
from steelyard.domain.workload import Workload, WorkloadTask
from steelyard.errors import PoolUnavailableError, SteelyardBugError, StepFailedError
from steelyard.fleet.state import FleetState
from steelyard.perf.cost import attempt_usd
from steelyard.placement.elsewhere import decide_elsewhere
from steelyard.placement.policy import Policy
from steelyard.sim.agenda import Agenda
from steelyard.sim.attempts import SimAttempt
from steelyard.sim.conditions import Conditions
from steelyard.sim.machines import Machines, Surroundings
from steelyard.sim.replica import SimReplica
from steelyard.sim.scaling import Scaler, bid_at, offered, rented_at_first
from steelyard.sim.steps import retried, to_steps
from steelyard.sim.tasks import SimTask
from steelyard.sim.waiting_room import WaitingRoom

# (simulated seconds, events so far)
Progress = Callable[[float, int], None]

# Events between two calls of the progress callback.
_PROGRESS_EVERY = 5000


@dataclass(frozen=True, slots=True)
class Simulation:
    """What happened in a simulation.

    Attributes:
        events: The log, as a live system would have written it; time starts at 0.
        steps: Attempts that were placed.
        end_s: Simulated time at which the last event happened.
    """

    events: tuple[Event, ...]
    steps: int
    end_s: float


def simulate(
    workload: Workload,
    pools: tuple[PoolSpec, ...],
    policy: Policy,
    seed: int,
    conditions: Conditions | None = None,
    progress: Progress | None = None,
) -> Simulation:
    """What happens when this workload meets this fleet under this policy?

    State, policy, queue and cost are those of the live system; only clock and hardware are
    simulated. This is the reference path: every event is kept, so memory grows with the workload.
    A deadline that passes does not stop a running step, it only counts against the SLO.

    Args:
        workload: Tasks to arrive.
        pools: The fleet.
        policy: Who places the steps.
        seed: Of noise and preemptions; without either nothing is drawn.
        conditions: The world beside workload and fleet; the usual one when left out.
        progress: Told the simulated time and the number of events now and then.

    Returns:
        The log of events; the same for the same arguments.

    Raises:
        ConfigError: The conditions do not fit the fleet.
        WorkloadError: A task's steps are not in order.
    """
    run = _Run(pools, policy, seed, Conditions() if conditions is None else conditions)
    run.schedule(workload)
    reported = 0
    while run.agenda:
        run.agenda.run_next()
        if progress is not None and len(run.events) - reported >= _PROGRESS_EVERY:
            reported = len(run.events)
            progress(run.agenda.now_s, reported)
    end_s = run.events[-1].t_s if run.events else 0.0
    if progress is not None:
        progress(end_s, len(run.events))
    return Simulation(tuple(run.events), run.placed, end_s)


class _Run:
    """One simulation while it goes on."""

    def __init__(
        self, pools: tuple[PoolSpec, ...], policy: Policy, seed: int, conditions: Conditions
    ) -> None:
        conditions.check(pools)
        self.agenda = Agenda()
        self.events: list[Event] = []
        self.placed = 0
        self._policy = policy
        self._conditions = conditions
        self._random = np.random.default_rng(seed)
        self._state = FleetState()
        self._left = 0
        self._waiting_room = WaitingRoom(self.agenda, conditions.outage_patience_s, self._look)
        around = Surroundings(
            agenda=self.agenda,
            state=self._state,
            emit=self._emit,
            lose=self._lose,
            came_up=self._waiting_room.look_soon,
            is_over=lambda: self._left == 0,
        )
        specs = tuple(offered(spec, conditions) for spec in pools)
        self._machines = Machines(specs, conditions, seed, around)
        self._scaler = Scaler(conditions, self._machines, around)
        for spec in specs:
            self._emit(PoolAdded(t_s=0.0, spec=spec))
        for pool in sorted({*conditions.bids_usd_per_hour, *conditions.renting}):
            bid = bid_at(conditions, pool, conditions.first_hour)
            if bid is not None:
                self._emit(BidChanged(t_s=0.0, pool=pool, bid_usd_per_hour=bid))
        self._rented = {spec.name: rented_at_first(spec, conditions) for spec in pools}

    def schedule(self, workload: Workload) -> None:
        """Enter all arrivals, and what happens to machines."""
        self._left = len(workload.tasks)
        self._machines.begin(self._rented)
        self._scaler.begin()
        for task in workload.tasks:
            self.agenda.at(task.arrival_s, partial(self._submit, task))

    def _emit(self, event: Event) -> None:
        self.events.append(event)
        self._state.apply(event)

    def _submit(self, task: WorkloadTask, now_s: float) -> None:
        deadline_s = None if task.deadline_after_s is None else now_s + task.deadline_after_s
        self._emit(
            TaskSubmitted(
                t_s=now_s,
                task_id=task.task_id,
                agent=task.agent,
                deadline_s=deadline_s,
                budget_usd=task.budget_usd,
            )
        )
        run = SimTask(task, to_steps(task, self._conditions), self._slowness(len(task.steps)))
        for at in run.begin():
            self._begin_step(run, at, now_s)
        self._close_if_finished(run, now_s)

    def _slowness(self, steps: int) -> list[float]:
        factor, sigma = self._conditions.service_factor, self._conditions.noise_sigma
        if sigma == 0.0:
            return [factor] * steps
        draws = self._random.standard_normal(steps)
        # The shift gives the lognormal factor a mean of 1.
        return [factor * math.exp(sigma * float(draw) - sigma * sigma / 2.0) for draw in draws]

    def _begin_step(self, run: SimTask, at: int, now_s: float) -> None:
        step, between_s = run.steps[at], self._conditions.between_steps_s
        if step is None:
            gap_s = run.task.steps[at].think_or_tool_s
            self.agenda.at(now_s + gap_s, partial(self._go_on, run, at))
        elif between_s > 0.0:
            self.agenda.at(now_s + between_s, partial(self._look, run, at, step))
        else:
            self._place(run, at, step, now_s)

    def _place(self, run: SimTask, at: int, step: Step, now_s: float) -> None:
        decision = decide_elsewhere(self._policy, step, self._state.view(step, now_s))
        if isinstance(decision, Refusal):
            if decision.may_pass and self._waiting_room.take(run, at, step, now_s):
                return
            self._emit(StepRefused(t_s=now_s, step=step, refusal=decision))
            run.fail_step(decision.error_code, decision.reason)
            return
        self._waiting_room.leave(step)
        self._emit(StepPlaced(t_s=now_s, step=step, decision=decision))
        self.placed += 1
        machine = self._machines.of(decision.pool)[decision.replica]
        replica, spec = machine.replica, self._state.spec(decision.pool)
        if spec is None or not machine.up:
            raise SteelyardBugError(
                f"policy {self._policy.name} placed step {step.key} on replica {decision.replica} "
                f"of pool {decision.pool}, which takes none"
            )
        attempt = SimAttempt(run, at, step, run.task.steps[at], decision, run.slowness[at], spec)
        self._scaler.note_placed(attempt, now_s)
        replica.push(now_s, attempt)
        self._settle(replica, now_s)

    def _look(self, run: SimTask, at: int, step: Step, now_s: float) -> None:
        """A step that waits for a pool to come back asks again."""
        self._place(run, at, step, now_s)
        self._close_if_finished(run, now_s)

    def _lose(
        self, replica: SimReplica, attempts: list[SimAttempt], now_s: float, reason: str
    ) -> None:
        for attempt in attempts:
            self._end_attempt(replica, attempt, now_s, error=reason)

    def _settle(self, replica: SimReplica, now_s: float) -> None:
        """Let everything happen on a replica that happens by now, and set its alarm."""
        busy = True
        while busy:
            ended = replica.advance(now_s)
            for attempt in ended:
                self._end_attempt(replica, attempt, now_s)
            busy = bool(ended)
            while (attempt_or_none := replica.pop_ready(now_s)) is not None:
                self._start(replica, attempt_or_none, now_s)
                busy = True
        next_s = replica.next_s()
        if next_s != replica.alarm_s:
            replica.alarm_s = next_s
            if next_s < math.inf:
                self.agenda.at(max(now_s, next_s), partial(self._wake, replica, next_s))

    def _wake(self, replica: SimReplica, alarm_s: float, now_s: float) -> None:
        # Alarms are not taken off the agenda when plans change; the replica knows the valid one.
        if alarm_s == replica.alarm_s:
            replica.alarm_s = math.inf
            self._settle(replica, now_s)

    def _start(self, replica: SimReplica, attempt: SimAttempt, now_s: float) -> None:
        step = attempt.step
        if isinstance(step.call, LlmCall):
            attempt.cached_tokens = self._state.cached_tokens_on(
                replica.spec.name, replica.index, step.call
            )
        self._scaler.note_taken(attempt)
        self._emit(
            AttemptStarted(
                t_s=now_s, task_id=step.task_id, step_id=step.step_id, attempt=step.attempt
            )
        )
        replica.start(now_s, attempt)

    def _end_attempt(
        self, replica: SimReplica, attempt: SimAttempt, now_s: float, error: str = ""
    ) -> None:
        step, spec = attempt.step, attempt.spec
        curve = spec.tool_curve
        if attempt.started_s is None:
            self._scaler.note_taken(attempt)
        usage = attempt.usage(now_s, 1.0 if curve is None else curve.relative_speed)
        self._emit(
            AttemptFinished(
                t_s=now_s,
                task_id=step.task_id,
                step_id=step.step_id,
                attempt=step.attempt,
                outcome="failed" if error else "ok",
                usage=usage,
                cost_usd=attempt_usd(spec, step, usage),
                error_code=PoolUnavailableError.code if error else "",
                error=error,
            )
        )
        self._machines.note_end(replica, now_s)
        # Entered, not called: the replica settles first, and the next step meets it settled.
        action = self._retry if error else self._end_step
        self.agenda.at(now_s, partial(action, attempt))

    def _end_step(self, attempt: SimAttempt, now_s: float) -> None:
        self._go_on(attempt.task, attempt.at, now_s)

    def _go_on(self, run: SimTask, at: int, now_s: float) -> None:
        for child in run.end_step(at):
            self._begin_step(run, child, now_s)
        self._close_if_finished(run, now_s)

    def _retry(self, attempt: SimAttempt, now_s: float) -> None:
        run, step = attempt.task, attempt.step
        if step.attempt + 1 < self._conditions.max_attempts:
            self._place(run, attempt.at, retried(step), now_s)
        else:
            told = f"step {step.step_id}: {step.attempt + 1} attempts failed"
            run.fail_step(StepFailedError.code, told)
        self._close_if_finished(run, now_s)

    def _close_if_finished(self, run: SimTask, now_s: float) -> None:
        if run.finished and not run.closed:
            run.closed = True
            self._left -= 1
            self._emit(
                TaskFinished(
                    t_s=now_s,
                    task_id=run.task.task_id,
                    status="failed" if run.error_code else "succeeded",
                    error_code=run.error_code,
                    error=run.error,
                )
            )
