import msgspec
from tests.planner.test_load_curve import DEMAND

from steelyard.config.catalog_table import Catalog, load_catalog
from steelyard.domain.slo import Slo
from steelyard.planner.energy import EnergyPrice, machine_watts
from steelyard.planner.plan import PlanOptions, plan_demand

CATALOG = load_catalog()


def test_machines_without_watts_get_the_median_of_their_class_and_say_so() -> None:
    watts = machine_watts(CATALOG)
    assert {one.assumed for one in watts} == {True, False}
    for offering, one in zip(CATALOG.offerings, watts, strict=True):
        assert one.watts > 0.0
        assert one.source.startswith("assumed: ") == one.assumed, offering.name


def twins() -> Catalog:
    """The same machine twice: cheap and hungry, and 1 % dearer with a tenth of the watts."""
    like = CATALOG.offering("aws/m9g.xlarge")
    machine = msgspec.structs.replace(like.instance_type, name="m9g.thrifty")
    thrifty = msgspec.structs.replace(
        like,
        name="aws/us-east-1/m9g.thrifty/on_demand",
        instance_type=machine,
        usd_per_hour=1.01 * like.usd_per_hour,
    )
    old, new = ("aws", "m9g.xlarge"), ("aws", "m9g.thrifty")
    hungry = msgspec.structs.replace(CATALOG.facts[old], watts_max=200.0, watts_source="test")
    frugal = msgspec.structs.replace(hungry, watts_max=20.0)
    return msgspec.structs.replace(
        CATALOG,
        offerings=(thrifty, like),
        llm_fits={old: CATALOG.llm_fits[old], new: CATALOG.llm_fits[old]},
        tool_fits={},
        facts={old: hungry, new: frugal},
    )


def test_a_price_on_energy_buys_the_thriftier_machine() -> None:
    catalog = twins()
    bought: list[set[str]] = []
    for usd_per_kwh in (0.0, 0.2):
        options = PlanOptions(energy=EnergyPrice(usd_per_kwh=usd_per_kwh), with_baselines=False)
        plan = plan_demand(DEMAND, catalog, Slo(), options)
        bought.append({m.offering.split("/")[2] for m in plan.machines})
    assert bought == [{"m9g.xlarge"}, {"m9g.thrifty"}]
