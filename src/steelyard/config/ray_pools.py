"""What one replica of a Ray pool is, and what it costs."""

from steelyard.config.environment import machine_arch
from steelyard.config.pool_settings import EmbeddedPoolSettings, ToolPoolSettings
from steelyard.config.ray_settings import RayPoolSettings
from steelyard.domain.offering import Arch

_OPERATORS = ("!", "in(")


def replica_settings(pool: RayPoolSettings) -> EmbeddedPoolSettings | ToolPoolSettings:
    """As which pool of one node does a replica run?

    Args:
        pool: The Ray pool.

    Returns:
        The settings of a pool of one replica. It is not priced: see `offering_name`.
    """
    if pool.runs == "tools":
        return ToolPoolSettings(
            slots=pool.slots,
            cores=pool.cores,
            offering=offering_name(pool),
            sandbox=pool.sandbox,
            python_paths=pool.python_paths,
            memory_bytes=pool.memory_bytes,
            processes=pool.processes,
            folder_bytes=pool.folder_bytes,
        )
    return EmbeddedPoolSettings(
        task="embeddings" if pool.runs == "embeddings" else "generate",
        engine=pool.engine,
        precision=pool.precision,
        model_path=pool.model_path,
        model=pool.model,
        concurrency_cap=pool.concurrency_cap,
        offering=offering_name(pool),
        figures=pool.figures,
    )


def offering_name(pool: RayPoolSettings) -> str | None:
    """As which offering are the pool's nodes priced? What is set, or what the labels say.

    None where neither says it: a common machine of their architecture then.

    >>> offering_name(RayPoolSettings(runs="tools", labels={"provider": "aws",
    ...     "region": "us-east-1", "instance_type": "m9g.large", "capacity_type": "spot"}))
    'aws/us-east-1/m9g.large/spot'
    """
    if pool.offering is not None:
        return pool.offering
    parts = [exact_label(pool, key) for key in ("provider", "region", "instance_type")]
    capacity_type = exact_label(pool, "capacity_type")
    if all(parts) and capacity_type:
        return "/".join([*parts, capacity_type])
    if parts[0] and parts[2]:
        return f"{parts[0]}/{parts[2]}"
    return None


def exact_label(pool: RayPoolSettings, key: str) -> str:
    """Which value must the label of every node have? Empty where more than one will do."""
    value = pool.labels.get(key, "")
    return "" if pool.fallback_labels or value.startswith(_OPERATORS) else value


def node_arch(pool: RayPoolSettings) -> Arch:
    """Of which architecture are the pool's nodes? This machine's, where the labels do not say."""
    arch = exact_label(pool, "arch")
    return "arm64" if arch == "arm64" else "x86_64" if arch == "x86_64" else machine_arch()
