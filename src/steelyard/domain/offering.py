"""What can be rented: instance types, offerings of them, and vendors' token prices."""

from typing import Literal

import msgspec

Arch = Literal["arm64", "x86_64"]
Hardware = Literal["gpu", "arm", "x86"]
CapacityType = Literal["on_demand", "spot", "reserved"]


class InstanceType(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of machine, whoever sells it for whatever price.

    Attributes:
        name: The provider's name for it, e.g. `m9g.xlarge`.
        provider: Who sells it, e.g. `aws`.
        arch: Instruction set of its CPU.
        vcpus: Logical CPUs.
        memory_bytes: Main memory.
        accelerator: Name of its GPU, empty without one.
        accelerator_count: Number of GPUs.
    """

    name: str
    provider: str
    arch: Arch
    vcpus: int
    memory_bytes: int
    accelerator: str = ""
    accelerator_count: int = 0

    @property
    def hardware(self) -> Hardware:
        """`gpu`, `arm` or `x86`: the class of hardware in which results are compared."""
        if self.accelerator_count > 0:
            return "gpu"
        return "arm" if self.arch == "arm64" else "x86"


class Offering(msgspec.Struct, frozen=True, kw_only=True):
    """An instance type in a region, at a price.

    Attributes:
        name: Unique id, `provider/region/instance_type/capacity_type`.
        instance_type: The hardware.
        region: The provider's name of the region.
        capacity_type: How it is rented.
        usd_per_hour: Price for one machine.
        price_date: Day of the price, ISO 8601.
        price_source: Where the price was read.
    """

    name: str
    instance_type: InstanceType
    region: str
    capacity_type: CapacityType
    usd_per_hour: float
    price_date: str
    price_source: str

    @property
    def provider(self) -> str:
        """Who sells it."""
        return self.instance_type.provider


class TokenPrice(msgspec.Struct, frozen=True, kw_only=True):
    """What a vendor charges per token, whatever hardware runs it.

    Attributes:
        usd_per_input_token: For prompt tokens that were not cached.
        usd_per_cached_token: For prompt tokens read from the vendor's cache.
        usd_per_output_token: For generated tokens.
    """

    usd_per_input_token: float
    usd_per_cached_token: float
    usd_per_output_token: float
