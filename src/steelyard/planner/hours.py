"""How many hours of which hardware does a fleet use, and how many GPU-hours does the mix free?"""

import msgspec

from steelyard.config.catalog_table import Catalog
from steelyard.planner.baselines import Baseline


class FleetHours(msgspec.Struct, frozen=True, kw_only=True):
    """What a fleet holds during an hour.

    Attributes:
        fleet: `plan`, or the baseline's name.
        machine_hours: Machine-hours per hour by class of hardware.
        gpu_hours: GPU-hours per hour by accelerator.
        gpu_hours_freed: GPU-hours per hour that all GPU would use beyond this fleet; None where
            GPUs alone cannot serve the demand.
    """

    fleet: str
    machine_hours: dict[str, float]
    gpu_hours: dict[str, float]
    gpu_hours_freed: float | None


def fleet_hours(
    fleet: dict[str, int], baselines: tuple[Baseline, ...], catalog: Catalog
) -> tuple[FleetHours, ...]:
    """What hours does the plan use, and what would each simpler fleet use?

    Args:
        fleet: Machines per offering of the plan.
        baselines: The simpler fleets; those that do not exist are left out.
        catalog: The catalogue.

    Returns:
        The plan first, then the baselines in order.
    """
    fleets = {"plan": fleet} | {b.name: b.fleet for b in baselines if b.usd_per_hour is not None}
    every_gpu = fleets.get("all-gpu")
    all_gpus = None if every_gpu is None else sum(_gpu_hours(every_gpu, catalog).values())
    found: list[FleetHours] = []
    for name, machines in fleets.items():
        gpus = _gpu_hours(machines, catalog)
        freed = None if all_gpus is None else all_gpus - sum(gpus.values())
        found.append(
            FleetHours(
                fleet=name,
                machine_hours=_machine_hours(machines, catalog),
                gpu_hours=gpus,
                gpu_hours_freed=freed,
            )
        )
    return tuple(found)


def _machine_hours(fleet: dict[str, int], catalog: Catalog) -> dict[str, float]:
    hours: dict[str, float] = {}
    for name, count in sorted(fleet.items()):
        hardware = catalog.offering(name).instance_type.hardware
        hours[hardware] = hours.get(hardware, 0.0) + float(count)
    return dict(sorted(hours.items()))


def _gpu_hours(fleet: dict[str, int], catalog: Catalog) -> dict[str, float]:
    hours: dict[str, float] = {}
    for name, count in sorted(fleet.items()):
        machine = catalog.offering(name).instance_type
        if machine.accelerator_count:
            gpus = float(count * machine.accelerator_count)
            hours[machine.accelerator] = hours.get(machine.accelerator, 0.0) + gpus
    return dict(sorted(hours.items()))
