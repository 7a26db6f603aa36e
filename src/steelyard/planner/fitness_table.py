"""The whole table of step classes against offerings, and the plain demand made from it."""

import math

import msgspec

from steelyard.config.catalog_table import Catalog
from steelyard.domain.offering import Offering
from steelyard.domain.slo import Slo
from steelyard.domain.units import SECONDS_PER_HOUR
from steelyard.planner.capacity import (
    CapacityRules,
    Fitness,
    llm_fitness,
    mix_share_s,
    planned_curve,
    planned_fit,
    tool_fitness,
)
from steelyard.planner.demand import Bucket, Constraints, Demand, Offer
from steelyard.planner.workload_demand import StepClass, WorkloadDemand

# Part of a machine that a step class takes at the least, far above the solver's tolerance for
# whole numbers: within that, less would be served by no machine at all.
LEAST_LOAD = 1e-3


class FitnessTable(msgspec.Struct, frozen=True, kw_only=True):
    """How every offering does with every step class.

    Attributes:
        classes: The step classes.
        offerings: The offerings.
        cells: [offering][class].
        headroom: Factor on the load of each class, [class]; see `CapacityRules`.
        stock: Offering's name to the largest number that can be had; others have no limit.
        energy_usd_per_hour: What the energy of one machine is priced at, [offering]; see
            `planner.energy`. Costs are rent plus this.
    """

    classes: tuple[StepClass, ...]
    offerings: tuple[Offering, ...]
    cells: tuple[tuple[Fitness, ...], ...]
    headroom: tuple[float, ...]
    stock: dict[str, int] = {}
    energy_usd_per_hour: tuple[float, ...] = ()

    def usd_per_hour(self, offering: int) -> float:
        """What does an hour of one machine cost, the price on its energy included?"""
        energy = self.energy_usd_per_hour[offering] if self.energy_usd_per_hour else 0.0
        return self.offerings[offering].usd_per_hour + energy

    def usd_per_step(self, offering: int, step: int) -> float:
        """What does a step cost on a full machine, headroom included? Infinite if it cannot."""
        machine_s = self.cells[offering][step].machine_s
        if machine_s is None:
            return math.inf
        return self.usd_per_hour(offering) * machine_s * self.headroom[step] / SECONDS_PER_HOUR

    def useful(self, offering: int) -> bool:
        """Can this offering run any of the step classes?"""
        return any(cell.machine_s is not None for cell in self.cells[offering])

    def plain(self, chosen: list[int], constraints: Constraints) -> Demand:
        """The planning problem over some of the offerings.

        Args:
            chosen: Indices of offerings.
            constraints: Rules beside capacity.
        """
        return Demand(
            offers=tuple(
                Offer(
                    name=self.offerings[o].name,
                    provider=self.offerings[o].provider,
                    usd_per_hour=self.usd_per_hour(o),
                    stock=self.stock.get(self.offerings[o].name),
                    region=self.offerings[o].region,
                    spot=self.offerings[o].capacity_type == "spot",
                )
                for o in chosen
            ),
            buckets=tuple(Bucket(name=c.name, rate_per_s=c.rate_per_s) for c in self.classes),
            capacity_per_s=tuple(
                tuple(self._capacity_per_s(o, b) for b in range(len(self.classes))) for o in chosen
            ),
            constraints=constraints,
        )

    def _capacity_per_s(self, offering: int, step: int) -> float | None:
        """Steps per second of one machine that does nothing else; None where it cannot."""
        machine_s = self.cells[offering][step].machine_s
        if machine_s is None:
            return None
        rate_per_s = self.classes[step].rate_per_s
        # A step that uses nothing still needs a machine that could run it.
        least_s = LEAST_LOAD / rate_per_s if rate_per_s > 0.0 else LEAST_LOAD
        return 1.0 / max(least_s, machine_s * self.headroom[step])


def fitness_table(
    demand: WorkloadDemand, catalog: Catalog, slo: Slo, rules: CapacityRules
) -> FitnessTable:
    """How does every offering of the catalogue do with every step class?

    Args:
        demand: What must be served.
        catalog: Offerings with their curves.
        slo: Limits per LLM step.
        rules: What may be used, and how much is kept free.

    Returns:
        The table; offerings that can run nothing are in it for their obstacles.
    """
    models = sorted({c.model for c in demand.classes if c.kind == "llm"})
    offerings: list[Offering] = []
    cells: list[tuple[Fitness, ...]] = []
    for offering in catalog.offerings:
        fits = {m: planned_fit(catalog, offering, demand, m, rules) for m in models}
        tool = catalog.tool_curve(offering)
        curves = {
            m: (
                planned_curve(fit, demand.classes, slo, rules),
                mix_share_s(fit, demand.classes, slo, rules),
            )
            for m, fit in fits.items()
            if fit is not None
        }
        row = tuple(
            llm_fitness(c, fits[c.model], curves.get(c.model, (None, 0.0)), slo, rules)
            if c.kind == "llm"
            else tool_fitness(c, tool, slo, rules)
            for c in demand.classes
        )
        offerings.append(offering)
        cells.append(row)
    return FitnessTable(
        classes=demand.classes,
        offerings=tuple(offerings),
        cells=tuple(cells),
        headroom=_headroom(demand, tuple(cells), rules),
    )


def _headroom(
    demand: WorkloadDemand, cells: tuple[tuple[Fitness, ...], ...], rules: CapacityRules
) -> tuple[float, ...]:
    """The larger of 1 / max_utilisation and 1 + beta / sqrt(R), times the extra headroom.

    R is the number of places in use at once.
    It is taken per kind of step with each class on the offering where it is fastest, since the
    steps of a kind share machines; a small R asks for much headroom. Thin: it looks at means.
    """
    in_use = {"llm": 0.0, "tool": 0.0}
    for b, step in enumerate(demand.classes):
        times = [s for row in cells if (s := row[b].latency_s) is not None]
        in_use[step.kind] += step.rate_per_s * min(times, default=0.0)
    by_use = {
        kind: 1.0 + rules.staffing_beta / math.sqrt(r) if r > 0.0 else 1.0
        for kind, r in in_use.items()
    }
    return tuple(
        rules.extra_headroom * max(1.0 / rules.max_utilisation_frac, by_use[c.kind])
        for c in demand.classes
    )
