"""What can no policy beat? Bounds on a task's latency and on a fleet's price, for given pools.

Both are true of the simulator's model of hardware, whatever the policy: caches are taken to hold
every prefix that a prompt repeats, machines to be full whenever they work, nothing to wait.
"""

import math
from collections import defaultdict

import highspy
import msgspec
import numpy as np

from steelyard.domain.pool import LlmCurve, PoolSpec, ToolCurve
from steelyard.domain.units import SECONDS_PER_HOUR
from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask
from steelyard.errors import InfeasiblePlanError, SolverError, SteelyardBugError
from steelyard.perf.predict import itl_s, prefill_s
from steelyard.planner.demand import FloatArray
from steelyard.planner.solver import quiet_solver

_TIME_LIMIT_S = 60.0
# Steps of one agent are told apart by the octave of what they compute.
_Class = tuple[str, str, str, int, int]


class CostBound(msgspec.Struct, frozen=True, kw_only=True):
    """The cheapest fleet that could do the work if nothing ever went unused.

    Attributes:
        usd_per_hour: Its price: a lower bound on the price of every fleet of these pools.
        usd_per_task: The same for one task.
        replicas: Replicas of each pool by name; whole numbers if asked for.
        bid_usd_per_hour: Worth of one more replica-hour of each pool by name: its rent where the
            number of replicas is free, more where it is limited, less where it is not bought.
    """

    usd_per_hour: float
    usd_per_task: float
    replicas: dict[str, float]
    bid_usd_per_hour: dict[str, float]


def fastest_s(step: WorkloadStep, pools: tuple[PoolSpec, ...]) -> float:
    """How long does a step take at the very least, alone and with its prefix cached?

    Args:
        step: The step.
        pools: The fleet.

    Returns:
        Seconds on the fastest of the pools; infinite where none can run it.
    """
    if step.kind == "human":
        return step.think_or_tool_s
    if step.kind == "tool":
        tools = [p.tool_curve for p in pools if p.tool_curve is not None and p.runs_tool(step.tool)]
        return min((_tool_s(step, curve) for curve in tools), default=math.inf)
    curves = [p.llm_curves[step.model] for p in pools if step.model in p.llm_curves]
    fit = [c for c in curves if step.prompt_tokens < c.context_tokens]
    return min((_llm_s(step, curve) for curve in fit), default=math.inf)


def least_uncached_tokens(step: WorkloadStep) -> float:
    """How many tokens of a prompt must be computed if no cache forgets?

    Args:
        step: The step.

    Returns:
        Prompt tokens beyond the longest prefix that its task or its agent had before.
    """
    return float(step.prompt_tokens - max(step.shared_prefix_tokens, step.common_prefix_tokens))


def critical_path_s(task: WorkloadTask, pools: tuple[PoolSpec, ...]) -> float:
    """How long does a task take at the very least on these pools?

    The longest chain of its steps, each at its fastest (Kelley and Walker, 1959).

    Args:
        task: The task.
        pools: The fleet.

    Returns:
        Seconds from arrival to end.
    """
    end_s: dict[int, float] = {}
    for step in task.steps:
        begin_s = max((end_s[parent] for parent in step.parents), default=0.0)
        end_s[step.step_id] = begin_s + fastest_s(step, pools)
    return max(end_s.values(), default=0.0)


def _llm_s(step: WorkloadStep, curve: LlmCurve, streams: int = 1) -> float:
    first_s = prefill_s(curve.ttft_floor_s, curve.prefill_s_per_token, least_uncached_tokens(step))
    gap_s = itl_s(curve.itl_base_s, curve.itl_slope_s, float(streams))
    return first_s + step.output_tokens * gap_s


def _tool_s(step: WorkloadStep, curve: ToolCurve) -> float:
    return curve.start_s + step.cpu_s / curve.relative_speed + step.think_or_tool_s


def cost_bound(
    workload: Workload,
    pools: tuple[PoolSpec, ...],
    tasks_per_s: float,
    *,
    whole: bool = False,
    most: dict[str, int] | None = None,
) -> CostBound:
    """What is the least that a fleet of these pools can cost at this rate?

    A linear program over shares x_cpk of step class c on pool p at k streams and replicas n_p,
    with `whole` a mixed-integer one:

        minimise sum_p usd_p n_p
        sum_pk x_cpk = 1                                    every class c
        sum_ck rate_c use_cpkr x_cpk <= n_p                 every pool p, resource r
        sum_cpk per_task_c least_cpk x_cpk <= deadline      every agent, in the mean
        n_p <= most_p

    Resources are the time of a model's replica, cores, memory, and slots. A replica at k streams
    makes k / itl(k) tokens per second, and each stream waits itl(k) for its next one: full batches
    are cheap and slow, and a deadline decides how full they may be.

    Args:
        workload: Tasks with their steps.
        pools: What can be rented; their numbers of replicas are not read.
        tasks_per_s: Rate at which such tasks arrive.
        whole: Whether replicas come whole.
        most: Replicas of each pool by name that can be had at most; others have no limit.

    Returns:
        The bound.

    Raises:
        InfeasiblePlanError: The pools cannot do the work, or not in time.
        SolverError: The solver found no answer in a minute.
    """
    program = _Program(workload, pools, tasks_per_s, most or {})
    return program.solve(whole=whole)


def fleet_bound(workload: Workload, pools: tuple[PoolSpec, ...], tasks_per_s: float) -> CostBound:
    """What is the time of each replica of this very fleet worth, and how much could it serve?

    The program of `cost_bound` for a fleet of fixed proportions: n_p <= size * replicas_p, and
    `size` times the fleet's rent is least. The duals of the capacities are the bid prices: they
    add up to the fleet's rent, and pools that are no bottleneck bid nothing.

    Args:
        workload: Tasks with their steps.
        pools: The fleet with its numbers of replicas.
        tasks_per_s: Rate at which such tasks arrive.

    Returns:
        The bound: `usd_per_hour` over the fleet's rent is the share of the fleet that the work
        needs at the very least, so at most `tasks_per_s` over that share can be served.

    Raises:
        InfeasiblePlanError: The pools cannot do the work, or not in time.
        SolverError: The solver found no answer in a minute.
    """
    program = _Program(workload, pools, tasks_per_s, {})
    program.fix_proportions()
    return program.solve(whole=False)


class _Program:
    """The program of `cost_bound`, row by row."""

    def __init__(
        self,
        workload: Workload,
        pools: tuple[PoolSpec, ...],
        tasks_per_s: float,
        most: dict[str, int],
    ) -> None:
        self._pools = pools
        self._tasks_per_s = tasks_per_s
        self._solver = quiet_solver(_TIME_LIMIT_S)
        for spec in pools:
            limit = float(most.get(spec.name, highspy.kHighsInf))
            self._solver.addCol(spec.usd_per_hour, 0.0, limit, 0, [], [])
        self._groups: dict[_Class, list[WorkloadStep]] = defaultdict(list)
        for task in workload.tasks:
            for step in task.steps:
                if step.kind != "human":
                    self._groups[_class(task.agent, step)].append(step)
        self._per_task = {key: len(g) / len(workload.tasks) for key, g in self._groups.items()}
        self._columns: list[tuple[_Class, int, int]] = []
        self._add_shares()
        self._add_capacities()
        self._add_deadlines(workload)

    def _add_shares(self) -> None:
        for key, steps in self._groups.items():
            row: list[int] = []
            for pool, spec in enumerate(self._pools):
                if not all(math.isfinite(fastest_s(step, (spec,))) for step in steps):
                    continue
                for streams in _levels(steps[0], spec):
                    row.append(len(self._pools) + len(self._columns))
                    self._solver.addCol(0.0, 0.0, 1.0, 0, [], [])
                    self._columns.append((key, pool, streams))
            if not row:
                raise InfeasiblePlanError(
                    f"no pool can run the {key[2]} steps {key[1]!r} of agent {key[0]!r}, with"
                    f" prompts of up to {max(step.prompt_tokens for step in steps)} tokens;"
                    " add a pool"
                )
            self._solver.addRow(1.0, 1.0, len(row), row, [1.0] * len(row))

    def _add_capacities(self) -> None:
        self._capacity_rows: list[tuple[int, int]] = []
        uses = [_uses(self._groups[key], self._pools[pool], k) for key, pool, k in self._columns]
        for pool in range(len(self._pools)):
            mine = [at for at, (_, other, _) in enumerate(self._columns) if other == pool]
            for resource in range(4):
                used = [
                    (len(self._pools) + at, self._rate(at) * uses[at][resource])
                    for at in mine
                    if uses[at][resource] > 0.0
                ]
                if used:
                    self._capacity_rows.append((pool, self._solver.getNumRow()))
                    entries = [*used, (pool, -1.0)]
                    self._add_row(-highspy.kHighsInf, 0.0, entries)

    def _rate(self, at: int) -> float:
        return self._tasks_per_s * self._per_task[self._columns[at][0]]

    def _add_deadlines(self, workload: Workload) -> None:
        for agent in sorted({task.agent for task in workload.tasks}):
            tasks = [task for task in workload.tasks if task.agent == agent]
            if any(task.deadline_after_s is None for task in tasks) or _branches(tasks):
                continue
            left_s = [
                (task.deadline_after_s or 0.0)
                - math.fsum(s.think_or_tool_s for s in task.steps if s.kind == "human")
                for task in tasks
            ]
            share = len(tasks) / len(workload.tasks)
            entries: list[tuple[int, float]] = []
            for at, (key, pool, streams) in enumerate(self._columns):
                if key[0] == agent:
                    mean_s = _mean_s(self._groups[key], self._pools[pool], streams)
                    entries.append((len(self._pools) + at, mean_s * self._per_task[key] / share))
            self._add_row(-highspy.kHighsInf, math.fsum(left_s) / len(left_s), entries)

    def _add_row(self, low: float, high: float, entries: list[tuple[int, float]]) -> None:
        self._solver.addRow(
            low, high, len(entries), [at for at, _ in entries], [value for _, value in entries]
        )

    def fix_proportions(self) -> None:
        """Rent the fleet as it is, larger or smaller as a whole."""
        rent = math.fsum(spec.usd_per_hour * spec.replicas for spec in self._pools)
        size = self._solver.getNumCol()
        self._solver.addCol(rent, 0.0, highspy.kHighsInf, 0, [], [])
        for pool, spec in enumerate(self._pools):
            self._solver.changeColCost(pool, 0.0)
            self._add_row(-highspy.kHighsInf, 0.0, [(pool, 1.0), (size, -float(spec.replicas))])

    def solve(self, *, whole: bool) -> CostBound:
        """Solve it; duals are read of the linear program alone."""
        if whole:
            for pool in range(len(self._pools)):
                self._solver.changeColIntegrality(pool, highspy.HighsVarType.kInteger)
            # Tighter than the default, which may stop 0.01 % above the bound.
            self._solver.setOptionValue("mip_rel_gap", 1e-4)
        self._solver.run()
        status = self._solver.getModelStatus()
        if status == highspy.HighsModelStatus.kInfeasible:
            raise InfeasiblePlanError(
                f"no fleet of {', '.join(spec.name for spec in self._pools)} does the work in the "
                "mean deadline; give more time, more stock or faster pools"
            )
        info, solution = self._solver.getInfo(), self._solver.getSolution()
        # Cut short, a program over whole replicas still has a bound; a linear one has none.
        found = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
        if status != highspy.HighsModelStatus.kOptimal and not (whole and found):
            raise SolverError(
                f"the bound on a fleet's price was not found within {_TIME_LIMIT_S:g} s (HiGHS:"
                f" {status}); take fewer tasks or pools"
            )
        usd_per_hour = float(info.mip_dual_bound if whole else info.objective_function_value)
        duals: FloatArray = np.array(solution.row_dual, dtype=np.float64)
        bids = {spec.name: 0.0 for spec in self._pools}
        if not whole:
            for pool, row in self._capacity_rows:
                bids[self._pools[pool].name] += max(0.0, -float(duals[row]))
        return CostBound(
            usd_per_hour=usd_per_hour,
            usd_per_task=usd_per_hour / SECONDS_PER_HOUR / self._tasks_per_s,
            replicas={
                spec.name: float(solution.col_value[at]) for at, spec in enumerate(self._pools)
            },
            bid_usd_per_hour=bids,
        )


def _class(agent: str, step: WorkloadStep) -> _Class:
    size = int(least_uncached_tokens(step)).bit_length() if step.kind == "llm" else 0
    return (agent, step.name, step.kind, size, step.output_tokens.bit_length())


def _branches(tasks: list[WorkloadTask]) -> bool:
    """Do steps run side by side? Then the sum of their times is no bound on the task's."""
    return any(len(step.parents) > 1 for task in tasks for step in task.steps) or any(
        len({p for s in task.steps for p in s.parents}) < len(task.steps) - 1 for task in tasks
    )


def _levels(step: WorkloadStep, spec: PoolSpec) -> list[int]:
    """Numbers of streams that are told apart: the cap, two thirds of it, and so on down to 1.

    Models of one replica share its places: a stream may run beside as many of another one.
    """
    if step.kind == "tool":
        return [1]
    levels = [max(curve.concurrency_cap for curve in spec.llm_curves.values())]
    while levels[-1] > 1:
        levels.append(max(1, min(levels[-1] - 1, round(levels[-1] / 1.5))))
    return levels


def _mean_s(steps: list[WorkloadStep], spec: PoolSpec, streams: int) -> float:
    """Seconds that one step takes in the mean at so many streams, waiting for nothing."""
    if steps[0].kind == "tool":
        return math.fsum(fastest_s(step, (spec,)) for step in steps) / len(steps)
    curve = spec.llm_curves[steps[0].model]
    return math.fsum(_llm_s(step, curve, streams) for step in steps) / len(steps)


def _uses(
    steps: list[WorkloadStep], spec: PoolSpec, streams: int
) -> tuple[float, float, float, float]:
    """Replica-seconds of batch, cores, memory and slots that one step takes in the mean."""
    count = len(steps)
    if steps[0].kind == "llm":
        curve = spec.llm_curves[steps[0].model]
        gap_s = itl_s(curve.itl_base_s, curve.itl_slope_s, float(streams)) / streams
        uncached = math.fsum(least_uncached_tokens(step) for step in steps)
        output = math.fsum(step.output_tokens for step in steps)
        batch_s = (uncached * curve.prefill_s_per_token + output * gap_s) / count
        return (batch_s, 0.0, 0.0, 0.0)
    tools = spec.tool_curve
    if tools is None:
        raise SteelyardBugError(f"pool {spec.name} was given tool steps and has no tool_curve")
    walls_s = [_tool_s(step, tools) for step in steps]
    cpu_s = math.fsum(step.cpu_s for step in steps) / count / (tools.relative_speed * tools.cores)
    held = math.fsum(w * s.memory_bytes for w, s in zip(walls_s, steps, strict=True))
    return (0.0, cpu_s, held / count / tools.memory_bytes, math.fsum(walls_s) / count / tools.slots)
