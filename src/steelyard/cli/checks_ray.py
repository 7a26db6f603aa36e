"""Could a pool's Ray cluster be reached? Asked without joining it, which would take seconds."""

import importlib.util
import socket
from pathlib import Path
from urllib.parse import urlsplit

from steelyard.cli.checks import Check, failed, good, warned
from steelyard.config.ray_settings import RayPoolSettings

# Where Ray notes the cluster that this machine is a node of (ray/_private/services.py, Ray 2.60).
_CURRENT = Path("/tmp/ray/ray_current_cluster")  # noqa: S108 - Ray's own, and only read
_ASK_S = 5.0
_HEAD_PORT = 6379


def ray_check(name: str, pool: RayPoolSettings, current: Path = _CURRENT) -> Check:
    """Is Ray installed, and does the head of the pool's cluster take connections?

    Args:
        name: Name of the pool.
        pool: Its settings.
        current: Ray's note of the cluster that this machine is a node of.

    Returns:
        The check. That nodes fit the pool's labels is seen when it starts.
    """
    if importlib.util.find_spec("ray") is None:
        return failed("pool", name, "Ray is not installed", "pip install 'steelyard[ray]'")
    address = pool.ray_address
    if address == "auto":
        if not current.is_file():
            told = "this machine is no node of a Ray cluster that `auto` would find"
            return warned("pool", name, told, "run `ray start`, or set ray_address of the pool")
        address = current.read_text(encoding="utf-8").strip()
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    what = f"{name} at {address}"
    try:
        host, port = parts.hostname or "", parts.port or _HEAD_PORT
        socket.create_connection((host, port), _ASK_S).close()
    except (OSError, ValueError) as error:
        cure = "start the cluster's head, or correct ray_address of the pool"
        return failed("pool", what, f"takes no connection: {error}", cure)
    return good("pool", what, "takes connections")
