"""Does what a configuration names work? Store, port, and the pools' servers and models."""

import os
import shutil
import socket
import tempfile
import time
from pathlib import Path
from urllib.error import HTTPError, URLError

import msgspec

from steelyard.cli.checks import Check, failed, good, warned
from steelyard.cli.checks_ray import ray_check
from steelyard.cli.plain_http import get
from steelyard.cli.store_choice import store_address
from steelyard.config.environment import secret
from steelyard.config.pool_settings import (
    EmbeddedPoolSettings,
    EndpointPoolSettings,
    McpPoolSettings,
    PoolSettings,
)
from steelyard.config.ray_settings import RayPoolSettings
from steelyard.config.settings import GatewaySection, Settings, StoreSection
from steelyard.errors import SteelyardError
from steelyard.pools.engine.embedding_model import find_embedding_model
from steelyard.pools.engine.model import find_model
from steelyard.store.open_store import is_postgres
from steelyard.store.reader import StoreReader
from steelyard.store.sqlite_log import read_events

_SLOW_FLUSH_S = 0.05
_FLUSHES = 5
_ASK_S = 5.0


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: tuple[_Model, ...] = ()


def store_checks(section: StoreSection) -> list[Check]:
    """Can the store be opened, is it of this version, and how fast is it on disk?"""
    try:
        address = store_address(section)
    except SteelyardError as error:
        return [failed("store", "password", str(error), "export the variable")]
    if is_postgres(address.where):
        return [_postgres_check(StoreReader(address))]
    path = Path(address.where)
    return [_sqlite_check(path), *_flush_checks(path)]


def _postgres_check(reader: StoreReader) -> Check:
    began_s = time.perf_counter()
    try:
        number = reader.last_number().result()
    except SteelyardError as error:
        return failed("store", "PostgreSQL", str(error), "see the message; then run this again")
    finally:
        reader.close()
    took_ms = 1e3 * (time.perf_counter() - began_s)
    return good("store", "PostgreSQL", f"{number} events; answered in {took_ms:.0f} ms")


def _sqlite_check(path: Path) -> Check:
    if not path.exists():
        return good("store", str(path), "does not exist yet; the first run makes it")
    try:
        next(read_events(path), None)
    except SteelyardError as error:
        cure = "name another file in [store] path, or move this one away"
        return failed("store", str(path), str(error), cure)
    # While a gateway writes, what is newest lies beside the file.
    parts = (path, path.with_name(f"{path.name}-wal"))
    size_bytes = sum(one.stat().st_size for one in parts if one.exists())
    return good("store", str(path), f"an event log of this version, {size_bytes:,} bytes")


def _flush_checks(path: Path) -> list[Check]:
    """How long does the disk take for a write that must be kept? On a file of its own."""
    try:
        with tempfile.TemporaryFile(dir=path.absolute().parent) as file:
            took_s: list[float] = []
            for _ in range(_FLUSHES):
                began_s = time.perf_counter()
                file.write(b"x" * 4096)
                file.flush()
                os.fsync(file.fileno())
                took_s.append(time.perf_counter() - began_s)
    except OSError as error:
        cure = f"let this user write to {path.absolute().parent}, or set [store] path elsewhere"
        return [failed("store", "folder", f"cannot be written: {error.strerror}", cure)]
    median_s = sorted(took_s)[_FLUSHES // 2]
    told = f"a flush takes {1e3 * median_s:.2f} ms, the median of {_FLUSHES}"
    if median_s <= _SLOW_FLUSH_S:
        return [good("store", "flush", told)]
    return [warned("store", "flush", told, "every answer waits for one; use a faster disk")]


def port_checks(section: GatewaySection) -> list[Check]:
    """Can the gateway listen where it shall?"""
    where = f"{section.host}:{section.port}"
    try:
        family = socket.AF_INET6 if ":" in section.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((section.host, section.port))
    except OSError as error:
        if _gateway_answers(section):
            return [good("port", where, "a gateway is listening there already")]
        cure = "stop what listens there (ss -ltnp), or set [gateway] host and port"
        return [failed("port", where, f"cannot be used: {error.strerror}", cure)]
    return [good("port", where, "free")]


def _gateway_answers(section: GatewaySection) -> bool:
    host = f"[{section.host}]" if ":" in section.host else section.host
    try:
        return b"steelyard_" in get(f"http://{host}:{section.port}/metrics", timeout_s=_ASK_S)
    except HTTPError as error:
        return error.code in (401, 403)
    except (OSError, ValueError):
        return False


def pool_checks(settings: Settings) -> list[Check]:
    """Do the pools' servers answer, and serve the models that are named?"""
    return [check for name, pool in settings.pools.items() for check in _pool_checks(name, pool)]


def _pool_checks(name: str, pool: PoolSettings) -> list[Check]:
    if isinstance(pool, EndpointPoolSettings):
        return [_endpoint_check(name, url, pool) for url in pool.base_urls]
    if isinstance(pool, McpPoolSettings):
        return [_mcp_check(name, pool)]
    if isinstance(pool, EmbeddedPoolSettings):
        return [_embedded_check(name, pool)]
    if isinstance(pool, RayPoolSettings):
        return [ray_check(name, pool)]
    return [good("pool", name, "tools run on this machine; see sandbox")]


def _endpoint_check(name: str, url: str, pool: EndpointPoolSettings) -> Check:
    what = f"{name} at {url}"
    try:
        key = "" if pool.api_key_env is None else secret(pool.api_key_env, "api_key_env")
        found = msgspec.json.decode(get(f"{url}/models", key, timeout_s=_ASK_S), type=_Models)
    except SteelyardError as error:
        return failed("pool", what, str(error), "export the variable with the key")
    except HTTPError as error:
        state = failed if error.code in (401, 403) else warned
        cure = "check base_urls, which end in /v1, and the key in api_key_env"
        return state("pool", what, f"answers /models with status {error.code}", cure)
    except (URLError, OSError, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        cure = "start the server, or correct base_urls of the pool"
        return failed("pool", what, f"cannot be asked: {reason}", cure)
    served = {one.id for one in found.data}
    missing = [one for one in pool.models if one not in served]
    if missing:
        told = f"does not list {', '.join(missing)}; it lists {', '.join(sorted(served)) or 'none'}"
        return failed("pool", what, told, "correct models of the pool, or load them there")
    return good("pool", what, f"serves {', '.join(pool.models)}")


def _mcp_check(name: str, pool: McpPoolSettings) -> Check:
    if pool.command:
        program = shutil.which(pool.command[0])
        if program is None:
            cure = "install it, or correct command of the pool"
            return failed("pool", name, f"program {pool.command[0]} is not found", cure)
        return good("pool", name, f"would start {program}")
    try:
        get(pool.url, timeout_s=_ASK_S)
    except HTTPError:
        # It speaks POST; any answer at all shows that it is there.
        return good("pool", f"{name} at {pool.url}", "answers")
    except (OSError, ValueError) as error:
        cure = "start the server, or correct url of the pool"
        return failed("pool", f"{name} at {pool.url}", f"cannot be asked: {error}", cure)
    return good("pool", f"{name} at {pool.url}", "answers")


def _embedded_check(name: str, pool: EmbeddedPoolSettings) -> Check:
    try:
        if pool.task == "embeddings":
            told = str(find_embedding_model(pool.model_path).name)
        else:
            told = Path(find_model(pool.model_path).path).name
    except SteelyardError as error:
        return failed("pool", name, str(error), "set model_path of the pool, or install the model")
    return good("pool", name, f"{pool.model} from {told}")
