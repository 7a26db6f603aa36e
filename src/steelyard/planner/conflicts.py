"""Which rules stand in the way? Why there is no fleet, and what each rule costs where there is."""

import msgspec

from steelyard.planner.demand import Demand
from steelyard.planner.master import Master


class BindingRule(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that makes the fleet dearer.

    Attributes:
        rule: Its name and value.
        usd_per_hour: How much less parts of machines would cost without it.
    """

    rule: str
    usd_per_hour: float


def no_whole_fleet(demand: Demand) -> str:
    """What to say when parts of machines would do and whole ones do not."""
    return (
        f"no whole number of machines keeps all constraints ({_names(demand)}); loosen one, or"
        " add offers of other sizes"
    )


def why_infeasible(demand: Demand) -> str:
    """Which single rule, when dropped, would let the demand be served even by parts of machines?"""
    guilty = [
        name.partition(" ")[0]
        for name, relaxed in _without_each(demand).items()
        if Master(relaxed).solve()
    ]
    cure = f"loosening any of {', '.join(guilty)} would help" if guilty else "loosen several"
    return f"the constraints are in conflict: {_names(demand)}; {cure}"


def binding_rules(demand: Demand) -> tuple[BindingRule, ...]:
    """Which rules make the fleet dearer, and by how much?

    Each rule is dropped by itself, and the linear program is solved anew: its cost falls by what
    the rule costs when parts of machines can be bought. Rules that change nothing are left out.

    Args:
        demand: A checked problem that has a solution.

    Returns:
        In the order of cap, losses, spot and stock.
    """
    full = Master(demand)
    full.solve()
    found: list[BindingRule] = []
    for name, relaxed in _without_each(demand).items():
        free = Master(relaxed)
        free.solve()
        saved = full.objective_usd_per_hour - free.objective_usd_per_hour
        if saved > 1e-6 * full.objective_usd_per_hour:
            found.append(BindingRule(rule=name, usd_per_hour=saved))
    return tuple(found)


def _without_each(demand: Demand) -> dict[str, Demand]:
    """The problem without each of its rules; by name and value of the rule."""
    rules = demand.constraints
    found: dict[str, Demand] = {}
    for field in msgspec.structs.fields(rules):
        value: float | None = getattr(rules, field.name)
        # A loss of which nothing need be left, and spot where there is none, are no rules.
        idle = not value if field.name.startswith("survive") else value is None
        if idle or (field.name == "spot_share_cap" and not any(o.spot for o in demand.offers)):
            continue
        without = msgspec.structs.replace(rules, **{field.name: None})
        found[f"{field.name} {value}"] = msgspec.structs.replace(demand, constraints=without)
    if any(o.stock is not None for o in demand.offers):
        free = tuple(msgspec.structs.replace(o, stock=None) for o in demand.offers)
        found["stock"] = msgspec.structs.replace(demand, offers=free)
    return found


def _names(demand: Demand) -> str:
    return " with ".join(_without_each(demand)) or "capacity alone"
