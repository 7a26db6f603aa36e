"""Where would a clairvoyant send each step? A mixed-integer program for small cases."""

import math

import highspy

from steelyard.domain.pool import PoolSpec
from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask
from steelyard.errors import InfeasiblePlanError, PlanError, SolverError
from steelyard.perf.cost import llm_step_usd, tool_step_usd
from steelyard.planner.bounds import fastest_s
from steelyard.planner.solver import quiet_solver

_TIME_LIMIT_S = 60.0
_MOST_STEPS = 2000


def clairvoyant_usd(workload: Workload, pools: tuple[PoolSpec, ...]) -> float:
    """What would the tasks use, at the least, with every deadline kept?

    Who knows all lengths beforehand chooses one pool per step:

        minimise sum_sp usd_sp x_sp
        sum_p x_sp = 1                                             every step s
        sum_{s on the chain} least_sp x_sp <= deadline             every chain of a task, here the
                                                                   one from each step's first parent

    Nothing waits, caches hold all that repeats, and streams are alone for their speed and share a
    full replica for their cost: a policy on real replicas uses at least this.

    Args:
        workload: At most 2,000 steps.
        pools: The fleet; the numbers of replicas are not read.

    Returns:
        USD, a lower bound on the cost of what is used.

    Raises:
        PlanError: There are more steps.
        InfeasiblePlanError: No pool runs a step, or no choice keeps every deadline.
        SolverError: The solver found no answer for a task in a minute.
    """
    steps = sum(len(task.steps) for task in workload.tasks)
    if steps > _MOST_STEPS:
        raise PlanError(
            f"workload {workload.name} has {steps} steps; the clairvoyant program takes at most "
            f"{_MOST_STEPS}: take fewer tasks, or the linear bound"
        )
    return math.fsum(_task_usd(task, pools) for task in workload.tasks)


def _task_usd(task: WorkloadTask, pools: tuple[PoolSpec, ...]) -> float:
    """Tasks share nothing that is scarce here, so each is a program of its own."""
    solver = quiet_solver(_TIME_LIMIT_S)
    columns: dict[int, list[tuple[int, float]]] = {}
    column = 0
    # Costs of steps are fractions of a cent, and the solver's tolerances are absolute: 1e-6.
    unit_usd = _dearest_usd(task, pools)
    for step in task.steps:
        columns[step.step_id] = []
        for spec in pools:
            least_s = fastest_s(step, (spec,))
            if step.kind != "human" and math.isfinite(least_s):
                solver.addCol(_usd(step, spec, least_s) / unit_usd, 0.0, 1.0, 0, [], [])
                solver.changeColIntegrality(column, highspy.HighsVarType.kInteger)
                columns[step.step_id].append((column, least_s))
                column += 1
        row = [at for at, _ in columns[step.step_id]]
        if step.kind != "human":
            if not row:
                raise InfeasiblePlanError(
                    f"no pool can run the {step.kind} step {step.name!r} of task {task.task_id};"
                    " add a pool"
                )
            solver.addRow(1.0, 1.0, len(row), row, [1.0] * len(row))
    if task.deadline_after_s is not None:
        chain = _chain(task)
        waited_s = math.fsum(s.think_or_tool_s for s in chain if s.kind == "human")
        entries = [entry for step in chain for entry in columns[step.step_id]]
        left_s = task.deadline_after_s - waited_s
        at, times_s = [one for one, _ in entries], [value for _, value in entries]
        solver.addRow(-highspy.kHighsInf, left_s, len(entries), at, times_s)
    solver.run()
    status = solver.getModelStatus()
    if status == highspy.HighsModelStatus.kInfeasible:
        raise InfeasiblePlanError(
            f"task {task.task_id} cannot end in {task.deadline_after_s} s on "
            f"{', '.join(spec.name for spec in pools)}; give it more time or faster pools"
        )
    if status not in (highspy.HighsModelStatus.kOptimal, highspy.HighsModelStatus.kModelEmpty):
        raise SolverError(
            f"the cheapest choice of pools for task {task.task_id} was not found within"
            f" {_TIME_LIMIT_S:g} s (HiGHS: {status}); take tasks of fewer steps"
        )
    # The solver may stop 0.01 % above the best choice; its bound is below it for sure.
    info = solver.getInfo()
    return unit_usd * float(info.mip_dual_bound if column else info.objective_function_value)


def _dearest_usd(task: WorkloadTask, pools: tuple[PoolSpec, ...]) -> float:
    """The largest cost of a step anywhere; 1 where all cost nothing."""
    found = (
        _usd(step, spec, least_s)
        for step in task.steps
        if step.kind != "human"
        for spec in pools
        if math.isfinite(least_s := fastest_s(step, (spec,)))
    )
    return max(found, default=0.0) or 1.0


def _usd(step: WorkloadStep, spec: PoolSpec, least_s: float) -> float:
    if step.kind == "llm":
        tokens = (
            float(step.prompt_tokens),
            float(step.shared_prefix_tokens),
            float(step.output_tokens),
        )
        return llm_step_usd(spec, step.model, tokens, spec.usd_per_hour)
    if spec.tool_curve is None:
        return 0.0
    usage = (step.cpu_s, least_s, float(step.memory_bytes))
    return tool_step_usd(spec.tool_curve, usage, spec.usd_per_hour)


def _chain(task: WorkloadTask) -> list[WorkloadStep]:
    """The steps from the last one back along first parents."""
    by_id = {step.step_id: step for step in task.steps}
    chain = [task.steps[-1]]
    while chain[-1].parents:
        chain.append(by_id[chain[-1].parents[0]])
    return chain[::-1]
