"""Roofline estimates for the pairs of offering and model that nobody measured.

Only on silicon of which some type was measured: see `scripts/roofline_error.py` for how wrong it
would be elsewhere. Every estimate is marked: `origin` is `predicted`, `curve.predicted` is true,
and `measured_on` is empty.
"""

import math
import statistics
from typing import Literal

import msgspec

from steelyard.config.catalog_table import Catalog, LlmFit, hardware_key
from steelyard.domain.offering import Offering
from steelyard.domain.pool import LlmCurve
from steelyard.domain.units import BYTES_PER_GIB
from steelyard.perf.roofline import Roofline, RooflineCase, calibrate_roofline

Part = Literal["itl", "slope", "prefill"]
PARTS: tuple[Part, ...] = ("itl", "slope", "prefill")

ENGINE = "vllm-0.22.1"
_PROMPT_TOKENS, _OUTPUT_TOKENS = 256, 128
# Room for key-value cache and activations beside the weights.
_WEIGHTS_SHARE_OF_MEMORY = 0.7


class ModelSize(msgspec.Struct, frozen=True):
    """Size and shape of a model, from its card and its config.json; context as in the catalogue.

    Attributes:
        parameters: How many.
        bytes_per_parameter: Bytes of each.
        context_tokens: Longest prompt plus output.
        layers: Layers with attention.
        kv_heads: Heads of keys and values per layer.
        head_width: Values per head.
    """

    parameters: float
    bytes_per_parameter: float
    context_tokens: int
    layers: int
    kv_heads: int
    head_width: int

    @property
    def weight_bytes(self) -> float:
        """Bytes of all weights."""
        return self.parameters * self.bytes_per_parameter


class GpuPeak(msgspec.Struct, frozen=True):
    """Peaks of one GPU from its maker's data sheet: dense 16-bit operations, memory."""

    bytes_per_s: float
    operations_per_s: float
    memory_gib: float


SIZES = {
    "smollm2-135m": ModelSize(134.5e6, 2.0, 8192, 30, 3, 64),
    "qwen2.5-0.5b": ModelSize(494e6, 2.0, 32768, 24, 2, 64),
    "gemma-2-2b": ModelSize(2.61e9, 2.0, 8192, 26, 4, 256),
    "llama-3.1-8b": ModelSize(8.03e9, 2.0, 131072, 32, 8, 128),
    "phi-4-14b": ModelSize(14.7e9, 2.0, 16384, 40, 10, 128),
    "llama-3.3-70b-bnb4": ModelSize(70.6e9, 0.56, 131072, 80, 8, 128),
}
GPUS = {
    "NVIDIA A10G": GpuPeak(600e9, 70e12, 24.0),
    "NVIDIA A100-SXM4-40GB": GpuPeak(1555e9, 312e12, 40.0),
    "NVIDIA A100 80GB PCIe": GpuPeak(1935e9, 312e12, 80.0),
    "NVIDIA A100-SXM4-80GB": GpuPeak(2039e9, 312e12, 80.0),
    "NVIDIA H100 80GB HBM3": GpuPeak(3350e9, 989e12, 80.0),
    "NVIDIA H100 NVL": GpuPeak(3900e9, 835e12, 94.0),
    "NVIDIA H200": GpuPeak(4800e9, 989e12, 141.0),
    "NVIDIA L4": GpuPeak(300e9, 121e12, 24.0),
    "NVIDIA L40S": GpuPeak(864e9, 362e12, 48.0),
}


class Calibrated(msgspec.Struct, frozen=True, kw_only=True):
    """The three rooflines of a catalogue, and the caps and floors seen.

    Attributes:
        itl: Gap between tokens of one stream.
        slope: Seconds per further stream.
        prefill: Seconds per prompt token.
        silicons: Silicon with measured pairs; elsewhere nothing is predicted.
        caps: (hardware, model) to the lower quartile of measured concurrency caps.
        floors_s: Hardware to the median TTFT floor, seconds.
    """

    itl: Roofline
    slope: Roofline
    prefill: Roofline
    silicons: frozenset[str]
    caps: dict[tuple[str, str], int]
    floors_s: dict[str, float]


def roofline_case(
    catalog: Catalog, offering: Offering, model: str, part: Part
) -> RooflineCase | None:
    """What does the roofline of a model on an offering start from?

    Args:
        catalog: For micro-architecture, memory speed and CPU speed.
        offering: The machine.
        model: A model of `SIZES`.
        part: Decode reads the weights; a further stream and prefill compute with them.

    Returns:
        The case; None where the machine's memory or CPU was not measured, its silicon is hidden,
        or the weights do not fit.
    """
    machine, size = offering.instance_type, SIZES[model]
    key = hardware_key(offering)
    if machine.accelerator_count:
        gpu = GPUS.get(machine.accelerator)
        # Several GPUs serve as one only with a parallel engine, which no figure describes.
        if gpu is None or machine.accelerator_count != 1:
            return None
        speeds = (gpu.bytes_per_s, gpu.operations_per_s)
        memory_bytes = gpu.memory_gib * BYTES_PER_GIB
        silicon = machine.accelerator
    else:
        facts, tools = catalog.facts.get(key), catalog.tool_fits.get(key)
        if facts is None or not facts.microarch or tools is None:
            return None
        if tools.memory_read_bytes_per_s is None:
            return None
        # No CPU's peak is published per vCPU; the scale is left to the calibration.
        speeds = (
            tools.memory_read_bytes_per_s,
            1e10 * tools.curve.relative_speed * tools.curve.cores,
        )
        memory_bytes = float(machine.memory_bytes)
        silicon = facts.microarch
    if size.weight_bytes > _WEIGHTS_SHARE_OF_MEMORY * memory_bytes:
        return None
    by_memory_s = size.weight_bytes / speeds[0]
    by_compute_s = 2.0 * size.parameters / speeds[1]
    return RooflineCase(
        machine="/".join(key),
        silicon=silicon,
        hardware=machine.hardware,
        model=model,
        ideal_s=by_memory_s if part == "itl" else by_compute_s,
        features=(
            math.log(by_memory_s / by_compute_s),
            math.log(size.parameters),
            # Small models on many cores wait for one another rather than for memory.
            0.0 if machine.accelerator_count else math.log(machine.vcpus),
        ),
    )


def measured_cases(catalog: Catalog, part: Part) -> tuple[list[RooflineCase], list[float]]:
    """On which pairs is a roofline calibrated? Measured ones alone, of one engine and prompt.

    Args:
        catalog: Figures.
        part: Which number.

    Returns:
        Cases and measured seconds, in the catalogue's order, one per instance type and model.
    """
    cases: list[RooflineCase] = []
    seconds: list[float] = []
    seen: set[tuple[str, str]] = set()
    for offering in catalog.offerings:
        for fit in catalog.llm_fits.get(hardware_key(offering), ()):
            usable = fit.origin in ("measured", "weak") and fit.engine == ENGINE
            if not usable or fit.prompt_tokens != _PROMPT_TOKENS or fit.model not in SIZES:
                continue
            case = roofline_case(catalog, offering, fit.model, part)
            value_s = _part(fit.curve, part)
            if case is None or value_s <= 0.0 or (case.machine, case.model) in seen:
                continue
            if part == "slope" and fit.origin != "measured":
                continue
            seen.add((case.machine, case.model))
            cases.append(case)
            seconds.append(value_s)
    return cases, seconds


def _part(curve: LlmCurve, part: Part) -> float:
    if part == "itl":
        return curve.itl_base_s + curve.itl_slope_s
    return curve.itl_slope_s if part == "slope" else curve.prefill_s_per_token


def calibrate_catalog(catalog: Catalog) -> Calibrated:
    """Which rooflines follow from what the catalogue measured?"""
    pairs = {part: measured_cases(catalog, part) for part in PARTS}
    parts = {part: calibrate_roofline(*pairs[part]) for part in PARTS}
    caps: dict[tuple[str, str], list[int]] = {}
    floors: dict[str, list[float]] = {}
    hardware = {hardware_key(o): o.instance_type.hardware for o in catalog.offerings}
    for key, fits in catalog.llm_fits.items():
        for fit in fits:
            if fit.origin in ("measured", "weak") and key in hardware:
                caps.setdefault((hardware[key], fit.model), []).append(fit.curve.concurrency_cap)
                floors.setdefault(hardware[key], []).append(fit.curve.ttft_floor_s)
    return Calibrated(
        itl=parts["itl"],
        slope=parts["slope"],
        prefill=parts["prefill"],
        silicons=frozenset(case.silicon for case in pairs["itl"][0]),
        caps={key: sorted(seen)[len(seen) // 4] for key, seen in sorted(caps.items())},
        floors_s={key: statistics.median(seen) for key, seen in sorted(floors.items())},
    )


def with_predictions(catalog: Catalog) -> Catalog:
    """The catalogue with an estimate for every pair that has no figure and can be estimated.

    Args:
        catalog: Measured and borrowed figures, which are left as they are.

    Returns:
        The catalogue; estimates are marked `predicted`.
    """
    calibrated = calibrate_catalog(catalog)
    fits = dict(catalog.llm_fits)
    for offering in catalog.offerings:
        key = hardware_key(offering)
        known = {fit.model for fit in fits.get(key, ())}
        guessed = [
            fit
            for model in sorted(SIZES)
            if model not in known
            and (fit := _predicted(catalog, calibrated, offering, model)) is not None
        ]
        if guessed:
            fits[key] = (*fits.get(key, ()), *guessed)
    return msgspec.structs.replace(catalog, llm_fits=fits)


def _predicted(
    catalog: Catalog, calibrated: Calibrated, offering: Offering, model: str
) -> LlmFit | None:
    cases = [roofline_case(catalog, offering, model, part) for part in PARTS]
    itl, slope, prefill = cases
    cap = calibrated.caps.get((offering.instance_type.hardware, model))
    if itl is None or slope is None or prefill is None or cap is None:
        return None
    # On unseen silicon the error of prefill is 240 % (x86): some of it computes bf16 step by step.
    if itl.silicon not in calibrated.silicons:
        return None
    slope_s = calibrated.slope.predict_s(slope)
    alone_s = calibrated.itl.predict_s(itl)
    curve = LlmCurve(
        ttft_floor_s=calibrated.floors_s[offering.instance_type.hardware],
        prefill_s_per_token=calibrated.prefill.predict_s(prefill),
        itl_base_s=max(0.0, alone_s - slope_s),
        itl_slope_s=slope_s,
        concurrency_cap=cap,
        context_tokens=SIZES[model].context_tokens,
        predicted=True,
        source=(
            f"roofline calibrated on {calibrated.itl.cases} measured pairs of the catalogue; not"
            " measured on this machine"
        ),
    )
    return LlmFit(
        curve=curve,
        model=model,
        engine=ENGINE,
        prompt_tokens=_PROMPT_TOKENS,
        output_tokens=_OUTPUT_TOKENS,
        points=0,
        loo_error_frac=None,
        quality="weak",
        measured_on="",
        measured_context_tokens=0,
        prefill_points=0,
        origin="predicted",
    )
