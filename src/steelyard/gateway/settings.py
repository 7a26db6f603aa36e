"""What may be set about the gateway: where it listens, who may call, and how much it takes."""

import ipaddress

import msgspec

from steelyard.domain.task import OnMiss
from steelyard.errors import ConfigError

_MIB = 1024 * 1024


class GatewayLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much one client may ask of the gateway.

    Attributes:
        body_bytes: Longest request body.
        head_bytes: Longest request line and headers together.
        json_depth: Deepest nesting of a request body.
        head_timeout_s: Seconds in which the headers of a request must have arrived.
        body_timeout_s: Seconds in which a request body must have arrived.
        request_timeout_s: Seconds after which an unfinished answer is given up.
        idle_timeout_s: Seconds that an unused connection is kept.
        shutdown_timeout_s: Seconds that open requests get to finish when the server stops.
        max_connections: Connections and requests at once; more get 503.
    """

    body_bytes: int = 10 * _MIB
    head_bytes: int = 64 * 1024
    json_depth: int = 64
    head_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    request_timeout_s: float = 600.0
    idle_timeout_s: int = 75
    shutdown_timeout_s: int = 10
    max_connections: int = 4096


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the gateway listens and who may call it.

    Attributes:
        host: Address to bind.
        port: Port to bind; 0 takes a free one.
        api_keys: Keys of which a client must present one, each the secret itself or
            `sha256:` and the 64 hex digits of its hash. Without keys only this machine may call.
            They open everything; minted keys of the store open what their terms say.
        require_key: Whether a key is needed even where `api_keys` is empty: a minted one then.
        on_miss: What happens to a request that no pool can answer by its deadline, unless its
            `Steelyard-On-Miss` header says otherwise.
        access_log: Whether each request is logged as one line of JSON.
        task_idle_s: Seconds of silence after which a task that only requests name is over.
        traced: Whether spans of steps are kept, so that endpoints are told of them.
        limits: How much one client may ask.

    Raises:
        ConfigError: Another machine could call without a key, or a key is malformed.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    api_keys: tuple[str, ...] = ()
    require_key: bool = False
    on_miss: OnMiss = "run_late"
    access_log: bool = False
    task_idle_s: float = 600.0
    traced: bool = False
    limits: GatewayLimits = GatewayLimits()

    def __post_init__(self) -> None:
        """Refuse what would leave the gateway open."""
        if any(not key.strip() or not key.isascii() for key in self.api_keys):
            msg = "gateway.api_keys holds an empty or non-ASCII key; remove it"
            raise ConfigError(msg)
        if not self.api_keys and not self.require_key and not is_loopback(self.host):
            msg = (
                f"gateway.host = {self.host!r} lets other machines call without a key; set "
                "gateway.api_keys or gateway.require_key, or bind 127.0.0.1"
            )
            raise ConfigError(msg)
        if not self.task_idle_s > 0.0:
            msg = f"gateway.task_idle_s = {self.task_idle_s} is not above 0; use e.g. 600"
            raise ConfigError(msg)
        if not 0 <= self.port <= 65535:
            msg = f"gateway.port = {self.port} is not a port; use 0 (a free one) to 65535"
            raise ConfigError(msg)

    def __repr__(self) -> str:
        """Show everything but the keys, since this ends up in logs and tracebacks."""
        return (
            f"GatewaySettings(host={self.host!r}, port={self.port}, "
            f"api_keys=<{len(self.api_keys)} hidden>, require_key={self.require_key}, "
            f"on_miss={self.on_miss!r}, "
            f"access_log={self.access_log}, task_idle_s={self.task_idle_s}, "
            f"traced={self.traced}, limits={self.limits!r})"
        )


def is_loopback(host: str) -> bool:
    """Can this host name or address be reached from this machine alone?

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
