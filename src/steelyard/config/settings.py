"""Settings of a running system: one TOML file, parsed once into frozen structs.

Every setting says what is wanted, not how it is done. Unknown keys are refused with the nearest
valid name.
"""

import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from steelyard.config.aliases import AliasSettings, check_aliases
from steelyard.config.convert import convert_table
from steelyard.config.limits import LimitsSection, check_limits
from steelyard.config.pool_settings import (
    POOL_KINDS,
    CurveSettings,
    McpPoolSettings,
    PoolSettings,
    TokenPriceSettings,
    ToolPoolSettings,
    anchored_pool,
    check_pool,
)
from steelyard.config.ray_settings import RayPoolSettings
from steelyard.config.unknown_keys import is_table, nearest, refuse_unknown
from steelyard.errors import ConfigError


class GatewaySection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the gateway listens and whom it lets in.

    Attributes:
        host: Address to listen on; anything but loopback needs keys.
        port: TCP port; 0 takes a free one.
        api_keys_file: File with one key per line; None lets everybody on this machine in.
        require_key: Whether a key is needed also where there is no file: one of
            `steelyard keys create` then.
        max_body_bytes: Longest request body.
        drain_s: Seconds that open requests get to finish when the gateway stops.
        unready_s: Seconds for which a gateway that is told to stop first serves on while /readyz
            says 503, so that load balancers take it out.
        request_log: Whether to write one line of JSON per request to standard error.
        task_idle_s: Seconds of silence after which a task that only requests name is over; a later
            request begins it anew.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    api_keys_file: Path | None = None
    require_key: bool = False
    max_body_bytes: int = 10 * 1024 * 1024
    drain_s: int = 30
    unready_s: int = 0
    request_log: bool = False
    task_idle_s: float = 600.0


class StoreSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the event log and its tasks lie.

    Attributes:
        path: SQLite file; made if missing.
        url: `postgresql://` URL of a database instead of `path`, without a password; empty for
            `path`.
        password_env: Name of the environment variable that holds the password of `url`; None
            leaves it to libpq: `PGPASSWORD`, or its password file.
        share_load: Whether processes on one store tell each other how busy they keep endpoints, and
            keep to a replica's cap together.
    """

    path: Path = Path("steelyard.db")
    url: str = ""
    password_env: str | None = None
    share_load: bool = True


class PolicySection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which policy places steps.

    Attributes:
        name: A policy's name.
    """

    name: str = "cheapest_feasible"


class DashboardSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the dashboard shows beside the live fleet.

    Attributes:
        plan: The plan in force, as `steelyard plan --out` writes it; None without one.
        plan_settings: What new plans keep to, as `steelyard plan --config` takes it; None for the
            defaults.
    """

    plan: Path | None = None
    plan_settings: Path | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings; the file's sections.

    Attributes:
        pools: By name, `[pools.NAME]`.
        gateway: `[gateway]`.
        store: `[store]`.
        policy: `[policy]`.
        limits: `[limits.agents.NAME]` and `[limits.pools.NAME]`.
        dashboard: `[dashboard]`.
        aliases: Further names of models, `[aliases.NAME]`.
    """

    pools: dict[str, PoolSettings] = {}
    gateway: GatewaySection = GatewaySection()
    store: StoreSection = StoreSection()
    policy: PolicySection = PolicySection()
    limits: LimitsSection = LimitsSection()
    dashboard: DashboardSection = DashboardSection()
    aliases: dict[str, AliasSettings] = {}


_NESTED: dict[str, type[msgspec.Struct]] = {
    "gateway": GatewaySection,
    "store": StoreSection,
    "policy": PolicySection,
    "limits": LimitsSection,
    "dashboard": DashboardSection,
    "curve": CurveSettings,
    "token_price": TokenPriceSettings,
}


def load_settings(path: Path) -> Settings:
    """What does a configuration file say?

    Args:
        path: A TOML file.

    Returns:
        The settings. Relative paths in it are taken from the file's folder.

    Raises:
        ConfigError: The file is missing or no TOML, or a key or value is wrong.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"configuration {path} does not exist; copy steelyard.example.toml there"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration {path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"configuration {path} is not TOML: {error}") from error
    _refuse_unknown(path, table)
    pools = {
        name: convert_table(path, f"pools.{name}", pool, POOL_KINDS[pool["kind"]])
        for name, pool in table.pop("pools", {}).items()
    }
    aliases = {
        name: convert_table(path, f"aliases.{name}", alias, AliasSettings)
        for name, alias in table.pop("aliases", {}).items()
    }
    settings = convert_table(path, "", table, Settings)
    settings = msgspec.structs.replace(settings, pools=pools, aliases=aliases)
    _check_values(path, settings)
    settings = _anchored(settings, path.parent)
    _check_hidden(path, settings)
    return settings


def _refuse_unknown(path: Path, table: dict[str, Any]) -> None:
    refuse_unknown(path, "", table, Settings, _NESTED)
    if not is_table(table.get("aliases", {})):
        raise ConfigError(f"configuration {path}: aliases is no table; write [aliases.NAME]")
    pools = table.get("pools", {})
    if not is_table(pools):
        raise ConfigError(f"configuration {path}: pools is no table; write [pools.NAME]")
    for name, pool in pools.items():
        where = f"pools.{name}"
        if not is_table(pool):
            raise ConfigError(f"configuration {path}: {where} is no table; write [{where}]")
        kind = str(pool.get("kind"))
        if kind not in POOL_KINDS:
            raise ConfigError(
                f"configuration {path}: {where}.kind is {kind}; {nearest(kind, [*POOL_KINDS])}"
            )
        refuse_unknown(path, f"{where}.", pool, POOL_KINDS[kind], _NESTED)


def _check_values(path: Path, settings: Settings) -> None:
    if not 0 <= settings.gateway.port <= 65535:
        raise ConfigError(
            f"configuration {path}: gateway.port is {settings.gateway.port}; it must be 0 to 65535"
        )
    if settings.gateway.max_body_bytes == 0:
        raise ConfigError(
            f"configuration {path}: gateway.max_body_bytes is 0; it must be greater than 0"
        )
    _check_store(f"configuration {path}: store", settings.store)
    if not settings.pools:
        raise ConfigError(
            f"configuration {path} declares no pools; add one, e.g. [pools.local] with "
            'kind = "embedded"'
        )
    check_limits(path, settings.limits, [*settings.pools])
    check_aliases(path, settings.aliases, settings.pools)
    for name, pool in settings.pools.items():
        check_pool(f"configuration {path}: pools.{name}", pool)


def _check_store(where: str, store: StoreSection) -> None:
    """A URL is shown nowhere here: it may hold what it should not."""
    if store.password_env is not None and not store.url:
        raise ConfigError(f"{where}.password_env is set without {where}.url; give the URL, too")
    if store.url and not store.url.startswith(("postgresql://", "postgres://")):
        raise ConfigError(
            f"{where}.url is no postgresql:// URL; write postgresql://USER@HOST/DATABASE, or give "
            "a SQLite file as path"
        )
    secrets = parse_qs(urlsplit(store.url).query, keep_blank_values=True)
    if ":" in urlsplit(store.url).netloc.rpartition("@")[0] or "password" in secrets:
        raise ConfigError(
            f"{where}.url holds a password; take it out, and name an environment variable in "
            "password_env, or use libpq's password file"
        )


def _check_hidden(path: Path, settings: Settings) -> None:
    """Refuse to show tools the event log or the keys."""
    hidden = {
        "store.path": settings.store.path,
        "gateway.api_keys_file": settings.gateway.api_keys_file,
    }
    for name, pool in settings.pools.items():
        if isinstance(pool, ToolPoolSettings | RayPoolSettings):
            key_of_folders, folders = "python_paths", pool.python_paths
        elif isinstance(pool, McpPoolSettings):
            key_of_folders, folders = "readable", pool.readable
        else:
            continue
        for folder in () if pool.sandbox == "off" else folders:
            for key, file in hidden.items():
                if file is not None and file.resolve().is_relative_to(folder.resolve()):
                    raise ConfigError(
                        f"configuration {path}: pools.{name}.{key_of_folders} holds {folder}, "
                        f"where tools would read {key}; put them into a folder of their own"
                    )


def _anchored(settings: Settings, folder: Path) -> Settings:
    """Relative paths are meant from the file's folder, wherever the command is called."""
    gateway, store = settings.gateway, settings.store
    if gateway.api_keys_file is not None:
        keys = folder / gateway.api_keys_file
        gateway = msgspec.structs.replace(gateway, api_keys_file=keys)
    store = msgspec.structs.replace(store, path=folder / store.path)
    pools = {name: anchored_pool(pool, folder) for name, pool in settings.pools.items()}
    shown = settings.dashboard
    shown = msgspec.structs.replace(
        shown,
        plan=None if shown.plan is None else folder / shown.plan,
        plan_settings=None if shown.plan_settings is None else folder / shown.plan_settings,
    )
    return msgspec.structs.replace(
        settings, gateway=gateway, store=store, pools=pools, dashboard=shown
    )
