"""From settings and catalogue to the pools' specifications, prices and curves included."""

import msgspec

from steelyard.config.catalog_table import Catalog
from steelyard.config.environment import machine_arch
from steelyard.config.figures_file import pool_curve
from steelyard.config.pool_settings import (
    EmbeddedPoolSettings,
    EndpointPoolSettings,
    McpPoolSettings,
    PoolSettings,
    ToolPoolSettings,
)
from steelyard.config.ray_pools import exact_label, node_arch, replica_settings
from steelyard.config.ray_settings import RayPoolSettings
from steelyard.domain.offering import Offering, TokenPrice
from steelyard.domain.pool import OWN_POOL_PREFIX, LlmCurve, PoolSpec, ToolCurve
from steelyard.domain.units import TOKENS_PER_MILLION

# More than any tool step asks for.
_UNKNOWN_MEMORY_BYTES = 1 << 50

# This machine is priced as the smallest current general-purpose machine of its architecture.
_LOCAL_OFFERING = {"x86_64": "aws/m7i.large", "arm64": "aws/m9g.large"}

# One thread of OpenVINO GenAI 2026.4.1 on SmolLM2-135M, AMD EPYC (Zen 4), measured 2026-11-22:
# prefill 877 tokens/s at 120-500 tokens; decode 112/203/321/432/510 tokens/s at 1/2/4/8/16 streams,
# to which itl(c) = 0.0072 + 0.0015 c fits. A start-up calibration replaces it.
_EMBEDDED_CURVE = LlmCurve(
    ttft_floor_s=0.01,
    prefill_s_per_token=1.0 / 877.0,
    itl_base_s=0.0072,
    itl_slope_s=0.0015,
    concurrency_cap=16,
    context_tokens=8192,
    predicted=True,
    source="OpenVINO GenAI 2026.4.1, one Zen 4 core, 2026-11-22; not measured on this machine",
)

# One thread of OpenVINO 2026.4 on all-MiniLM-L6-v2 without 16-bit floats in hardware, measured
# 2026-11-23 (benchmarks/embeddings.py): about 4,500 tokens/s; with them 24,000. The context is that
# of a request's texts together; the engine bounds the single text. Nothing is decoded.
_EMBEDDING_CURVE = LlmCurve(
    ttft_floor_s=0.005,
    prefill_s_per_token=1.0 / 4500.0,
    itl_base_s=0.0,
    itl_slope_s=0.0,
    concurrency_cap=16,
    context_tokens=2048 * 256,
    predicted=True,
    source="OpenVINO 2026.4, one core, 2026-11-23; not measured on this machine",
)


def local_offering(catalog: Catalog, name: str | None) -> Offering:
    """Which offering is this machine priced as?

    Args:
        catalog: The catalogue.
        name: The setting; None takes a common machine of this machine's architecture.

    Returns:
        The offering.
    """
    return catalog.offering(name or _LOCAL_OFFERING[machine_arch()])


def pool_spec(name: str, pool: PoolSettings, catalog: Catalog) -> PoolSpec:
    """What must the policy know of a configured pool?

    Args:
        name: Name of the pool.
        pool: Its settings.
        catalog: Prices and speeds.

    Returns:
        The specification.

    Raises:
        ConfigError: The offering is not in the catalogue.
    """
    if isinstance(pool, RayPoolSettings):
        return _ray(name, pool, catalog)
    if isinstance(pool, EmbeddedPoolSettings):
        return _embedded(name, pool, catalog)
    if isinstance(pool, ToolPoolSettings):
        return _tools(name, pool, catalog)
    if isinstance(pool, McpPoolSettings):
        return _mcp(name, pool, catalog)
    return _endpoint(name, pool, catalog)


def _ray(name: str, pool: RayPoolSettings, catalog: Catalog) -> PoolSpec:
    one = replica_settings(pool)
    known = {offering.name for offering in catalog.offerings}
    if (
        pool.offering is None
        and one.offering is not None
        and one.offering.count("/") == 3
        and one.offering not in known
    ):
        # Spot prices are not in every catalogue; the machine's own price is the upper bound.
        parts = one.offering.split("/")
        one = msgspec.structs.replace(one, offering="/".join((parts[0], parts[-2])))
    if one.offering is None:
        one = msgspec.structs.replace(one, offering=_LOCAL_OFFERING[node_arch(pool)])
    spec = pool_spec(name, one, catalog)
    machine = catalog.offering(spec.offering)
    share = min(1.0, pool.cores / machine.instance_type.vcpus)
    # Labels tell where the nodes are, even where they are priced as others.
    return msgspec.structs.replace(
        spec,
        provider=exact_label(pool, "provider") or spec.provider,
        region=exact_label(pool, "region") or spec.region,
        usd_per_hour=machine.usd_per_hour * share,
        replicas=pool.max_replicas,
    )


def _embedded(name: str, pool: EmbeddedPoolSettings, catalog: Catalog) -> PoolSpec:
    offering = local_offering(catalog, pool.offering)
    machine = offering.instance_type
    share = 1.0 / machine.vcpus if pool.machine_frac is None else pool.machine_frac
    guess = _EMBEDDING_CURVE if pool.task == "embeddings" else _EMBEDDED_CURVE
    curve = msgspec.structs.replace(guess, concurrency_cap=pool.concurrency_cap)
    if pool.figures is not None:
        curve = pool_curve(name, pool.figures, (pool.model,))[1]
    return PoolSpec(
        name=name,
        provider=offering.provider,
        region=offering.region,
        arch=machine.arch,
        hardware="arm" if machine.arch == "arm64" else "x86",
        offering=offering.name,
        usd_per_hour=offering.usd_per_hour * share,
        replicas=pool.replicas,
        llm_curves={pool.model: curve},
    )


def _mcp(name: str, pool: McpPoolSettings, catalog: Catalog) -> PoolSpec:
    prefix = f"{OWN_POOL_PREFIX}{name}/"
    if pool.command:
        return msgspec.structs.replace(_tools(name, pool, catalog), tool_prefix=prefix)
    # Somebody else's machine: what it has and costs is not known, and not counted.
    curve = ToolCurve(
        relative_speed=1.0,
        cores=1.0,
        memory_bytes=_UNKNOWN_MEMORY_BYTES,
        start_s=0.0,
        slots=pool.slots,
        predicted=True,
        source=f"assumed of pools.{name}; not measured",
    )
    return PoolSpec(
        name=name,
        provider="custom",
        region="",
        arch=machine_arch(),
        hardware="vendor",
        offering="",
        usd_per_hour=0.0,
        replicas=1,
        tool_curve=curve,
        tool_prefix=prefix,
    )


def _tools(name: str, pool: ToolPoolSettings | McpPoolSettings, catalog: Catalog) -> PoolSpec:
    offering = local_offering(catalog, pool.offering)
    machine = offering.instance_type
    share = pool.cores / machine.vcpus
    figure = catalog.tool_curve(offering)
    curve = ToolCurve(
        relative_speed=1.0 if figure is None else figure.relative_speed,
        cores=pool.cores,
        memory_bytes=int(machine.memory_bytes * share),
        start_s=0.0,
        slots=pool.slots,
        predicted=True,
        source="priced and rated as " + offering.name + "; not measured on this machine",
    )
    return PoolSpec(
        name=name,
        provider=offering.provider,
        region=offering.region,
        arch=machine.arch,
        hardware="arm" if machine.arch == "arm64" else "x86",
        offering=offering.name,
        usd_per_hour=offering.usd_per_hour * share,
        replicas=1,
        tool_curve=curve,
    )


def _endpoint(name: str, pool: EndpointPoolSettings, catalog: Catalog) -> PoolSpec:
    offering = None if pool.offering is None else catalog.offering(pool.offering)
    rent = 0.0 if offering is None else offering.usd_per_hour
    curve = LlmCurve(
        ttft_floor_s=pool.curve.ttft_floor_s,
        prefill_s_per_token=pool.curve.prefill_s_per_token,
        itl_base_s=pool.curve.itl_base_s,
        itl_slope_s=pool.curve.itl_slope_s,
        concurrency_cap=pool.curve.concurrency_cap,
        context_tokens=pool.curve.context_tokens,
        predicted=True,
        source=f"settings of pools.{name}.curve",
    )
    curves = dict.fromkeys(pool.models, curve)
    if pool.figures is not None:
        model, measured = pool_curve(name, pool.figures, pool.models)
        curves[model] = measured
    hardware = "vendor" if offering is None else offering.instance_type.hardware
    return PoolSpec(
        name=name,
        provider=pool.provider if offering is None else offering.provider,
        region=pool.region if offering is None else offering.region,
        arch=pool.arch if offering is None else offering.instance_type.arch,
        hardware=hardware,
        offering="" if offering is None else offering.name,
        usd_per_hour=rent if pool.usd_per_hour is None else pool.usd_per_hour,
        replicas=len(pool.base_urls),
        token_price=_token_price(pool),
        llm_curves=curves,
        kv_tokens=pool.kv_tokens,
        kv_tokens_source="" if pool.kv_tokens is None else "given",
    )


def _token_price(pool: EndpointPoolSettings) -> TokenPrice | None:
    price = pool.token_price
    if price is None:
        return None
    cached = price.cached_usd_per_million
    if cached is None:
        cached = price.input_usd_per_million
    return TokenPrice(
        usd_per_input_token=price.input_usd_per_million / TOKENS_PER_MILLION,
        usd_per_cached_token=cached / TOKENS_PER_MILLION,
        usd_per_output_token=price.output_usd_per_million / TOKENS_PER_MILLION,
    )
