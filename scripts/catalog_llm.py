"""LLM curves of the catalogue: a line of ITL over load per type, model, engine, prompt shape."""

import math
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import polars as pl

from steelyard.perf.cost import llm_used_s
from steelyard.perf.fit import PrefillFit, decode_alone, fit_itl, fit_prefill
from steelyard.perf.predict import prefill_share_s

# The source's model names, and our canonical ones.
MODELS = {
    "smol-135m": "smollm2-135m",
    "qwen-0.5b": "qwen2.5-0.5b",
    "gemma-2b": "gemma-2-2b",
    "llama-8b": "llama-3.1-8b",
    "phi-4": "phi-4-14b",
    "llama-70b": "llama-3.3-70b-bnb4",
}
# Longest context that the model was made for, from its model card.
CONTEXT_TOKENS = {
    "smollm2-135m": 8192,
    "qwen2.5-0.5b": 32768,
    "gemma-2-2b": 8192,
    "llama-3.1-8b": 131072,
    "phi-4-14b": 16384,
    "llama-3.3-70b-bnb4": 131072,
}
ENOUGH_REQUESTS = 20.0
KNEE_FACTOR, KNEE_SLACK_MS = 2.0, 250.0
WORST_OK_ERROR_FRAC = 0.15
FEWEST_POINTS = 3

Row = dict[str, Any]
Group = tuple[str, str, str, str]


def read_points(data: Path, gpu_types: set[tuple[str, str]]) -> dict[Group, list[Row]]:
    """Which load points may be fitted, by (provider, type, model, engine)?

    `throughput` rows (overload) and `empty` rows are out. `rate_mismatch` rows stay: the fault
    is in their published tokens/s, which is not read here. CPU-mode rows of machines that hold a
    GPU are out: nobody rents the GPU to leave it idle.
    """
    frame = pl.read_csv(data / "vllm_serving.csv.gz", infer_schema_length=None).filter(
        (pl.col("strategy") != "throughput")
        & (pl.col("quality") != "empty")
        & (pl.col("itl_mean_ms") > 0)
        & (pl.col("ttft_p50_ms") > 0)
        & (pl.col("concurrency") > 0)
    )
    groups: dict[Group, list[Row]] = defaultdict(list)
    for row in frame.sort("workload", "concurrency").iter_rows(named=True):
        engine = f"vllm-{row['vllm_version']}"
        if row["mode"] == "cpu" and (row["provider"], row["instance_type"]) in gpu_types:
            continue
        key = (row["provider"], row["instance_type"], MODELS[row["model"]], engine)
        groups[key].append(row)
    return dict(sorted(groups.items()))


def below_knee(rows: list[Row]) -> list[Row]:
    """Which points of one sweep have no queue in front of the prefill?"""
    low_ms = min(r["ttft_p50_ms"] for r in rows if r["strategy"] == "synchronous")
    limit_ms = max(KNEE_FACTOR * low_ms, low_ms + KNEE_SLACK_MS)
    return [r for r in rows if r["ttft_p50_ms"] <= limit_ms]


def _sweeps(rows: list[Row]) -> list[list[Row]]:
    by_shape: dict[tuple[int, int], list[Row]] = defaultdict(list)
    for row in rows:
        by_shape[int(row["prompt_tokens"]), int(row["output_tokens"])].append(row)
    return [
        below_knee(sweep)
        for _, sweep in sorted(by_shape.items())
        if any(r["strategy"] == "synchronous" for r in sweep)
    ]


def _curve(sweep: list[Row], prefill: PrefillFit) -> Row:
    """One line of llm_curves.csv without its key and prefill columns."""
    fit = fit_itl([r["concurrency"] for r in sweep], [r["itl_mean_ms"] / 1e3 for r in sweep])
    top = max(sweep, key=lambda r: r["concurrency"])
    enough = sum(r["est_requests"] >= ENOUGH_REQUESTS for r in sweep)
    good_fit = fit.loo_error_frac is not None and fit.loo_error_frac <= WORST_OK_ERROR_FRAC
    tokens = float(top["prompt_tokens"]), float(top["output_tokens"])
    share_s = prefill_share_s(prefill.s_per_token, *tokens)
    base_s, slope_s, is_clamped = decode_alone(fit.base_s, fit.slope_s, share_s)
    ok = good_fit and enough >= 2 and top["est_requests"] >= ENOUGH_REQUESTS and not is_clamped
    return {
        "prompt_tokens": int(top["prompt_tokens"]),
        "output_tokens": int(top["output_tokens"]),
        "itl_base_s": base_s,
        "itl_slope_s": slope_s,
        "sweep_slope_s": fit.slope_s,
        "share_s": share_s,
        "concurrency_cap": max(1, int(top["concurrency"] + 0.01)),
        "points": fit.points,
        "loo_error_frac": fit.loo_error_frac,
        "quality": "ok" if ok else "weak",
        "date": max(r["date"] or "" for r in sweep),
        "measured_context_tokens": max(int(r["max_model_len"]) for r in sweep),
    }


def llm_curves(points: dict[Group, list[Row]]) -> list[Row]:
    """Fit every sweep of every (type, model, engine)."""
    curves: list[Row] = []
    for (provider, instance_type, model, engine), rows in points.items():
        sweeps = _sweeps(rows)
        if not sweeps:
            continue
        # TTFT p50 of one stream alone: the mean holds the harness's cold start on some types.
        alone = [min(s, key=lambda r: r["concurrency"]) for s in sweeps]
        prefill = fit_prefill(
            [r["prompt_tokens"] for r in alone], [r["ttft_p50_ms"] / 1e3 for r in alone]
        )
        key = {"provider": provider, "instance_type": instance_type, "model": model}
        curves.extend(
            key
            | {"engine": engine}
            | _curve(sweep, prefill)
            | {
                "ttft_floor_s": prefill.floor_s,
                "prefill_s_per_token": prefill.s_per_token,
                "prefill_points": prefill.points,
                "measured_on": f"{provider}/{instance_type}",
                "context_tokens": CONTEXT_TOKENS[model],
            }
            for sweep in sweeps
        )
    return curves


def lend_gpu_curves(curves: list[Row], offerings: list[Row], specs: list[Row]) -> list[Row]:
    """Curves of measured GPUs for priced types that hold the same GPUs and were not measured.

    The lender is the measured type with the same GPU name and number, ties by name. Such rows
    are marked: `measured_on` names the lender and `quality` is weak.
    """
    measured = {(c["provider"], c["instance_type"]) for c in curves}
    lenders: dict[tuple[str, int], tuple[str, str]] = {}
    for spec in sorted(specs, key=lambda s: (s["provider"], s["instance_type"])):
        key = (spec["provider"], spec["instance_type"])
        if key in measured and spec["accelerator"]:
            gpu = (spec["accelerator"], int(spec["accelerator_count"]))
            lenders.setdefault(gpu, key)
    lent: list[Row] = []
    for offering in offerings:
        key = (offering["provider"], offering["instance_type"])
        gpu = (offering["accelerator"], offering["accelerator_count"])
        if key in measured or gpu not in lenders:
            continue
        provider, instance_type = lenders[gpu]
        lent.extend(
            c | {"provider": key[0], "instance_type": key[1], "quality": "weak"}
            for c in curves
            if (c["provider"], c["instance_type"]) == (provider, instance_type)
        )
    return lent


def fit_error_report(curves: list[Row]) -> str:
    """How good are the lines of ITL? Leave-one-out error over all measured curves."""
    errors = sorted(c["loo_error_frac"] for c in curves if c["loo_error_frac"] is not None)
    median, p90 = statistics.median(errors), errors[int(0.9 * len(errors))]
    return (
        f"leave-one-interior-point-out error of itl: median {median:.4f}, p90 {p90:.4f},"
        f" {len(errors)} of {len(curves)} curves"
    )


def share_report(curves: list[Row]) -> str:
    """How much of the sweeps' slopes was the prefill of other streams?"""
    sloped = [c for c in curves if c["sweep_slope_s"] > 0.0 and c["points"] >= FEWEST_POINTS]
    parts = sorted(min(1.0, c["share_s"] / c["sweep_slope_s"]) for c in sloped)
    clamped = sum(c["share_s"] > c["sweep_slope_s"] for c in sloped)
    tenth, median, ninetieth = (parts[int(q * len(parts))] for q in (0.1, 0.5, 0.9))
    return (
        f"prefill of other streams in the sweeps' slopes: median {median:.2f}, p10 {tenth:.2f},"
        f" p90 {ninetieth:.2f} of {len(parts)} curves; {clamped} clamped and weak"
    )


def cost_bias_report(points: dict[Group, list[Row]], curves: list[Row], mode: str) -> str:
    """How far is the cost function from what was measured, on `cpu` or `gpu` machines?

    Measured: concurrency streams share the machine for one latency (Little's law). Predicted: the
    cost function at that concurrency, with the curve of the very sweep, with that of another prompt
    length of the same machine, model and engine, and with the sweeps' lines as they are, prefill of
    others included.
    """
    own: list[float] = []
    other: list[float] = []
    as_swept: list[float] = []
    for curve in curves:
        group = points[curve["provider"], curve["instance_type"], curve["model"], curve["engine"]]
        for sweep in _sweeps(group):
            is_own = int(sweep[0]["prompt_tokens"]) == curve["prompt_tokens"]
            for r in sweep:
                enough = r["est_requests"] >= ENOUGH_REQUESTS
                if r["mode"] != mode or not enough or r["strategy"] == "synchronous":
                    continue
                (own if is_own else other).append(_bias(curve, r, taken=True))
                if is_own:
                    as_swept.append(_bias(curve, r, taken=False))
    return (
        f"{mode}: predicted / measured replica-seconds, medians over {len(own)} points:"
        f" {statistics.median(own):.3f}; with the curve of another prompt length"
        f" {statistics.median(other) if other else math.nan:.3f} ({len(other)} points);"
        f" with the sweeps' own lines {statistics.median(as_swept):.3f}"
    )


def _bias(curve: Row, point: Row, *, taken: bool) -> float:
    """Predicted over measured replica-seconds of one request at a measured load."""
    line = curve["itl_base_s"], curve["itl_slope_s"]
    if not taken:
        back_s = curve["sweep_slope_s"] - curve["itl_slope_s"]
        line = line[0] - back_s, line[1] + back_s
    predicted_s = llm_used_s(
        (curve["ttft_floor_s"], curve["prefill_s_per_token"], *line, point["concurrency"]),
        float(point["prompt_tokens"]),
        float(point["output_tokens"]),
    )
    return predicted_s / (point["e2e_mean_ms"] / 1e3 / point["concurrency"])
