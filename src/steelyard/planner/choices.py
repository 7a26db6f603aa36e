"""Which hardware does each kind of step go to, and why did the runner-up hardware lose?"""

import math

import msgspec

from steelyard.planner.fitness_table import FitnessTable
from steelyard.planner.obstacles import main_obstacle
from steelyard.planner.solve import Solution

SMALLEST_SHARE = 1e-6
# A smaller share of a machine is told as less than this.
_LEAST_FRAC = 0.001


class StepChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One class of steps on one offering of the plan.

    Attributes:
        name: Name of the step class.
        agent: The agent.
        step: Name of the step.
        offering: Offering that takes it.
        hardware: Its class.
        share_frac: Share of these steps that it takes.
        usd_per_1000_steps: Cost there when the machine is full, headroom included.
        latency_s: Predicted seconds from start to end.
        measured: Whether the figures behind it were measured on this type, and well.
        origin: Where the figures come from: measured, weak, borrowed, predicted or own figures.
        runner_up: Cheapest offering of the next best class of hardware; empty if none can.
        runner_up_hardware: Its class; empty if there is none.
        runner_up_usd_per_1000_steps: Cost there when full; None if none can.
        why: Why the runner-up lost, one sentence.
    """

    name: str
    agent: str
    step: str
    offering: str
    hardware: str
    share_frac: float
    usd_per_1000_steps: float
    latency_s: float
    measured: bool
    runner_up: str
    runner_up_hardware: str
    runner_up_usd_per_1000_steps: float | None
    why: str
    origin: str = ""


def explain_choices(
    table: FitnessTable, allowed: list[int], found: Solution
) -> tuple[StepChoice, ...]:
    """Where does every class of steps go, and why not elsewhere?

    Args:
        table: Step classes against offerings.
        allowed: Indices of the offerings that were planned with, in the plan's order.
        found: The plan.

    Returns:
        One per class and offering used, classes in order, largest share first.
    """
    choices: list[StepChoice] = []
    for b in range(len(table.classes)):
        used = [
            (-found.shares[row][b], o)
            for row, o in enumerate(allowed)
            if found.shares[row][b] > SMALLEST_SHARE
        ]
        choices.extend(_choice(table, allowed, (o, b), -minus) for minus, o in sorted(used))
    return tuple(choices)


def _choice(
    table: FitnessTable, allowed: list[int], cell: tuple[int, int], share_frac: float
) -> StepChoice:
    o, b = cell
    offering, step, fitness = table.offerings[o], table.classes[b], table.cells[o][b]
    usd = table.usd_per_step(o, b)
    rival = _runner_up(table, allowed, o, b)
    rival_usd = math.inf if rival is None else table.usd_per_step(rival, b)
    return StepChoice(
        name=step.name,
        agent=step.agent,
        step=step.step,
        offering=offering.name,
        hardware=offering.instance_type.hardware,
        share_frac=share_frac,
        usd_per_1000_steps=1000.0 * usd,
        latency_s=fitness.latency_s or 0.0,
        measured=fitness.measured,
        origin=fitness.origin,
        runner_up="" if rival is None else table.offerings[rival].name,
        runner_up_hardware=("" if rival is None else table.offerings[rival].instance_type.hardware),
        runner_up_usd_per_1000_steps=None if rival is None else 1000.0 * rival_usd,
        why=_why(table, allowed, cell, rival),
    )


def _runner_up(table: FitnessTable, allowed: list[int], chosen: int, step: int) -> int | None:
    """The cheapest offering, when full, of any other class of hardware."""
    mine = table.offerings[chosen].instance_type.hardware
    others = [
        o
        for o in allowed
        if table.offerings[o].instance_type.hardware != mine
        and table.cells[o][step].machine_s is not None
    ]
    return min(
        others,
        key=lambda o: (table.usd_per_step(o, step), table.offerings[o].name),
        default=None,
    )


def _why(table: FitnessTable, allowed: list[int], cell: tuple[int, int], rival: int | None) -> str:
    o, b = cell
    mine = table.offerings[o].instance_type.hardware
    lost = _obstacles(table, mine, b)
    if rival is None:
        return f"no other hardware can run it: {lost}" if lost else "no other hardware can run it"
    usd, rival_usd = table.usd_per_step(o, b), table.usd_per_step(rival, b)
    theirs = table.offerings[rival].instance_type.hardware
    ratio = rival_usd / usd if usd > 0.0 else math.inf
    if ratio >= 1.0:
        return f"{theirs} costs {ratio:.2f} times as much per step when full"
    busy = table.classes[b].rate_per_s * (table.cells[rival][b].machine_s or 0.0)
    if busy < 1.0:
        part = f"{busy:.1%}" if busy >= _LEAST_FRAC else f"less than {_LEAST_FRAC:.1%}"
        return (
            f"{theirs} costs {ratio:.2f} times as much per step when full, but these steps would"
            f" use {part} of one machine of {table.usd_per_hour(rival):.3g} USD/h"
        )
    return (
        f"{theirs} costs {ratio:.2f} times as much per step when full, but this machine has room"
        " that is already paid for, or a rule on providers, regions or spot asks for it"
    )


def _obstacles(table: FitnessTable, mine: str, step: int) -> str:
    """The commonest obstacle of each other class of hardware that cannot run the step."""
    parts: list[str] = []
    for hardware in ("arm", "gpu", "x86"):
        rows = [
            row[step]
            for offering, row in zip(table.offerings, table.cells, strict=True)
            if offering.instance_type.hardware == hardware
        ]
        if hardware == mine or any(cell.machine_s is not None for cell in rows):
            continue
        obstacle = main_obstacle(rows)
        if obstacle:
            parts.append(f"{hardware}: {obstacle}")
    return "; ".join(parts)
