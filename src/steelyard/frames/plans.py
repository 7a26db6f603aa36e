"""Plans as frames: what to buy, where steps go, and what simpler fleets would cost."""

import polars as pl

from steelyard.frames.column import Column, Table
from steelyard.planner.baselines import Baseline
from steelyard.planner.choices import StepChoice
from steelyard.planner.plan import FleetPlan, PlannedMachines

MACHINES: Table[PlannedMachines] = Table(
    name="plan_machines",
    row="an offering that is bought",
    columns=(
        Column("offering", pl.String, "", "its name", lambda one: one.offering),
        Column("provider", pl.String, "", "who sells it", lambda one: one.provider),
        Column("region", pl.String, "", "where", lambda one: one.region),
        Column("hardware", pl.String, "", "gpu, arm or x86", lambda one: one.hardware),
        Column("machines", pl.Int64, "machines", "how many", lambda one: one.machines),
        Column(
            "usd_per_hour", pl.Float64, "USD per hour", "price of one", lambda one: one.usd_per_hour
        ),
        Column(
            "total_usd_per_hour",
            pl.Float64,
            "USD per hour",
            "price of all of them",
            lambda one: one.machines * one.usd_per_hour,
        ),
        Column("price_date", pl.String, "", "day of the price", lambda one: one.price_date),
        Column(
            "used_frac",
            pl.Float64,
            "fraction of 1",
            "planned share of their time that steps use, headroom not counted",
            lambda one: one.used_frac,
        ),
        Column(
            "bid_usd_per_hour",
            pl.Float64,
            "USD per hour",
            "worth of one machine's time; 0 if idle",
            lambda one: one.bid_usd_per_hour,
        ),
        Column(
            "watts",
            pl.Float64,
            "W",
            "that one is taken to draw, all cores busy",
            lambda one: one.watts,
        ),
    ),
)

CHOICES: Table[StepChoice] = Table(
    name="plan_choices",
    row="a class of steps on an offering",
    columns=(
        Column("step_class", pl.String, "", "name of the class", lambda one: one.name),
        Column("agent", pl.String, "", "the agent", lambda one: one.agent),
        Column("step", pl.String, "", "name of the step", lambda one: one.step),
        Column("offering", pl.String, "", "that takes it", lambda one: one.offering),
        Column("hardware", pl.String, "", "gpu, arm or x86", lambda one: one.hardware),
        Column(
            "share_frac",
            pl.Float64,
            "fraction of 1",
            "of these steps that it takes",
            lambda one: one.share_frac,
        ),
        Column(
            "usd_per_1000_steps",
            pl.Float64,
            "USD per 1,000 steps",
            "on a full machine, headroom included",
            lambda one: one.usd_per_1000_steps,
        ),
        Column(
            "predicted_latency_s",
            pl.Float64,
            "s",
            "from start to end",
            lambda one: one.latency_s,
        ),
        Column(
            "measured",
            pl.Boolean,
            "",
            "whether the figures behind it were measured on this type, and well",
            lambda one: one.measured,
        ),
        Column(
            "runner_up",
            pl.String,
            "",
            "cheapest offering of the next best class of hardware; empty if none can",
            lambda one: one.runner_up,
        ),
        Column(
            "runner_up_usd_per_1000_steps",
            pl.Float64,
            "USD per 1,000 steps",
            "there; null if none can",
            lambda one: one.runner_up_usd_per_1000_steps,
        ),
        Column("why", pl.String, "", "why the runner-up lost", lambda one: one.why),
    ),
)

BASELINES: Table[Baseline] = Table(
    name="plan_baselines",
    row="a simpler fleet for the same demand",
    columns=(
        Column(
            "baseline",
            pl.String,
            "",
            "all-gpu, all-arm, all-x86 or single-provider",
            lambda one: one.name,
        ),
        Column(
            "usd_per_hour",
            pl.Float64,
            "USD per hour",
            "of the fleet; null if there is none",
            lambda one: one.usd_per_hour,
        ),
        Column(
            "usd_per_1000_tasks",
            pl.Float64,
            "USD per 1,000 tasks",
            "idle machines included; null if there is none",
            lambda one: one.usd_per_1000_tasks,
        ),
        Column(
            "gap_frac",
            pl.Float64,
            "fraction of 1",
            "proven distance to the cheapest of its sort; null if there is none",
            lambda one: one.gap_frac,
        ),
        Column(
            "infeasible", pl.String, "", "why there is none; else empty", lambda one: one.infeasible
        ),
    ),
)


def plan_machines(plan: FleetPlan) -> pl.DataFrame:
    """What is to be bought?

    Args:
        plan: The plan.

    Returns:
        One row per offering; columns as `MACHINES`.
    """
    return MACHINES.frame(plan.machines)


def plan_choices(plan: FleetPlan) -> pl.DataFrame:
    """Where do the steps go, and why?

    Args:
        plan: The plan.

    Returns:
        One row per class of steps and offering; columns as `CHOICES`.
    """
    return CHOICES.frame(plan.choices)


def plan_baselines(plan: FleetPlan) -> pl.DataFrame:
    """What would simpler fleets cost?

    Args:
        plan: The plan.

    Returns:
        One row per baseline; columns as `BASELINES`.
    """
    return BASELINES.frame(plan.baselines)
