"""Which hardware is too slow for a task's deadline? Each step gets its part of the slack."""

import math

import msgspec

from steelyard.errors import InfeasiblePlanError
from steelyard.planner.capacity import Fitness
from steelyard.planner.fitness_table import FitnessTable
from steelyard.planner.workload_demand import WorkloadDemand


def keep_deadlines(table: FitnessTable, demand: WorkloadDemand, allowed: list[int]) -> FitnessTable:
    """Strike out the cells with which a task would be late, in the mean and at planned load.

    The fastest allowed hardware leaves a slack of `deadline - sum_c k_c * fastest_c`, k_c steps of
    class c on a task's longest chain; each step may be slower than the fastest by an equal part of
    it, so that `sum_c k_c * latency_c <= deadline` whatever is chosen. Thin: means, not tails,
    and no queueing beyond the headroom; a cleverer split could allow cheaper hardware.

    Args:
        table: Step classes against offerings.
        demand: The deadlines, by agent.
        allowed: Indices of the offerings that may be bought.

    Returns:
        The table with obstacles in the cells that are too slow.

    Raises:
        InfeasiblePlanError: Even the fastest hardware is too slow for an agent's deadline.
    """
    cells = [list(row) for row in table.cells]
    for agent, deadline_s in sorted(demand.deadlines_s.items()):
        mine = [b for b, step in enumerate(table.classes) if step.agent == agent]
        fastest = {b: _fastest_s(table, allowed, b) for b in mine}
        if any(math.isinf(s) for s in fastest.values()):
            # A step that nothing can run is reported by itself, with the obstacle.
            continue
        steps = math.fsum(table.classes[b].per_task for b in mine)
        least_s = math.fsum(table.classes[b].per_task * fastest[b] for b in mine)
        if least_s > deadline_s:
            raise InfeasiblePlanError(
                f"agent {agent!r} has a deadline of {deadline_s:g} s, but its steps take"
                f" {least_s:.3g} s on the fastest hardware allowed; give it more time, fewer"
                " steps or a smaller model"
            )
        slack_s = (deadline_s - least_s) / max(steps, 1e-9)
        for b in mine:
            _strike(cells, b, fastest[b] + slack_s, deadline_s)
    return msgspec.structs.replace(table, cells=tuple(tuple(row) for row in cells))


def fastest_tasks_s(
    table: FitnessTable, demand: WorkloadDemand, allowed: list[int]
) -> dict[str, float]:
    """How long does a task of each agent take on the fastest allowed hardware?

    Args:
        table: Step classes against offerings.
        demand: The step classes.
        allowed: Indices of the offerings that may be bought.

    Returns:
        Agent to `sum_c k_c * fastest_c` in seconds; infinite where a step cannot run.
    """
    parts: dict[str, list[float]] = {}
    for b, step in enumerate(demand.classes):
        parts.setdefault(step.agent, []).append(step.per_task * _fastest_s(table, allowed, b))
    return {agent: math.fsum(some) for agent, some in sorted(parts.items())}


def _fastest_s(table: FitnessTable, allowed: list[int], step: int) -> float:
    times = [s for o in allowed if (s := table.cells[o][step].latency_s) is not None]
    return min(times, default=math.inf)


def _strike(cells: list[list[Fitness]], step: int, limit_s: float, deadline_s: float) -> None:
    for row in cells:
        latency_s = row[step].latency_s
        if latency_s is not None and latency_s > limit_s * (1.0 + 1e-9):
            told = (
                f"{latency_s:.3g} s is over its {limit_s:.3g} s of the deadline"
                f" {round(deadline_s, 2):g} s"
            )
            row[step] = Fitness(machine_s=None, latency_s=None, obstacle=told, measured=False)
