"""From the settings of a Ray pool to its backend."""

import importlib.util

from steelyard.config.pool_settings import EmbeddedPoolSettings
from steelyard.config.ray_pools import replica_settings
from steelyard.config.ray_settings import RayPoolSettings
from steelyard.errors import MissingExtraError
from steelyard.pools.elastic import ElasticWatch
from steelyard.pools.ray.frames import EngineJob, Job, Open, ToolsJob
from steelyard.pools.ray.pool import RayEnginePool, RayToolPool

# Loading a model of gigabytes from a network disk takes minutes.
_START_S = 300.0


def ray_engines(name: str, pool: RayPoolSettings, watch: ElasticWatch) -> RayEnginePool:
    """A pool of engines on a cluster's nodes, not started.

    Args:
        name: Its name.
        pool: What it is.
        watch: Told of its replicas.

    Raises:
        MissingExtraError: Ray is not installed.
    """
    return RayEnginePool(_opened(name, pool), pool.max_replicas, watch)


def ray_tools(name: str, pool: RayPoolSettings, watch: ElasticWatch) -> RayToolPool:
    """The same of tool workers."""
    return RayToolPool(_opened(name, pool), pool.max_replicas, watch)


def _opened(name: str, pool: RayPoolSettings) -> Open:
    if importlib.util.find_spec("ray") is None:
        raise MissingExtraError(
            f"pools.{name} is a Ray pool and Ray is not installed; pip install 'steelyard[ray]'"
        )
    return Open(
        pool=name,
        address=pool.ray_address,
        job=_job(pool),
        selectors=(pool.labels, *pool.fallback_labels),
        cores=pool.cores,
        replicas=pool.min_replicas,
        start_s=_START_S,
        node_wait_s=pool.node_wait_s,
    )


def _job(pool: RayPoolSettings) -> Job:
    one = replica_settings(pool)
    if isinstance(one, EmbeddedPoolSettings):
        return EngineJob(
            task=one.task,
            engine=one.engine,
            precision=one.precision,
            model_path="" if one.model_path is None else str(one.model_path.resolve()),
            model=one.model,
            concurrency_cap=one.concurrency_cap,
        )
    return ToolsJob(
        slots=one.slots,
        sandbox=one.sandbox,
        python_paths=tuple(str(path.resolve()) for path in one.python_paths),
        cores=one.cores,
        memory_bytes=one.memory_bytes,
        processes=one.processes,
        folder_bytes=one.folder_bytes,
    )
