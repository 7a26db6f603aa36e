"""From a plan's settings to the planner's options."""

from steelyard.config.catalog_table import Catalog
from steelyard.config.plan_catalog import stock_limits
from steelyard.config.plan_settings import PlanSettings
from steelyard.planner.capacity import CapacityRules
from steelyard.planner.demand import Constraints
from steelyard.planner.energy import EnergyPrice
from steelyard.planner.plan import PlanOptions


def plan_options(settings: PlanSettings, catalog: Catalog) -> PlanOptions:
    """How is a plan made under these settings?

    Args:
        settings: The plan's settings.
        catalog: The plan's catalogue.

    Returns:
        The options.

    Raises:
        ConfigError: A name is not in the catalogue.
    """
    demand, rules, allowed = settings.demand, settings.rules, settings.allowed
    return PlanOptions(
        growth_factor=demand.growth_factor,
        quantile=demand.quantile,
        duration_s=demand.duration_s,
        peak_window_s=demand.peak_window_s,
        arrivals=demand.arrivals,
        energy=EnergyPrice(usd_per_kwh=settings.objective.usd_per_kwh, pue=settings.objective.pue),
        capacity=CapacityRules(
            engine=allowed.engine,
            allow_borrowed=allowed.borrowed,
            allow_predicted=allowed.predicted,
            weak_derate_frac=settings.headroom.weak_derate_frac,
            max_utilisation_frac=settings.headroom.max_utilisation_frac,
            staffing_beta=settings.headroom.staffing_beta,
            service_factor=settings.headroom.service_factor,
        ),
        constraints=Constraints(
            provider_share_cap=rules.provider_share_cap,
            survive_provider_loss_frac=rules.survive_provider_loss_frac,
            survive_region_loss_frac=rules.survive_region_loss_frac,
            spot_share_cap=rules.spot_share_cap,
        ),
        providers=allowed.providers,
        regions=allowed.regions,
        archs=allowed.archs,
        stock=stock_limits(settings, catalog),
        budget_usd_per_hour=rules.budget_usd_per_hour,
    )
