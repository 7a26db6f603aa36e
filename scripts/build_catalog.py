"""Writes the packaged catalogue from published hardware figures.

Run as `python scripts/build_catalog.py --data DIR`, where DIR holds instances.csv,
vllm_serving.csv.gz and cpu_work.csv.gz (see src/steelyard/config/catalog/README.md).
"""

import argparse
import csv
from pathlib import Path
from typing import Any

import catalog_llm
import catalog_tools
import polars as pl

TARGET = Path(__file__).parent.parent / "src" / "steelyard" / "config" / "catalog"
PROVIDERS = ("aws", "azure", "gcp")
BYTES_PER_GIB = 1024**3
OFFERING_COLUMNS = [
    "provider",
    "instance_type",
    "region",
    "capacity_type",
    "usd_per_hour",
    "price_date",
    "price_source",
    "arch",
    "microarch",
    "vcpus",
    "threads_per_core",
    "memory_bytes",
    "accelerator",
    "accelerator_count",
    "watts_idle",
    "watts_max",
    "watts_source",
]
CURVE_COLUMNS = [
    "provider",
    "instance_type",
    "model",
    "engine",
    "prompt_tokens",
    "output_tokens",
    "itl_base_s",
    "itl_slope_s",
    "concurrency_cap",
    "ttft_floor_s",
    "prefill_s_per_token",
    "prefill_points",
    "points",
    "loo_error_frac",
    "quality",
    "measured_on",
    "date",
    "measured_context_tokens",
    "context_tokens",
]
SPOT_COLUMNS = ["provider", "instance_type", "usd_per_hour", "price_date", "price_source"]
TOOL_COLUMNS = [
    "provider",
    "instance_type",
    "relative_speed",
    "single_thread_speed",
    "memory_read_bytes_per_s",
    "cores",
    "memory_bytes",
    "n_proxies",
    "quality",
    "date_first",
    "date_last",
]

Row = dict[str, Any]


def read_specs(data: Path) -> list[Row]:
    """All rows of instances.csv."""
    return pl.read_csv(data / "instances.csv", infer_schema_length=None).to_dicts()


def priced_offerings(specs: list[Row]) -> list[Row]:
    """Types of the three clouds with a list price and known size; shared-core types are out."""
    offerings: list[Row] = []
    for spec in specs:
        known = spec["arch"] and spec["vcpus"] and spec["memory_gib"] and spec["price_usd_hour"]
        if spec["provider"] not in PROVIDERS or spec["shared_cpu"] or not known:
            continue
        offerings.append(
            {
                "provider": spec["provider"],
                "instance_type": spec["instance_type"],
                "region": spec["price_region"],
                "capacity_type": "on_demand",
                "usd_per_hour": spec["price_usd_hour"],
                "price_date": spec["price_date"],
                "price_source": spec["price_source"],
                "arch": spec["arch"],
                "microarch": spec["microarch"] or "",
                "vcpus": int(spec["vcpus"]),
                "threads_per_core": spec["threads_per_core"] or "",
                "memory_bytes": int(spec["memory_gib"] * BYTES_PER_GIB),
                "accelerator": spec["accelerator"] or "",
                "accelerator_count": int(spec["accelerator_count"] or 0),
                "watts_idle": spec["watts_idle"],
                "watts_max": spec["watts_max"],
                "watts_source": spec["watts_source"] or "",
            }
        )
    return sorted(offerings, key=lambda o: (o["provider"], o["instance_type"]))


def spot_prices(specs: list[Row], names: set[tuple[str, str]]) -> list[Row]:
    """Spot prices of the types that the catalogue holds, where a source has one."""
    return [
        {
            "provider": spec["provider"],
            "instance_type": spec["instance_type"],
            "usd_per_hour": spec["spot_usd_hour"],
            "price_date": spec["spot_date"],
            "price_source": spec["spot_source"],
        }
        for spec in sorted(specs, key=lambda s: (s["provider"], s["instance_type"]))
        if spec["spot_usd_hour"] and (spec["provider"], spec["instance_type"]) in names
    ]


def write_table(name: str, columns: list[str], rows: list[Row]) -> None:
    """One CSV file of the catalogue, sorted, floats with five significant digits."""
    with (TARGET / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow(_cell(column, row[column]) for column in columns)


def _cell(column: str, value: str | float | None) -> str | int:
    if value is None:
        return ""
    if not isinstance(value, float):
        return value
    return f"{value:.9g}" if column == "usd_per_hour" else f"{value:.5g}"


def main() -> None:
    """Build the three tables and print how good the fits are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the published figures")
    data: Path = parser.parse_args().data
    specs = read_specs(data)
    offerings = priced_offerings(specs)
    gpu_types = {(s["provider"], s["instance_type"]) for s in specs if s["accelerator_count"]}
    points = catalog_llm.read_points(data, gpu_types)
    curves = catalog_llm.llm_curves(points)
    lent = catalog_llm.lend_gpu_curves(curves, offerings, specs)
    tools = catalog_tools.tool_speed(data, offerings)
    priced = {(o["provider"], o["instance_type"]) for o in offerings}
    shipped = [c for c in curves + lent if (c["provider"], c["instance_type"]) in priced]
    shipped.sort(key=lambda c: tuple(c[k] for k in CURVE_COLUMNS[:6]))
    serving = {(c["provider"], c["instance_type"]) for c in shipped}
    with_tools = {(t["provider"], t["instance_type"]) for t in tools}
    # A GPU machine without a curve would be sold as a dear tool box; leave it out.
    kept = [
        o
        for o in offerings
        if (o["provider"], o["instance_type"]) in serving
        or (o["accelerator_count"] == 0 and (o["provider"], o["instance_type"]) in with_tools)
    ]
    names = {(o["provider"], o["instance_type"]) for o in kept}
    write_table("offerings.csv", OFFERING_COLUMNS, kept)
    write_table("spot_prices.csv", SPOT_COLUMNS, spot_prices(specs, names))
    write_table("llm_curves.csv", CURVE_COLUMNS, shipped)
    write_table(
        "tool_speed.csv",
        TOOL_COLUMNS,
        [t for t in tools if (t["provider"], t["instance_type"]) in names],
    )
    print(
        f"{len(kept)} offerings, {len(shipped)} curves of {len(serving)} types ({len(lent)} lent)"
    )
    print(catalog_llm.fit_error_report(curves))
    print(catalog_llm.share_report(curves))
    for mode in ("cpu", "gpu"):
        print(catalog_llm.cost_bias_report(points, curves, mode))


if __name__ == "__main__":
    main()
