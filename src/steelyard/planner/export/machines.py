"""The machines of a plan with what exporters need of each."""

import re
from collections import Counter

import msgspec

from steelyard.config.catalog_table import Catalog
from steelyard.domain.offering import Offering
from steelyard.errors import PlanError
from steelyard.planner.plan import FleetPlan


class PlannedNode(msgspec.Struct, frozen=True, kw_only=True):
    """Equal machines of a plan.

    Attributes:
        name: Lower-case letters, digits and dashes; unique in the plan.
        offering: What is rented.
        machines: How many.
        models: Models that the plan sends there, sorted.
        tools: Whether the plan sends tools there.
    """

    name: str
    offering: Offering
    machines: int
    models: tuple[str, ...]
    tools: bool

    @property
    def spot(self) -> bool:
        """Is it rented at the spot price?"""
        return self.offering.capacity_type == "spot"

    def labels(self) -> dict[str, str]:
        """Labels by which work finds its machines; valid in Kubernetes and as cloud labels."""
        return {
            "steelyard-hardware": self.offering.instance_type.hardware,
            "steelyard-pool": self.name,
        }


def ray_labels(offering: Offering) -> dict[str, str]:
    """Labels of a Ray node, by which pools find it and a fleet is counted."""
    return {
        "provider": offering.provider,
        "region": offering.region,
        "arch": offering.instance_type.arch,
        "capacity_type": offering.capacity_type,
        "instance_type": offering.instance_type.name,
    }


def planned_nodes(plan: FleetPlan, catalog: Catalog) -> tuple[PlannedNode, ...]:
    """Which machines must be rented? Owned ones are there already and are left out.

    Args:
        plan: The plan.
        catalog: The catalogue that it was planned from.

    Returns:
        Sorted by name.

    Raises:
        ConfigError: An offering is not in the catalogue.
        PlanError: Nothing is to be rented.
    """
    classes = {c.name: c for c in plan.classes}
    rented = [one for one in plan.machines if not one.offering.endswith("/owned")]
    names = _names([one.offering for one in rented])
    nodes: list[PlannedNode] = []
    for machines in rented:
        here = [classes[c.name] for c in plan.choices if c.offering == machines.offering]
        nodes.append(
            PlannedNode(
                name=names[machines.offering],
                offering=catalog.offering(machines.offering),
                machines=machines.machines,
                models=tuple(sorted({c.model for c in here if c.kind == "llm"})),
                tools=any(c.kind == "tool" for c in here),
            )
        )
    if not nodes:
        raise PlanError("the plan rents no machine; there is nothing to export")
    return tuple(sorted(nodes, key=lambda node: node.name))


def _names(offerings: list[str]) -> dict[str, str]:
    """A name for the machines of each offering; the region is in it where it tells them apart."""
    seen = Counter(_dashed(offering, with_region=False) for offering in offerings)
    return {
        offering: _dashed(offering, with_region=seen[_dashed(offering, with_region=False)] > 1)
        for offering in offerings
    }


def _dashed(offering: str, *, with_region: bool) -> str:
    """A DNS label: at most 63 lower-case letters, digits and dashes."""
    provider, region, instance_type, capacity_type = offering.split("/")
    parts = [provider, *([region] if with_region else []), instance_type]
    parts += ["spot"] if capacity_type == "spot" else []
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")[:63]
