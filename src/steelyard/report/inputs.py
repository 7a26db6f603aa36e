"""What a report is made of: plain values, so that it can be written without a solver or a pool.

Each figure has one of five origins, and pages say which: `measured` on real hardware, `predicted`
by the curves before the fact, `planned` by the planner, `simulated` on a virtual clock, `declared`
by a person in a configuration.
"""

from typing import Literal

import msgspec

from steelyard.ledger.ledger import Ledger

Origin = Literal["measured", "predicted", "planned", "simulated", "declared"]


class PlannedPool(msgspec.Struct, frozen=True, kw_only=True):
    """Machines of one offering in a fleet.

    Attributes:
        offering: Name of the offering.
        provider: Who sells it.
        hardware: `gpu`, `arm`, `x86` or `vendor`.
        machines: How many.
        usd_per_hour: Rent of all of them.
        used_frac: Share of their time that the workload uses; None where unknown.
    """

    offering: str
    provider: str
    hardware: str
    machines: int
    usd_per_hour: float
    used_frac: float | None = None


class FleetOption(msgspec.Struct, frozen=True, kw_only=True):
    """A fleet that serves the workload, or would have to.

    Attributes:
        name: `plan`, or the baseline's name.
        label: The same for people.
        usd_per_1000_tasks: Rent and token prices, idle machines included; None if infeasible.
        usd_per_hour: The same per hour; None if infeasible.
        infeasible: Why no such fleet exists, in words; empty otherwise.
        gap_frac: Proven distance to the best possible cost; None where not proven.
        pools: Its machines.
    """

    name: str
    label: str
    usd_per_1000_tasks: float | None
    usd_per_hour: float | None
    infeasible: str = ""
    gap_frac: float | None = None
    pools: tuple[PlannedPool, ...] = ()


class StepChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Which hardware a kind of step goes to in the plan, and why not to the next best.

    Attributes:
        agent: The agent.
        step: Name of the step.
        offering: Offering that takes it.
        hardware: Its class.
        share_frac: Share of these steps that it takes.
        usd_per_1000_steps: Planned cost there; None where unknown.
        runner_up: The next best offering; empty where none can run the step.
        runner_up_hardware: Its class.
        runner_up_usd_per_1000_steps: Planned cost there; None where unknown.
        why: Why the runner-up lost, one sentence.
    """

    agent: str
    step: str
    offering: str
    hardware: str
    share_frac: float
    usd_per_1000_steps: float | None = None
    runner_up: str = ""
    runner_up_hardware: str = ""
    runner_up_usd_per_1000_steps: float | None = None
    why: str = ""


class PlanInputs(msgspec.Struct, frozen=True, kw_only=True):
    """A plan beside its baselines.

    Attributes:
        tasks_per_s: Arrivals that the fleets are made for.
        rate_factor: Those over the recorded rate.
        slo: The promises to keep, in words.
        slo_attainment_frac: Share of tasks that shall meet every SLO: what is aimed at.
        plan: The cheapest mix.
        baselines: All-GPU, all-Arm, best single provider, ...
        choices: Where the steps go.
    """

    tasks_per_s: float
    rate_factor: float
    slo: str
    slo_attainment_frac: float
    plan: FleetOption
    baselines: tuple[FleetOption, ...]
    choices: tuple[StepChoice, ...]


class SimulationInputs(msgspec.Struct, frozen=True, kw_only=True):
    """The plan run on a virtual clock.

    Attributes:
        ledger: The books of the simulated log.
        usd_per_1000_tasks: Rent and token prices over the simulated span, idle included.
        seed: Seed of arrivals and noise.
        policy: Policy that placed the steps.
    """

    ledger: Ledger
    usd_per_1000_tasks: float
    seed: int
    policy: str


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """Where a figure comes from.

    Attributes:
        figure: What it is.
        value: Its value with the unit.
        origin: How it came about.
        source: Machine, file or publication, with the day.
        command: What produces it again.
    """

    figure: str
    value: str
    origin: Origin
    source: str
    command: str


class DemoInputs(msgspec.Struct, frozen=True, kw_only=True):
    """Everything on the demo's page.

    Attributes:
        title: Heading of the page.
        made: Day and time of the run, in words.
        machine: The machine of the measured run: cores, CPU, price and offering.
        ledger: The books of the measured run.
        plan: The plan and its baselines; None when nothing was planned.
        simulation: The simulated plan; None when nothing was simulated.
        assumptions: What is taken for granted, one sentence each.
        provenance: Where the figures come from.
    """

    title: str
    made: str
    machine: str
    ledger: Ledger
    plan: PlanInputs | None = None
    simulation: SimulationInputs | None = None
    assumptions: tuple[str, ...] = ()
    provenance: tuple[Provenance, ...] = ()
