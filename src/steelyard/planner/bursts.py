"""What must a fleet of fixed size cost when tasks come in bursts?

`cost_bound` spreads the arrivals evenly. This bound keeps them where they are: between any two
moments a fleet must do what can be done neither before nor after, but the tasks that may fail.
"""

import math

import highspy
import msgspec
import numpy as np

from steelyard.domain.pool import PoolSpec
from steelyard.domain.units import SECONDS_PER_HOUR
from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask
from steelyard.errors import InfeasiblePlanError, SolverError
from steelyard.perf.predict import itl_s
from steelyard.planner.bounds import fastest_s, least_uncached_tokens
from steelyard.planner.demand import FloatArray
from steelyard.planner.solver import quiet_solver

# Moments between which work is added up, and how many spans join the program at a time.
_MOMENTS = 400
_SPANS_PER_ROUND = 8
_ROUNDS = 60
# Spans that ask for less than this share more than is rented are not worth another round.
_TOLERANCE_FRAC = 1e-4
_TIME_LIMIT_S = 60.0


class BurstBound(msgspec.Struct, frozen=True, kw_only=True):
    """The least rent of pools of models, and the crowd that asks for it.

    Attributes:
        usd_per_hour: A lower bound on the rent of every fleet of fixed size.
        from_s: When the span begins whose work asks for the most, after the first arrival.
        to_s: When it ends.
    """

    usd_per_hour: float
    from_s: float
    to_s: float


class _Asked(msgspec.Struct, frozen=True):
    """What a task asks for, whenever it arrives.

    Attributes:
        critical_s: Length of its critical path.
        calls: When each model call can begin at the earliest after the arrival, what must follow
            its end before the deadline, and its rent in USD; shape [calls, 3].
    """

    critical_s: float
    calls: FloatArray


class _Work(msgspec.Struct, frozen=True):
    """The model calls of a workload: whose they are, when they can run, and what they cost.

    Attributes:
        owner: Task of each call, by its place in the workload.
        earliest_s: When it can begin at the earliest.
        latest_s: When it must have ended.
        cost_usd: Rent of the time that it takes of a full machine.
    """

    owner: np.ndarray
    earliest_s: FloatArray
    latest_s: FloatArray
    cost_usd: FloatArray


def burst_bound(
    workload: Workload,
    pools: tuple[PoolSpec, ...],
    attainment_frac: float,
    *,
    not_counted: int = 0,
) -> BurstBound:
    """What is the least rent at which so many of these very tasks can meet their deadlines?

    A call can begin when all before it have run at their fastest, and must end early enough for
    all after it to run at theirs. Between moments a and b the fleet must do the calls that lie
    within, each at least at the price of a full batch on the pool that is cheapest for it:

        minimise R
        sum_i z_i work_i(a, b) <= R (b - a)         every two moments a < b
        sum_i z_i >= attainment * tasks,  0 <= z_i <= 1

    (the demand bound of Baruah, Rosier and Howell, 1990, as a linear program over the tasks that
    meet their deadline; spans join it while they are violated). Streams of one task's calls may run
    at any speed up to the fastest; caches never forget. Rent of tools is not in it.

    Args:
        workload: Tasks where they arrive.
        pools: What can be rented, at whatever numbers of replicas.
        attainment_frac: Share of the counted tasks that must meet their deadline.
        not_counted: Tasks at the start that may fail.

    Returns:
        The bound.

    Raises:
        InfeasiblePlanError: No pool can run some call, or too many tasks cannot meet their deadline
            even alone.
        SolverError: The solver found no answer in a minute.
    """
    asked = _asked_of(workload, pools)
    slack_s = np.array(
        [
            math.inf if task.deadline_after_s is None else task.deadline_after_s - one.critical_s
            for task, one in zip(workload.tasks, asked, strict=True)
        ]
    )
    counted = np.arange(len(workload.tasks)) >= not_counted
    possible = counted & (slack_s >= 0.0)
    must = math.ceil(attainment_frac * float(counted.sum()) - 1e-9)
    if possible.sum() < must:
        late, all_counted = int(counted.sum() - possible.sum()), int(counted.sum())
        raise InfeasiblePlanError(
            f"{late} of {all_counted} tasks cannot meet their deadline on any of the pools, and "
            f"only {all_counted - must} may miss it; give more time or faster pools"
        )
    return _Program(_work_of(workload, asked, slack_s), possible, must).solve()


def _asked_of(workload: Workload, pools: tuple[PoolSpec, ...]) -> list[_Asked]:
    """What each task asks for; worked out once for all that are the same but for their arrival."""
    found: dict[int, _Asked] = {}
    for task in workload.tasks:
        if id(task.steps) not in found:
            found[id(task.steps)] = _asked(task, pools)
    return [found[id(task.steps)] for task in workload.tasks]


def _asked(task: WorkloadTask, pools: tuple[PoolSpec, ...]) -> _Asked:
    ends_s, after_s = _ends_s(task, pools), _after_s(task, pools)
    calls = [
        (
            ends_s[step.step_id] - fastest_s(step, pools),
            after_s[step.step_id],
            _cheapest_usd(step, tuple(spec for spec in pools if spec.llm_curves)),
        )
        for step in task.steps
        if step.kind == "llm"
    ]
    return _Asked(max(ends_s.values(), default=0.0), np.array(calls, dtype=np.float64))


def _ends_s(task: WorkloadTask, pools: tuple[PoolSpec, ...]) -> dict[int, float]:
    """When each step ends at the earliest, after the arrival."""
    end_s: dict[int, float] = {}
    for step in task.steps:
        begin_s = max((end_s[parent] for parent in step.parents), default=0.0)
        end_s[step.step_id] = begin_s + fastest_s(step, pools)
    return end_s


def _after_s(task: WorkloadTask, pools: tuple[PoolSpec, ...]) -> dict[int, float]:
    """How long the longest chain of steps after each step takes at the least."""
    after_s = {step.step_id: 0.0 for step in task.steps}
    for step in reversed(task.steps):
        whole_s = after_s[step.step_id] + fastest_s(step, pools)
        for parent in step.parents:
            after_s[parent] = max(after_s[parent], whole_s)
    return after_s


def _work_of(workload: Workload, asked: list[_Asked], slack_s: FloatArray) -> _Work:
    first_s = min((task.arrival_s for task in workload.tasks), default=0.0)
    owners: list[np.ndarray] = [np.empty(0, dtype=np.intp)]
    tables: list[FloatArray] = [np.empty((0, 3))]
    for at, task in enumerate(workload.tasks):
        if not 0.0 <= slack_s[at] < math.inf or not len(asked[at].calls):
            continue
        arrival_s, table = task.arrival_s - first_s, asked[at].calls.copy()
        table[:, 0] += arrival_s
        table[:, 1] = arrival_s + (task.deadline_after_s or 0.0) - table[:, 1]
        owners.append(np.full(len(table), at, dtype=np.intp))
        tables.append(table)
    table = np.concatenate(tables)
    return _Work(np.concatenate(owners), table[:, 0], table[:, 1], table[:, 2])


def _cheapest_usd(step: WorkloadStep, models: tuple[PoolSpec, ...]) -> float:
    """Rent of the machine time that a call takes at a full batch, where that is least."""
    least = math.inf
    for spec in models:
        curve = spec.llm_curves.get(step.model)
        if curve is None or step.prompt_tokens >= curve.context_tokens:
            continue
        # Models of one replica share its places: a stream may run beside as many of another one.
        cap = max(one.concurrency_cap for one in spec.llm_curves.values())
        gap_s = itl_s(curve.itl_base_s, curve.itl_slope_s, float(cap)) / cap
        used_s = (
            least_uncached_tokens(step) * curve.prefill_s_per_token + step.output_tokens * gap_s
        )
        least = min(least, used_s * spec.usd_per_hour / SECONDS_PER_HOUR)
    return least


class _Program:
    """The linear program of `burst_bound`, its spans found one round after the other."""

    def __init__(self, work: _Work, possible: np.ndarray, must: int) -> None:
        self._work = work
        self._tasks = len(possible)
        end_s = float(work.latest_s.max(initial=0.0))
        self._moments_s = np.linspace(0.0, end_s, _MOMENTS + 1)
        scale = _MOMENTS / end_s if end_s > 0.0 else 0.0
        # Rounded inwards: a call lies within a span only if all of its time does.
        self._first = np.clip(np.floor(work.earliest_s * scale).astype(np.intp), 0, _MOMENTS)
        self._last = np.clip(np.ceil(work.latest_s * scale).astype(np.intp), 0, _MOMENTS)
        self._solver = quiet_solver(_TIME_LIMIT_S)
        self._solver.addCol(1.0, 0.0, highspy.kHighsInf, 0, [], [])
        for one in possible:
            self._solver.addCol(0.0, 0.0, float(one), 0, [], [])
        columns = list(range(1, self._tasks + 1))
        ones = [1.0] * self._tasks
        self._solver.addRow(float(must), highspy.kHighsInf, self._tasks, columns, ones)
        self._chosen: FloatArray = possible.astype(np.float64)
        self._usd_per_s = 0.0
        self._known: set[tuple[int, int]] = set()

    def solve(self) -> BurstBound:
        """Add spans until none asks for more than is rented; any round's answer is a bound."""
        for _ in range(_ROUNDS):
            spans = self._violated()
            if not spans:
                break
            for span in spans:
                self._add(span)
            self._run()
        demand = self._demand_usd_per_s()
        begin, end = np.unravel_index(int(demand.argmax()), demand.shape)
        return BurstBound(
            usd_per_hour=self._usd_per_s * SECONDS_PER_HOUR,
            from_s=float(self._moments_s[begin]),
            to_s=float(self._moments_s[end]),
        )

    def _demand_usd_per_s(self) -> FloatArray:
        """What the chosen tasks ask for between every two moments, shape (moments, moments)."""
        held = np.zeros((_MOMENTS + 1, _MOMENTS + 1))
        weights = self._work.cost_usd * self._chosen[self._work.owner]
        np.add.at(held, (self._first, self._last), weights)
        within = held[::-1].cumsum(axis=0)[::-1].cumsum(axis=1)
        length_s = self._moments_s[None, :] - self._moments_s[:, None]
        asked = np.zeros_like(within)
        np.divide(within, length_s, out=asked, where=length_s > 0.0)
        return asked

    def _violated(self) -> list[tuple[int, int]]:
        """The spans that ask for the most beyond what is rented, not all at one place."""
        demand = self._demand_usd_per_s()
        found: list[tuple[int, int]] = []
        for flat in np.argsort(demand, axis=None)[::-1]:
            begin, end = divmod(int(flat), _MOMENTS + 1)
            if demand[begin, end] <= self._usd_per_s * (1.0 + _TOLERANCE_FRAC):
                break
            near = any(abs(begin - a) + abs(end - b) < 4 for a, b in found)
            if not near and (begin, end) not in self._known:
                found.append((begin, end))
            if len(found) == _SPANS_PER_ROUND:
                break
        return found

    def _add(self, span: tuple[int, int]) -> None:
        self._known.add(span)
        begin, end = span
        within = (self._first >= begin) & (self._last <= end)
        work = np.bincount(
            self._work.owner[within], self._work.cost_usd[within], minlength=self._tasks
        )
        has = np.nonzero(work)[0]
        length_s = float(self._moments_s[end] - self._moments_s[begin])
        columns = [0, *(int(task) + 1 for task in has)]
        values = [length_s, *(-float(work[task]) for task in has)]
        self._solver.addRow(0.0, highspy.kHighsInf, len(columns), columns, values)

    def _run(self) -> None:
        self._solver.run()
        status = self._solver.getModelStatus()
        if status != highspy.HighsModelStatus.kOptimal:
            raise SolverError(
                f"the bound on bursts was not found within {_TIME_LIMIT_S:g} s (HiGHS: {status}); "
                "take fewer tasks"
            )
        values = np.array(self._solver.getSolution().col_value, dtype=np.float64)
        self._usd_per_s, self._chosen = float(values[0]), values[1:]
