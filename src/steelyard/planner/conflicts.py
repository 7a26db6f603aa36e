"""Why is there no fleet? Messages that name the rules in conflict and the cure."""

import msgspec

from steelyard.planner.demand import Demand
from steelyard.planner.master import Master


def no_whole_fleet(demand: Demand) -> str:
    """What to say when parts of machines would do and whole ones do not."""
    return (
        f"no whole number of machines keeps all constraints ({_rules(demand)}); loosen one, or"
        " add offers of other sizes"
    )


def _rules(demand: Demand) -> str:
    names: list[str] = []
    if demand.constraints.provider_share_cap is not None:
        names.append(f"provider_share_cap {demand.constraints.provider_share_cap}")
    if demand.constraints.survive_provider_loss_frac:
        names.append(f"survive_provider_loss_frac {demand.constraints.survive_provider_loss_frac}")
    if demand.constraints.survive_region_loss_frac:
        names.append(f"survive_region_loss_frac {demand.constraints.survive_region_loss_frac}")
    if demand.constraints.spot_share_cap is not None and any(o.spot for o in demand.offers):
        names.append(f"spot_share_cap {demand.constraints.spot_share_cap}")
    if any(o.stock is not None for o in demand.offers):
        names.append("stock")
    return " with ".join(names) or "capacity alone"


def why_infeasible(demand: Demand) -> str:
    """Which single rule, when dropped, would let the demand be served even by parts of machines?"""
    rules = demand.constraints
    free = tuple(msgspec.structs.replace(o, stock=None) for o in demand.offers)
    tries = {
        "stock": msgspec.structs.replace(demand, offers=free),
        "provider_share_cap": msgspec.structs.replace(
            demand, constraints=msgspec.structs.replace(rules, provider_share_cap=None)
        ),
        "survive_provider_loss_frac": msgspec.structs.replace(
            demand, constraints=msgspec.structs.replace(rules, survive_provider_loss_frac=None)
        ),
        "survive_region_loss_frac": msgspec.structs.replace(
            demand, constraints=msgspec.structs.replace(rules, survive_region_loss_frac=None)
        ),
        "spot_share_cap": msgspec.structs.replace(
            demand, constraints=msgspec.structs.replace(rules, spot_share_cap=None)
        ),
    }
    guilty = [name for name, relaxed in tries.items() if Master(relaxed).solve()]
    cure = f"loosening any of {', '.join(guilty)} would help" if guilty else "loosen several"
    return f"the constraints are in conflict: {_rules(demand)}; {cure}"
