"""Settings of a pool whose replicas are actors of a Ray cluster, `kind = "ray"`."""

import re
from pathlib import Path
from typing import Literal

import msgspec

from steelyard.config.choices import EngineChoice, PrecisionChoice, SandboxChoice
from steelyard.errors import ConfigError

RayWork = Literal["engine", "embeddings", "tools"]

# Ray's own rule for values of labels, with its operators `!v`, `in(a,b)` and `!in(a,b)`.
_VALUE = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?"
_SELECTOR = re.compile(rf"!?{_VALUE}|!?in\({_VALUE}(?:, ?{_VALUE})*\)")
_MOST_REPLICAS = 4096


class RayPoolSettings(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag="ray",
    tag_field="kind",
):
    """A pool of embedded engines or tool workers on the nodes of a Ray cluster.

    Attributes:
        runs: What a replica is: an `engine` that generates text, one that makes `embeddings`, or
            a worker of `tools`.
        ray_address: The cluster, as Ray names it: `auto` for the one that this machine is a node
            of, or the host and port of its head.
        labels: Labels of the nodes that may be used, each a value, `!value`, `in(a,b)` or
            `!in(a,b)`; empty for all nodes.
        fallback_labels: Labels to look for instead, in this order, where no node has the first.
        min_replicas: Replicas that are always there.
        max_replicas: Replicas at most; between the two, queue and slack decide.
        cores: Cores of the node that a replica takes and pays for.
        offering: Catalogue name of the nodes that a replica is priced as; None takes what
            the labels name, or a common machine of their architecture.
        node_wait_s: How long a replica may wait for a node that an autoscaler of Ray's is to
            bring; 0 where nodes come and go by hand, and a selector that none fits is a mistake.
        engine: As in a pool of embedded engines, on every node.
        precision: As in a pool of embedded engines.
        model_path: As in a pool of embedded engines; the path is one on the nodes.
        model: As in a pool of embedded engines.
        concurrency_cap: Streams at once per replica of an engine.
        figures: As in a pool of embedded engines.
        slots: Tools at once per replica of tools.
        sandbox: As in a pool of tools, on every node.
        python_paths: Folders with the tools' modules, on every node.
        memory_bytes: As in a pool of tools.
        processes: As in a pool of tools.
        folder_bytes: As in a pool of tools.
    """

    runs: RayWork
    ray_address: str = "auto"
    labels: dict[str, str] = {}
    fallback_labels: tuple[dict[str, str], ...] = ()
    min_replicas: int = 1
    max_replicas: int = 4
    cores: float = 1.0
    offering: str | None = None
    node_wait_s: float = 0.0
    engine: EngineChoice = "auto"
    precision: PrecisionChoice = "auto"
    model_path: Path | None = None
    model: str = ""
    concurrency_cap: int = 16
    figures: Path | None = None
    slots: int = 2
    sandbox: SandboxChoice = "auto"
    python_paths: tuple[Path, ...] = ()
    memory_bytes: int = 2048 * 1024 * 1024
    processes: int = 64
    folder_bytes: int = 256 * 1024 * 1024


def check_ray(where: str, pool: RayPoolSettings) -> None:
    """Refuse values of a Ray pool that make no sense.

    Args:
        where: Place of the pool in its file, for the message.
        pool: Its settings.

    Raises:
        ConfigError: A value is wrong.
    """
    for key in ("min_replicas", "cores", "concurrency_cap", "slots", "memory_bytes", "processes"):
        if not getattr(pool, key) > 0:
            raise ConfigError(f"{where}.{key} is {getattr(pool, key)}; it must be greater than 0")
    if not pool.min_replicas <= pool.max_replicas <= _MOST_REPLICAS:
        raise ConfigError(
            f"{where}.max_replicas is {pool.max_replicas}; it must be min_replicas "
            f"({pool.min_replicas}) to {_MOST_REPLICAS}"
        )
    if pool.runs == "embeddings" and pool.engine == "llamacpp":
        raise ConfigError(f"{where}.engine is 'llamacpp'; embeddings are made with openvino")
    if pool.fallback_labels and not pool.labels:
        raise ConfigError(f"{where}.fallback_labels is never looked at; give labels, too")
    for selector in (pool.labels, *pool.fallback_labels):
        for key, value in selector.items():
            if _SELECTOR.fullmatch(value) is None:
                raise ConfigError(
                    f"{where}.labels: {key} is {value!r}; write a value, !value, in(a,b) or "
                    "!in(a,b)"
                )


def anchored_ray(pool: RayPoolSettings, folder: Path) -> RayPoolSettings:
    """A pool with its relative paths taken from a folder."""
    return msgspec.structs.replace(
        pool,
        model_path=None if pool.model_path is None else folder / pool.model_path,
        figures=None if pool.figures is None else folder / pool.figures,
        python_paths=tuple(folder / path for path in pool.python_paths),
    )
