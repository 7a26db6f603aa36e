"""What does each kind of step cost on each class of hardware, as far as the catalogue knows?"""

import math

import msgspec

from steelyard.planner.plan import PlanningProblem


class KindCost(msgspec.Struct, frozen=True, kw_only=True):
    """A step class on the cheapest offering of one class of hardware that keeps its limits.

    Attributes:
        name: Unique name of the step class.
        agent: The agent.
        step: Name of the step.
        hardware: `arm`, `gpu` or `x86`.
        offering: The offering.
        usd_per_step: Cost there when the machine is full, headroom included.
        latency_s: Predicted seconds from start to end.
        steps_per_task: How many of these steps a task has, in the mean over all tasks.
        origin: Where the figures behind it come from, as in `StepChoice`.
    """

    name: str
    agent: str
    step: str
    hardware: str
    offering: str
    usd_per_step: float
    latency_s: float
    steps_per_task: float
    origin: str


def kind_costs(problem: PlanningProblem, tasks_per_s: float) -> tuple[KindCost, ...]:
    """Where would each step class be cheapest within every class of hardware?

    Args:
        problem: Step classes against offerings, limits and deadlines kept.
        tasks_per_s: Tasks of all agents that the demand was made for.

    Returns:
        By step class in order, then by class of hardware; what cannot run it is left out.
    """
    table = problem.table
    found: list[KindCost] = []
    for b, step in enumerate(table.classes):
        best: dict[str, int] = {}
        for o in problem.allowed:
            usd, hardware = table.usd_per_step(o, b), table.offerings[o].instance_type.hardware
            known = best.get(hardware)
            if math.isfinite(usd) and (known is None or usd < table.usd_per_step(known, b)):
                best[hardware] = o
        found.extend(
            KindCost(
                name=step.name,
                agent=step.agent,
                step=step.step,
                hardware=hardware,
                offering=table.offerings[o].name,
                usd_per_step=table.usd_per_step(o, b),
                latency_s=table.cells[o][b].latency_s or 0.0,
                steps_per_task=step.rate_per_s / tasks_per_s,
                origin=table.cells[o][b].origin,
            )
            for hardware, o in sorted(best.items())
        )
    return tuple(found)


def usd_per_task(costs: tuple[KindCost, ...], hardware: str) -> float | None:
    """What does a task cost on full machines of one class; None where one step cannot run there?

    Args:
        costs: Of all step classes.
        hardware: The class.
    """
    mine = [one for one in costs if one.hardware == hardware]
    if {one.name for one in mine} != {one.name for one in costs}:
        return None
    return math.fsum(one.usd_per_step * one.steps_per_task for one in mine)
