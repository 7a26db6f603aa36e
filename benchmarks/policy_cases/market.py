"""What can be rented for a trace: the best offerings of each kind, and fleets of them."""

import math

import msgspec

from steelyard.config.catalog_table import Catalog
from steelyard.domain.offering import Offering
from steelyard.domain.pool import PoolSpec
from steelyard.domain.workload import Workload
from steelyard.errors import InfeasiblePlanError
from steelyard.planner.bounds import cost_bound
from steelyard.planner.sizing import Counts

ENGINE = "vllm-0.22.1"
# Memory of one accelerator in GB (NVIDIA's data sheets, read 2026-11-23).
GPU_GB = {
    "NVIDIA A100 80GB PCIe": 80,
    "NVIDIA A100-SXM4-40GB": 40,
    "NVIDIA A100-SXM4-80GB": 80,
    "NVIDIA A10G": 24,
    "NVIDIA H100 80GB HBM3": 80,
    "NVIDIA H100 NVL": 94,
    "NVIDIA H200": 141,
    "NVIDIA L4": 24,
    "NVIDIA L40S": 48,
}
# Weights in GB and key-value bytes per token in bf16: 2 * layers * heads * size * 2 (model cards).
MODELS = {
    "llama-3.1-8b": (16.1, 131_072),
    "qwen2.5-0.5b": (1.0, 12_288),
    "gemma-2-2b": (5.2, 106_496),
}


def market(
    catalog: Catalog, workload: Workload, model: str, only: tuple[str, ...] = ()
) -> tuple[PoolSpec, ...]:
    """The best four GPU offerings, the best Arm and the best x86 for the model, two for tools.

    Args:
        catalog: All offerings.
        workload: Tasks; what they compute decides what is best.
        model: The model that they ask for.
        only: Parts of names: GPUs with none of them are left out; all are taken where empty.
    """
    steps = [step for task in workload.tasks for step in task.steps if step.kind == "llm"]
    uncached = math.fsum(s.prompt_tokens - s.shared_prefix_tokens for s in steps) / len(steps)
    output = math.fsum(s.output_tokens for s in steps) / len(steps)
    prompts = sorted(s.prompt_tokens for s in steps)
    context = prompts[int(0.75 * len(prompts))]
    priced: dict[str, list[tuple[float, str, str, PoolSpec]]] = {"gpu": [], "arm": [], "x86": []}
    for offering in catalog.offerings:
        spec = llm_pool(catalog, offering, model, uncached, context)
        if spec is None:
            continue
        if only and spec.hardware == "gpu" and not any(part in spec.name for part in only):
            continue
        curve = spec.llm_curves[model]
        cap = curve.concurrency_cap
        gap_s = (curve.itl_base_s + curve.itl_slope_s * cap) / cap
        used_s = uncached * curve.prefill_s_per_token + output * gap_s
        gpu = offering.instance_type.accelerator or spec.arch
        priced[spec.hardware].append((used_s * spec.usd_per_hour, gpu, spec.name, spec))
    chosen: list[PoolSpec] = []
    for hardware, most in (("gpu", 4), ("arm", 1), ("x86", 1)):
        chosen += _best(priced[hardware], most)
    known = [one for one in (tool_pool(catalog, o) for o in catalog.offerings) if one is not None]
    chosen += [
        min((one for one in known if one.arch == arch), key=_usd_per_cpu)
        for arch in ("arm64", "x86_64")
    ]
    return tuple(sorted(chosen, key=lambda spec: spec.name))


def _best(priced: list[tuple[float, str, str, PoolSpec]], most: int) -> list[PoolSpec]:
    """The cheapest of each kind; sizes of one machine with the same GPU are no choice."""
    best: dict[str, PoolSpec] = {}
    for _, kind, _, spec in sorted(priced, key=lambda one: (one[0], one[2])):
        if kind not in best and len(best) < most:
            best[kind] = spec
    return list(best.values())


def _usd_per_cpu(spec: PoolSpec) -> tuple[float, str]:
    curve = spec.tool_curve
    assert curve is not None
    return (spec.usd_per_hour / (curve.cores * curve.relative_speed), spec.name)


def llm_pool(
    catalog: Catalog, offering: Offering, model: str, uncached: float, context: int
) -> PoolSpec | None:
    """The offering as a pool of one model, its streams limited by memory; None if it cannot."""
    fit = catalog.llm_fit(offering, model, ENGINE, prompt_tokens=uncached)
    # Fleets of a few machines with eight GPUs each would tell little of a policy.
    if fit is None or fit.quality == "weak" or offering.instance_type.accelerator_count > 1:
        return None
    kind = offering.instance_type
    weights_gb, token_bytes = MODELS[model]
    memory_gb = kind.memory_bytes / 1e9
    if kind.accelerator:
        memory_gb = GPU_GB[kind.accelerator] * kind.accelerator_count
    streams = int((0.9 * memory_gb - weights_gb) * 1e9 / token_bytes / max(context, 1))
    if streams < 1:
        return None
    curve = msgspec.structs.replace(
        fit.curve, concurrency_cap=min(fit.curve.concurrency_cap, streams)
    )
    return _pool(offering, f"{offering.provider}/{kind.name}", {model: curve}, None)


def tool_pool(catalog: Catalog, offering: Offering) -> PoolSpec | None:
    """The offering as a pool of tool slots, 500 MB each; None where its CPU is unknown."""
    curve = catalog.tool_curve(offering)
    if curve is None or offering.instance_type.accelerator or not 8 <= curve.cores <= 16:
        return None
    slots = max(1, int(curve.memory_bytes / 500e6))
    curve = msgspec.structs.replace(curve, slots=slots)
    name = f"tools:{offering.provider}/{offering.instance_type.name}"
    return _pool(offering, name, {}, curve)


def _pool(offering: Offering, name: str, curves: dict, tools: object) -> PoolSpec:  # type: ignore[type-arg]
    return PoolSpec(
        name=name,
        provider=offering.provider,
        region=offering.region,
        arch=offering.instance_type.arch,
        hardware=offering.instance_type.hardware,
        offering=offering.name,
        usd_per_hour=offering.usd_per_hour,
        replicas=1,
        llm_curves=curves,
        tool_curve=tools,  # type: ignore[arg-type]
    )


def mixes_of(
    pools: tuple[PoolSpec, ...], workload: Workload, budget_usd_per_hour: float
) -> list[Counts]:
    """Fleets of about one price: the bound's, one per model pool, and halves of the best two."""
    model_pools = [spec for spec in pools if spec.llm_curves]
    tools = tuple(spec for spec in pools if not spec.llm_curves)
    found: list[tuple[float, dict[str, float]]] = []
    for some in [tuple(model_pools), *((spec,) for spec in model_pools)]:
        try:
            bound = cost_bound(workload, (*some, *tools), 1.0)
        except InfeasiblePlanError:
            continue
        found.append((bound.usd_per_hour, bound.replicas))
    singles = sorted(found[1:], key=lambda one: one[0])[:2]
    if len(singles) == 2:
        both = {
            name: sum(one[1].get(name, 0.0) / one[0] for one in singles)
            for name in {*singles[0][1], *singles[1][1]}
        }
        found.append((2.0, both))
    # Tools that take no time still need a place.
    least = min(tools, key=lambda spec: (spec.usd_per_hour, spec.name))
    fleets: list[Counts] = []
    for usd, replicas in found:
        scale = budget_usd_per_hour / usd
        counts = tuple(_whole(spec, scale * replicas.get(spec.name, 0.0)) for spec in pools)
        if not any(count for spec, count in zip(pools, counts, strict=True) if not spec.llm_curves):
            counts = tuple(1 if spec is least else n for spec, n in zip(pools, counts, strict=True))
        if counts not in fleets:
            fleets.append(counts)
    return fleets


def _whole(spec: PoolSpec, replicas: float) -> int:
    if not spec.llm_curves:
        # Tools cost next to nothing; they get twice the room, lest they decide the comparison.
        return math.ceil(2.0 * replicas - 1e-9)
    return round(replicas) or int(replicas > 0.2)


def describe(pools: tuple[PoolSpec, ...], counts: Counts) -> str:
    """A fleet in words."""
    return ", ".join(
        f"{count} x {spec.name}" for spec, count in zip(pools, counts, strict=False) if count
    )
