"""From the fleet in force to another plan: what would change, and is it worth it?"""

import math
from collections.abc import Mapping

import msgspec

from steelyard.config.catalog_table import Catalog
from steelyard.domain.slo import Slo
from steelyard.errors import InfeasiblePlanError
from steelyard.planner.plan import FleetPlan, PlanOptions, plan_demand
from steelyard.planner.workload_demand import WorkloadDemand


class MachineChange(msgspec.Struct, frozen=True, kw_only=True):
    """How many machines of an offering there are, and shall be.

    Attributes:
        offering: Name of the offering.
        before: Machines in force.
        after: Machines planned.
        usd_per_hour: Price of one; None where the catalogue does not know it any more.
    """

    offering: str
    before: int
    after: int
    usd_per_hour: float | None

    @property
    def delta_usd_per_hour(self) -> float | None:
        """What the change costs, negative where it saves."""
        if self.usd_per_hour is None:
            return None
        return (self.after - self.before) * self.usd_per_hour


def machine_changes(
    before: Mapping[str, int], after: Mapping[str, int], catalog: Catalog
) -> tuple[MachineChange, ...]:
    """Which offerings are rented more or less than before?

    Args:
        before: Machines in force by offering.
        after: Machines planned by offering.
        catalog: Prices.

    Returns:
        Sorted by offering; what stays as it is is left out.
    """
    prices = {one.name: one.usd_per_hour for one in catalog.offerings}
    return tuple(
        MachineChange(
            offering=name,
            before=before.get(name, 0),
            after=after.get(name, 0),
            usd_per_hour=prices.get(name),
        )
        for name in sorted({*before, *after})
        if before.get(name, 0) != after.get(name, 0)
    )


class Replanned(msgspec.Struct, frozen=True, kw_only=True):
    """A plan for the demand of now beside the one in force.

    Attributes:
        plan: The new plan.
        changes: What it would change.
        serves: Whether the fleet in force serves the demand of now under all rules; None without
            a fleet in force.
        in_force_usd_per_hour: What the fleet in force costs at today's prices.
        saving_frac: Share of that that the new plan saves; negative where it costs more.
        change: Whether it is worth a change.
        reason: Why, in one sentence.
    """

    plan: FleetPlan
    changes: tuple[MachineChange, ...]
    serves: bool | None
    in_force_usd_per_hour: float
    saving_frac: float
    change: bool
    reason: str


def replanned(
    in_force: Mapping[str, int],
    demand: WorkloadDemand,
    planned_from: tuple[Catalog, Slo, PlanOptions],
    least_saving_frac: float,
) -> Replanned:
    """Shall the fleet in force be changed for the demand of now?

    It is changed where it does not serve that demand, or where `saving > least_saving_frac`:
    without that threshold a fleet would follow every wave of the load, and each change costs
    starts, moved work and cold caches that no plan counts.

    Args:
        in_force: Machines by offering; empty for none.
        demand: What is asked for now.
        planned_from: Catalogue, limits per step, and how to plan.
        least_saving_frac: The share of its cost that a change must save.

    Returns:
        The plan, and whether to follow it.

    Raises:
        PlanError: A model is unknown.
        InfeasiblePlanError: No fleet keeps the rules.
    """
    catalog, slo, options = planned_from
    plan = plan_demand(demand, catalog, slo, options)
    after = plan.fleet()
    changes = machine_changes(in_force, after, catalog)
    prices = {one.name: one.usd_per_hour for one in catalog.offerings}
    cost = math.fsum(count * prices.get(name, 0.0) for name, count in sorted(in_force.items()))
    saving = 0.0 if cost == 0.0 else 1.0 - plan.rent_usd_per_hour / cost
    serves = _serves(in_force, demand, planned_from) if in_force else None
    change, reason = _verdict(bool(changes), serves, saving, least_saving_frac)
    return Replanned(
        plan=plan,
        changes=changes,
        serves=serves,
        in_force_usd_per_hour=cost,
        saving_frac=saving,
        change=change,
        reason=reason,
    )


def _verdict(
    changes: bool, serves: bool | None, saving_frac: float, least_saving_frac: float
) -> tuple[bool, str]:
    if serves is None:
        return True, "no plan is in force"
    if not changes:
        return False, "the plan in force is the cheapest one still"
    if not serves:
        return True, "the fleet in force does not serve the demand of now under all rules"
    if saving_frac > least_saving_frac:
        return True, f"it saves {saving_frac:.1%}, more than {least_saving_frac:.1%}"
    return False, f"it saves {saving_frac:.1%}; a change must save over {least_saving_frac:.1%}"


def _serves(
    in_force: Mapping[str, int],
    demand: WorkloadDemand,
    planned_from: tuple[Catalog, Slo, PlanOptions],
) -> bool:
    """Is there a plan that buys nothing but what is there? Its budget is spent already."""
    catalog, slo, options = planned_from
    there = msgspec.structs.replace(
        catalog, offerings=tuple(one for one in catalog.offerings if one.name in in_force)
    )
    stock = {name: count for name, count in sorted(in_force.items()) if count > 0}
    kept = msgspec.structs.replace(
        options, stock=stock, budget_usd_per_hour=None, with_baselines=False
    )
    try:
        plan_demand(demand, there, slo, kept)
    except InfeasiblePlanError:
        return False
    return True
