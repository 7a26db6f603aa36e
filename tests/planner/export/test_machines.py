import msgspec
import pytest

from steelyard.config.catalog_table import Catalog, load_catalog
from steelyard.config.price_refresh import PriceRow
from steelyard.config.refreshed_catalog import with_prices
from steelyard.domain.slo import Slo
from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask
from steelyard.planner.export.machines import planned_nodes
from steelyard.planner.export.targets import export_nodes
from steelyard.planner.plan import FleetPlan, PlanOptions, plan_fleet


@pytest.fixture(scope="module")
def plan() -> FleetPlan:
    step = WorkloadStep(step_id=0, parents=(), kind="tool", name="parse", cpu_s=0.5)
    tasks = tuple(
        WorkloadTask(task_id=f"t{n}", agent="a", arrival_s=2.0 * n, steps=(step,))
        for n in range(10)
    )
    work = Workload(name="w", tasks=tasks, source="test")
    return plan_fleet(work, load_catalog(), Slo(), PlanOptions(with_baselines=False))


def in_two_regions(plan: FleetPlan) -> tuple[FleetPlan, Catalog]:
    """The plan's first machines, and as many of the same type in another region."""
    here = plan.machines[0]
    provider, _, instance_type, capacity_type = here.offering.split("/")
    row = PriceRow(
        provider=provider,
        instance_type=instance_type,
        region="elsewhere-1",
        capacity_type="spot" if capacity_type == "spot" else "on_demand",
        usd_per_hour=here.usd_per_hour,
        price_date="2026-11-23",
        price_source="test",
    )
    there = msgspec.structs.replace(here, offering=row.name, region=row.region)
    catalog = with_prices(load_catalog(), (row,), with_spot=True)
    return msgspec.structs.replace(plan, machines=(here, there)), catalog


def test_machines_of_one_region_are_named_by_their_type_alone(plan: FleetPlan) -> None:
    names = [node.name for node in planned_nodes(plan, load_catalog())]
    assert len(set(names)) == len(plan.machines)
    assert not any(machines.region in name for machines in plan.machines for name in names)


def test_the_same_type_in_two_regions_is_rented_in_both(plan: FleetPlan) -> None:
    both, catalog = in_two_regions(plan)
    nodes = planned_nodes(both, catalog)
    assert len({node.name for node in nodes}) == 2
    assert any("elsewhere-1" in node.name for node in nodes)
    assert len(export_nodes("skypilot", nodes)) == 2
