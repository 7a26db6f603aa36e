"""What was found out about a plan beside its proof: simulated attainment, sensitivity."""

import msgspec


class MarginCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A fleet run on a virtual clock against the limits that it was planned for.

    Attributes:
        planned_service_factor: Service times of the plan over the figures.
        extra_headroom: Factor on the plan's headroom.
        usd_per_hour: Cost of the fleet.
        service_factor: Service times of the simulation over the figures.
        tasks: Tasks that count: those that arrive once the fleet is loaded.
        tasks_met_frac: Share of them that succeeded inside deadline and budget.
        steps_met_frac: Share of LLM steps inside their limits of time to first token and time per
            output token, of the step name that does worst; 1 without LLM steps.
        worst_step: Agent and name of that step; empty without LLM steps.
        met: Whether both shares reach the target.
    """

    planned_service_factor: float
    extra_headroom: float
    usd_per_hour: float
    service_factor: float
    tasks: int
    tasks_met_frac: float
    steps_met_frac: float
    worst_step: str
    met: bool


class SensitivityCase(msgspec.Struct, frozen=True, kw_only=True):
    """A plan made anew with one thing changed.

    Attributes:
        change: What was changed, in words.
        usd_per_hour: What the new plan costs; None if there is none.
        usd_per_1000_tasks: The same per 1,000 tasks.
        fleet: Machines per offering of the new plan.
        same_mix: Whether the same offerings are bought, in whatever number.
        infeasible: Why there is no plan; empty otherwise.
    """

    change: str
    usd_per_hour: float | None
    usd_per_1000_tasks: float | None
    fleet: dict[str, int]
    same_mix: bool
    infeasible: str = ""


class PriceRange(msgspec.Struct, frozen=True, kw_only=True):
    """How far may the price of a bought offering move before another fleet is cheaper?

    Attributes:
        offering: Whose price.
        machines: How many the plan buys.
        keeps_down_frac: The fleet is still cheapest when the price falls by this share.
        leaves_down_frac: Another one is cheaper when it falls by this; None: not even at the most
            that was tried.
        keeps_up_frac: The same for a price that rises.
        leaves_up_frac: The same for a price that rises.
        instead: Machines per offering of the fleet that is cheaper after the rise; empty if none.
    """

    offering: str
    machines: int
    keeps_down_frac: float
    leaves_down_frac: float | None
    keeps_up_frac: float
    leaves_up_frac: float | None
    instead: dict[str, int]


class Sensitivity(msgspec.Struct, frozen=True, kw_only=True):
    """What would change the answer, and what would not.

    Attributes:
        prices: Per bought offering, sorted by name.
        cases: Other loads and other cached shares.
    """

    prices: tuple[PriceRange, ...]
    cases: tuple[SensitivityCase, ...]
