"""What does a machine draw, and what is that worth? The energy part of a plan's cost.

A machine is priced at `watts * pue / 1000 * usd_per_kwh` per hour, with the watts of the machine
with all cores busy whether the plan fills it or not: an upper bound, and the same for all. The
catalogue's watts are estimates. Where it has none, the median of its machines of the same class is
assumed, per GPU or per vCPU, and the plan marks it.
"""

import statistics

import msgspec

from steelyard.config.catalog_table import Catalog, hardware_key
from steelyard.domain.offering import InstanceType, Offering


class EnergyPrice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A price on energy, beside the rent.

    Attributes:
        usd_per_kwh: Price of a kilowatt-hour; 0 leaves the rent alone.
        pue: Energy of the whole data centre over that of its machines, at least 1. An assumption:
            large clouds state 1.1 to 1.2 for theirs.
    """

    usd_per_kwh: float = 0.0
    pue: float = 1.2

    def usd_per_hour(self, watts: float) -> float:
        """What does an hour at these watts cost?

        >>> EnergyPrice(usd_per_kwh=0.1, pue=1.2).usd_per_hour(500.0)
        0.06
        """
        return watts * self.pue / 1000.0 * self.usd_per_kwh


class MachineWatts(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine is taken to draw.

    Attributes:
        watts: With all cores busy.
        assumed: Whether no source gives it.
        source: Where it was read, or how it was assumed.
    """

    watts: float
    assumed: bool
    source: str


def machine_watts(catalog: Catalog) -> tuple[MachineWatts, ...]:
    """What does a machine of each offering draw?

    Args:
        catalog: Offerings with facts.

    Returns:
        [offering], in the catalogue's order.
    """
    known: dict[str, list[float]] = {"gpu": [], "arm": [], "x86": []}
    for offering in catalog.offerings:
        watts = _stated(catalog, offering)
        if watts is not None:
            machine = offering.instance_type
            known[machine.hardware].append(watts / _size(machine))
    # A catalogue without any watts prices no energy.
    per_size = {name: statistics.median(some or [0.0]) for name, some in known.items()}
    return tuple(_watts(catalog, offering, per_size) for offering in catalog.offerings)


def _watts(catalog: Catalog, offering: Offering, per_size: dict[str, float]) -> MachineWatts:
    machine = offering.instance_type
    watts = _stated(catalog, offering)
    if watts is not None:
        source = catalog.facts[hardware_key(offering)].watts_source
        return MachineWatts(watts=watts, assumed=False, source=source)
    unit = "GPU" if machine.hardware == "gpu" else "vCPU"
    each = per_size[machine.hardware]
    return MachineWatts(
        watts=each * _size(machine),
        assumed=True,
        source=f"assumed: {each:.3g} W per {unit}, the catalogue's median of {machine.hardware}",
    )


def _stated(catalog: Catalog, offering: Offering) -> float | None:
    facts = catalog.facts.get(hardware_key(offering))
    return None if facts is None else facts.watts_max


def _size(machine: InstanceType) -> int:
    return machine.accelerator_count if machine.hardware == "gpu" else machine.vcpus
