"""The demo's second half: ledger to workload to plan to simulation."""

from collections.abc import Callable

import msgspec

from steelyard.config.catalog_table import Catalog
from steelyard.domain.slo import Slo
from steelyard.domain.workload import Workload
from steelyard.ledger.ledger import Ledger
from steelyard.placement.policy import CheapestFeasible
from steelyard.planner.plan import FleetPlan, PlanOptions, plan_fleet
from steelyard.planner.pools import pools_of
from steelyard.sim import Conditions, Simulation, simulate
from steelyard.sim.synth import scale_workload

RATE_FACTOR = 1000.0
# Tasks of the planned rate that are simulated; the rest of the hour would look the same.
SIMULATED_TASKS = 3000
SEED = 1
# The name of the policy below.
SIMULATED_POLICY = "cheapest_feasible"

# Told the share that is done, 0 to 1.
Tick = Callable[[float], None]


class SimulatedPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A plan run on a virtual clock.

    Attributes:
        ledger: The books of the simulated log.
        usd_per_1000_tasks: Rent of the whole fleet over the arrivals' span, per 1,000 tasks.
        arrivals_s: Simulated seconds over which tasks arrived.
        events: Events of the simulated log.
    """

    ledger: Ledger
    usd_per_1000_tasks: float
    arrivals_s: float
    events: int


def plan_demo(workload: Workload, span_s: float, catalog: Catalog) -> FleetPlan:
    """What is the cheapest fleet for 1,000 times the recorded rate?

    Args:
        workload: What was recorded.
        span_s: Seconds in which it was served; the demo's tasks queue for few places, so the
            rate is that of completions, not of arrivals.
        catalog: Prices and speeds.

    Returns:
        The plan, with baselines.
    """
    options = PlanOptions(growth_factor=RATE_FACTOR, duration_s=span_s)
    return plan_fleet(workload, catalog, Slo(), options)


def simulate_demo(
    workload: Workload, plan: FleetPlan, catalog: Catalog, tick: Tick
) -> SimulatedPlan:
    """Does the planned fleet keep its promises under the live policy?

    Args:
        workload: What was recorded.
        plan: What would be bought.
        catalog: Prices and speeds.
        tick: Told the share that is done.

    Returns:
        The simulated run.
    """
    sample = scale_workload(
        workload,
        RATE_FACTOR,
        SIMULATED_TASKS,
        SEED,
        rate_per_s=plan.tasks_per_s / RATE_FACTOR,
    )
    span_s = sample.tasks[-1].arrival_s
    bids = {machines.offering: machines.bid_usd_per_hour for machines in plan.machines}

    def progress(simulated_s: float, _events: int) -> None:
        tick(simulated_s / span_s)

    run: Simulation = simulate(
        sample,
        pools_of(plan, catalog),
        CheapestFeasible(),
        SEED,
        conditions=Conditions(bids_usd_per_hour=bids),
        progress=progress,
    )
    ledger = Ledger.of(run.events)
    hours = span_s / 3600.0
    return SimulatedPlan(
        ledger=ledger,
        usd_per_1000_tasks=1000.0 * plan.usd_per_hour * hours / len(sample.tasks),
        arrivals_s=span_s,
        events=len(run.events),
    )
