"""Where does each class of hardware win? Cost of LLM steps on the catalogue's best offerings.

Run: python scripts/compare_hardware.py
Cost of 1,000 steps of 256 uncached prompt tokens and 128 output tokens on a full machine inside
the SLO (gap between tokens at most 100 ms, prefill of a lone prompt at most 1 s), list prices.
"""

from collections.abc import Callable

import msgspec
from rich.console import Console

from steelyard.config.catalog_table import Catalog, load_catalog
from steelyard.domain.offering import Offering
from steelyard.domain.slo import Slo
from steelyard.domain.units import rental_usd
from steelyard.perf.cost import llm_replica_s
from steelyard.perf.predict import prefill_s, prefill_share_s, usable_concurrency
from steelyard.report.format import usd
from steelyard.report.grid import Grid, columns
from steelyard.report.tables import print_grid

_PROMPT_TOKENS, _OUTPUT_TOKENS = 256, 128
_HARDWARE = ("arm", "x86", "gpu")

Cost = Callable[[Offering], float | None]


def usd_per_1000_steps(catalog: Catalog, offering: Offering, model: str, slo: Slo) -> float | None:
    """What do 1,000 steps cost on a full machine? None where it has no curve or misses the SLO."""
    curve = catalog.llm_curve(offering, model)
    if curve is None:
        return None
    ttft_s = prefill_s(curve.ttft_floor_s, curve.prefill_s_per_token, float(_PROMPT_TOKENS))
    tokens = float(_PROMPT_TOKENS), float(_OUTPUT_TOKENS)
    share_s = prefill_share_s(curve.prefill_s_per_token, *tokens)
    streams = usable_concurrency(curve, slo, share_s)
    if streams == 0 or ttft_s > slo.ttft_s:
        return None
    full = msgspec.structs.replace(curve, concurrency_cap=streams)
    used_s = llm_replica_s(full, float(_PROMPT_TOKENS), float(_OUTPUT_TOKENS))
    return rental_usd(offering.usd_per_hour, used_s) * 1000.0


def best_offerings(catalog: Catalog, cost: Cost) -> tuple[str, ...]:
    """Which offering of each class is cheapest, by a cost that is None where it cannot serve?"""
    best: dict[str, tuple[float, str]] = {}
    for offering in catalog.offerings:
        cost_usd = cost(offering)
        if cost_usd is not None:
            hardware = offering.instance_type.hardware
            found = (cost_usd, "/".join((offering.provider, offering.instance_type.name)))
            best[hardware] = min(best.get(hardware, found), found)
    return tuple(
        f"{usd(best[one][0])} {best[one][1]}" if one in best else "none inside the SLO"
        for one in _HARDWARE
    )


def tool_usd(catalog: Catalog, offering: Offering) -> float | None:
    """What does an hour of a loaded reference core cost? None without a measured CPU."""
    curve = catalog.tool_curve(offering)
    if curve is None:
        return None
    return offering.usd_per_hour / (curve.relative_speed * curve.cores)


def main() -> None:
    """Print one row per model: on a full machine, and for a trickle of requests; then tools."""
    catalog, slo = load_catalog(), Slo()
    full: list[tuple[str, ...]] = []
    idle: list[tuple[str, ...]] = []
    for model in catalog.models():

        def cost(offering: Offering, model: str = model) -> float | None:
            return usd_per_1000_steps(catalog, offering, model, slo)

        def rent(offering: Offering, model: str = model) -> float | None:
            served = usd_per_1000_steps(catalog, offering, model, slo)
            return None if served is None else offering.usd_per_hour

        full.append((model, *best_offerings(catalog, cost)))
        idle.append((model, *best_offerings(catalog, rent)))
    tools = (("loaded core", *best_offerings(catalog, lambda one: tool_usd(catalog, one))),)
    shape = f"{_PROMPT_TOKENS} uncached prompt tokens, {_OUTPUT_TOKENS} output tokens"
    for title, first, rows in (
        (f"USD per 1,000 LLM steps on a full machine ({shape})", "model", tuple(full)),
        ("USD per hour of the cheapest machine that serves at all", "model", tuple(idle)),
        ("USD per hour of one reference core of tool work (ADR 0004)", "work", tools),
    ):
        grid = Grid(
            title=title, origin="predicted", columns=columns((first, *_HARDWARE), ()), rows=rows
        )
        print_grid(grid, Console())


if __name__ == "__main__":
    main()
