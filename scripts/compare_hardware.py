"""Where does each class of hardware win? Cost of LLM steps on the catalogue's best offerings.

Run: python scripts/compare_hardware.py
Cost of 1,000 steps of 256 uncached prompt tokens and 128 output tokens on a full machine inside
the SLO (gap between tokens at most 100 ms, prefill of a lone prompt at most 1 s), list prices.
"""

import msgspec
from rich.console import Console

from steelyard.config.catalog_table import Catalog, load_catalog
from steelyard.domain.offering import Offering
from steelyard.domain.slo import Slo
from steelyard.domain.units import rental_usd
from steelyard.perf.cost import llm_replica_s
from steelyard.perf.predict import prefill_s, usable_concurrency
from steelyard.report.format import usd
from steelyard.report.grid import Grid, columns
from steelyard.report.tables import print_grid

_PROMPT_TOKENS, _OUTPUT_TOKENS = 256, 128
_HARDWARE = ("arm", "x86", "gpu")


def usd_per_1000_steps(catalog: Catalog, offering: Offering, model: str, slo: Slo) -> float | None:
    """What do 1,000 steps cost on a full machine? None where it has no curve or misses the SLO."""
    curve = catalog.llm_curve(offering, model)
    if curve is None:
        return None
    ttft_s = prefill_s(curve.ttft_floor_s, curve.prefill_s_per_token, float(_PROMPT_TOKENS))
    streams = usable_concurrency(curve, slo)
    if streams == 0 or ttft_s > slo.ttft_s:
        return None
    full = msgspec.structs.replace(curve, concurrency_cap=streams)
    used_s = llm_replica_s(full, float(_PROMPT_TOKENS), float(_OUTPUT_TOKENS))
    return rental_usd(offering.usd_per_hour, used_s) * 1000.0


def main() -> None:
    """Print one row per model."""
    catalog, slo = load_catalog(), Slo()
    rows: list[tuple[str, ...]] = []
    for model in catalog.models():
        best: dict[str, tuple[float, str]] = {}
        for offering in catalog.offerings:
            cost_usd = usd_per_1000_steps(catalog, offering, model, slo)
            if cost_usd is not None:
                hardware = offering.instance_type.hardware
                found = (cost_usd, "/".join((offering.provider, offering.instance_type.name)))
                best[hardware] = min(best.get(hardware, found), found)
        cells = [
            f"{usd(best[one][0])} {best[one][1]}" if one in best else "misses the SLO"
            for one in _HARDWARE
        ]
        rows.append((model, *cells))
    grid = Grid(
        title="USD per 1,000 LLM steps on a full machine, from the catalogue's curves",
        origin="predicted",
        columns=columns(("model", *_HARDWARE), ()),
        rows=tuple(rows),
        note="256 uncached prompt tokens, 128 output tokens; see src/steelyard/config/catalog.",
    )
    print_grid(grid, Console())


if __name__ == "__main__":
    main()
