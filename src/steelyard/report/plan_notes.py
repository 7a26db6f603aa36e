"""What must be known to trust a plan, beside its tables."""

from steelyard.planner.plan import FleetPlan


def plan_notes(plan: FleetPlan) -> list[str]:
    """What must be known to trust a plan? One line each.

    Args:
        plan: The plan.

    Returns:
        How its rates came about, rules that bind, the price on energy, and figures that are weak
        or not its own.
    """
    notes: list[str] = []
    if plan.peak_window_s is not None:
        notes.append(
            f"rates: {plan.peak_factor:.2f} times the mean, the {plan.options.quantile:g} quantile"
            f" of windows of {plan.peak_window_s:g} s, times growth {plan.options.growth_factor:g}"
        )
    elif not plan.workload.startswith("declared"):
        notes.append(
            f"rates: the mean, times growth {plan.options.growth_factor:g}; no peak was asked for,"
            " or too little was recorded to tell one"
        )
    notes.extend(
        f"binding: {one.rule}; without it parts of machines would cost {one.usd_per_hour:.4g}"
        " USD/h less"
        for one in plan.binding
    )
    if plan.options.energy.usd_per_kwh > 0.0:
        notes.append(
            f"energy: {plan.watts:.4g} W with all cores busy, PUE {plan.options.energy.pue:g},"
            f" {plan.energy_usd_per_hour:.4g} of the {plan.usd_per_hour:.6g} USD/h"
        )
        notes.extend(
            f"watts of {m.offering}: {m.watts_source}"
            for m in plan.machines
            if m.watts_source.startswith("assumed")
        )
    notes.extend(
        f"{choice.origin} figures: {choice.name} on {choice.offering}"
        for choice in plan.choices
        if choice.origin in ("predicted", "borrowed", "weak")
    )
    return notes
