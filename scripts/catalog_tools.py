"""CPU tool speed of the catalogue: cores relative to the reference core of ADR 0004."""

import math
from pathlib import Path
from typing import Any

import polars as pl

REFERENCE = ("aws", "m7i.2xlarge")
# Work of the whole machine, divided by its vCPUs below. Stable over the harness's versions.
ALL_CORE_PROXIES = (
    "openssl_sha256_16k_mb_s",
    "redis_set_pipeline1_rps",
    "static_web_1k_best_rps",
    "stressng_div16_allcore",
    "passmark_cpu_mark",
)
SINGLE_THREAD_PROXIES = ("passmark_single_thread", "stressng_div16_1core")
DATES = ("date_openssl", "date_redis", "date_static_web", "date_stressngfull", "date_passmark")

Row = dict[str, Any]


def trimmed_geometric_mean(ratios: list[float]) -> float:
    """The geometric mean without the highest and lowest of five or more.

    One proxy that collapses on one machine (static web on some 64-core Arm runs is ten times
    too low) or flatters one architecture (integer division, Arm) must not decide.
    """
    ordered = sorted(ratios)
    if len(ordered) >= 5:
        ordered = ordered[1:-1]
    return math.exp(math.fsum(math.log(r) for r in ordered) / len(ordered))


def _per_vcpu(row: Row, vcpus: float) -> dict[str, float]:
    return {name: row[name] / vcpus for name in ALL_CORE_PROXIES if (row[name] or 0.0) > 0.0}


def _bytes_per_s(mb_per_s: float | None) -> float | None:
    """Reading 512 MB blocks with all cores; it serves the roofline estimate alone."""
    return mb_per_s * 1e6 if mb_per_s else None


def tool_speed(data: Path, offerings: list[Row]) -> list[Row]:
    """One line of tool_speed.csv per priced type with at least three of the five proxies."""
    frame = pl.read_csv(data / "cpu_work.csv.gz", infer_schema_length=None)
    work = {(r["provider"], r["instance_type"]): r for r in frame.iter_rows(named=True)}
    cores = {(o["provider"], o["instance_type"]): o["vcpus"] for o in offerings}
    reference = work[REFERENCE]
    reference_all = _per_vcpu(reference, cores[REFERENCE])
    lines: list[Row] = []
    for offering in offerings:
        key = (offering["provider"], offering["instance_type"])
        row = work.get(key)
        if row is None:
            continue
        proxies = _per_vcpu(row, offering["vcpus"])
        if len(proxies) < 3:
            continue
        single = [row[n] / reference[n] for n in SINGLE_THREAD_PROXIES if (row[n] or 0.0) > 0.0]
        dates = sorted(row[d] for d in DATES if row[d])
        lines.append(
            {
                "provider": key[0],
                "instance_type": key[1],
                "relative_speed": trimmed_geometric_mean(
                    [value / reference_all[name] for name, value in proxies.items()]
                ),
                "single_thread_speed": trimmed_geometric_mean(single) if single else None,
                "memory_read_bytes_per_s": _bytes_per_s(row["mem_bw_rd_largest_mb_s"]),
                "cores": offering["vcpus"],
                "memory_bytes": offering["memory_bytes"],
                "n_proxies": len(proxies),
                "quality": "ok" if len(proxies) == len(ALL_CORE_PROXIES) else "weak",
                "date_first": dates[0] if dates else "",
                "date_last": dates[-1] if dates else "",
            }
        )
    return lines
