"""How a fleet is rented, from a file: starts, preemption, replicas and prices over the day."""

import fnmatch
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from steelyard.config.convert import convert_table
from steelyard.config.unknown_keys import is_table, nearest, refuse_unknown
from steelyard.domain.pool import PoolSpec
from steelyard.errors import ConfigError
from steelyard.sim import Renting, Scaling

# Seconds between notice and end of a spot machine. AWS: EC2 User Guide, "Spot Instance interruption
# notices"; Azure: its documentation of Scheduled Events, "Preempt | 30 seconds" (azure-docs,
# linux/scheduled-events.md); GCP: up to 30 seconds, as others tell it. All read 2026-11-23.
_NOTICE_S = {"aws": 120.0, "azure": 30.0, "gcp": 30.0}
# Keys of a table that each field of `Renting` follows from; the others follow from their own.
_OF_SEVERAL_KEYS = {
    "start_s": frozenset(("start_s", "boot_s", "weights_gb", "load_gb_per_s")),
    "notice_s": frozenset(("notice_s", "preemptions_per_hour")),
}


class RentingEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table `[pools."NAME"]` of the file; see `Renting` for what is not told here.

    Attributes:
        start_s: Seconds from order to service; or `boot_s` and the loading of the weights.
        boot_s: Seconds until the machine has booted.
        weights_gb: Weights of all models that are loaded, in 10^9 bytes.
        load_gb_per_s: How fast they are loaded.
        preemptions_per_hour: See `Renting`.
        notice_s: See `Renting`; the provider's own where it is left out.
        replicas_by_hour: See `Renting`.
        usd_per_hour_by_hour: See `Renting`.
        bid_usd_per_hour_by_hour: See `Renting`.
        scaling: See `Renting`.
    """

    start_s: float | None = None
    boot_s: float = 0.0
    weights_gb: float = 0.0
    load_gb_per_s: float | None = None
    preemptions_per_hour: float = 0.0
    notice_s: float | None = None
    replicas_by_hour: tuple[int, ...] = ()
    usd_per_hour_by_hour: tuple[float, ...] = ()
    bid_usd_per_hour_by_hour: tuple[float, ...] = ()
    scaling: Scaling | None = None


class _File(msgspec.Struct, frozen=True, kw_only=True):
    pools: dict[str, RentingEntry] = {}


def read_renting(
    path: Path, pools: tuple[PoolSpec, ...], known: Mapping[str, Renting]
) -> dict[str, Renting]:
    """How are the pools rented, by a file's account?

    What the file says of a pool goes before what is known of it, key by key.

    Args:
        path: A TOML file with a table `[pools."NAME"]` per pool. A name may hold `*` for any text;
            a pool that a table names in full takes that one.
        pools: The fleet.
        known: Pool to its renting without the file.

    Returns:
        Pool to its renting; pools that no table names are as they were.

    Raises:
        ConfigError: The file cannot be read, a key or value is wrong, or a name fits no pool.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--renting {path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"--renting {path} is not TOML: {error}") from error
    refuse_unknown(path, "", table, _File, {})
    named = table.get("pools", {})
    if not is_table(named) or not named:
        raise ConfigError(f'--renting {path} names no pool; write tables [pools."NAME"]')
    entries = {name: _entry(path, name, value) for name, value in named.items()}
    found: dict[str, Renting] = {}
    for name, entry in entries.items():
        for spec in _fitting(path, name, pools):
            if spec.name == name or spec.name not in entries:
                if spec.name in found:
                    raise ConfigError(
                        f"--renting {path}: two tables fit pool {spec.name}; name it in full in one"
                    )
                told = _told(_renting_of(path, entry, spec), named[name])
                found[spec.name] = msgspec.structs.replace(known.get(spec.name, Renting()), **told)
    return {**known, **found}


def _told(renting: Renting, table: Mapping[str, Any]) -> dict[str, Any]:
    """What a table says, values that are the usual ones included."""
    return {
        field: getattr(renting, field)
        for field in Renting.__struct_fields__
        if not _OF_SEVERAL_KEYS.get(field, {field}).isdisjoint(table)
    }


def _entry(path: Path, name: str, value: Any) -> RentingEntry:  # noqa: ANN401 - TOML's values
    where = f'pools."{name}"'
    if not is_table(value):
        raise ConfigError(f"--renting {path}: {where} must be a table")
    refuse_unknown(path, f"{where}.", value, RentingEntry, {"scaling": Scaling})
    return convert_table(path, f"{where}", value, RentingEntry)


def _fitting(path: Path, name: str, pools: tuple[PoolSpec, ...]) -> list[PoolSpec]:
    fitting = [spec for spec in pools if fnmatch.fnmatchcase(spec.name, name) or spec.name == name]
    if not fitting:
        told = nearest(name, [spec.name for spec in pools])
        raise ConfigError(f"--renting {path}: {name!r} fits no pool of the fleet; {told}")
    return fitting


def _renting_of(path: Path, entry: RentingEntry, spec: PoolSpec) -> Renting:
    return Renting(
        start_s=_start_s(path, entry, spec),
        preemptions_per_hour=entry.preemptions_per_hour,
        notice_s=_notice_s(path, entry, spec),
        replicas_by_hour=entry.replicas_by_hour,
        scaling=entry.scaling,
        usd_per_hour_by_hour=entry.usd_per_hour_by_hour,
        bid_usd_per_hour_by_hour=entry.bid_usd_per_hour_by_hour,
    )


def _start_s(path: Path, entry: RentingEntry, spec: PoolSpec) -> float:
    if entry.start_s is not None:
        if entry.boot_s or entry.weights_gb:
            raise ConfigError(
                f"--renting {path}: {spec.name} has start_s and boot_s or weights_gb; give one"
            )
        return entry.start_s
    if not entry.weights_gb:
        return entry.boot_s
    if not entry.load_gb_per_s:
        raise ConfigError(
            f"--renting {path}: {spec.name} has weights_gb {entry.weights_gb:g} and no "
            "load_gb_per_s; give how fast they are loaded"
        )
    return entry.boot_s + entry.weights_gb / entry.load_gb_per_s


def _notice_s(path: Path, entry: RentingEntry, spec: PoolSpec) -> float:
    if entry.notice_s is not None:
        return entry.notice_s
    if entry.preemptions_per_hour == 0.0:
        return 0.0
    if spec.provider not in _NOTICE_S:
        raise ConfigError(
            f"--renting {path}: how long before a preemption {spec.provider} warns is not known; "
            f"give notice_s of {spec.name}"
        )
    return _NOTICE_S[spec.provider]
