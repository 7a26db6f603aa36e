"""Which fleet does a file describe? A plan, a configuration's pools, or pools as JSON."""

from pathlib import Path
from typing import NamedTuple

import msgspec

from steelyard.cli.day_fleet import FleetByHour
from steelyard.config.catalog_table import Catalog, hardware_key
from steelyard.config.settings import load_settings
from steelyard.config.spend_caps import capped_specs
from steelyard.config.unknown_keys import is_table
from steelyard.domain.pool import PoolSpec
from steelyard.errors import ConfigError
from steelyard.ledger.power import ReplicaFacts
from steelyard.planner.plan import FleetPlan
from steelyard.planner.pools import pools_of
from steelyard.sim import Renting


class GivenFleet(NamedTuple):
    """A fleet as a file gives it.

    Attributes:
        pools: Its pools.
        bids_usd_per_hour: Bid prices that its plan gives; empty without a plan.
        tasks_per_s: Rate that it was planned for; None without a plan.
        facts: What a replica of each pool is made of, by pool.
        renting: How replicas of a pool are rented, by pool; others are there all the time.
    """

    pools: tuple[PoolSpec, ...]
    bids_usd_per_hour: dict[str, float]
    tasks_per_s: float | None
    facts: dict[str, ReplicaFacts]
    renting: dict[str, Renting]


def read_fleet(path: Path, catalog: Catalog) -> GivenFleet:
    """Which fleet does a file describe?

    Args:
        path: plan.json of `steelyard plan --out` or the demo; the file of `--fleet-by-hour`; a
            TOML configuration with pools; or a JSON list of pools, as the log's `pool_added`
            events hold them.
        catalog: What plans and configurations were made from.

    Returns:
        The fleet.

    Raises:
        ConfigError: It cannot be read, or is none of these.
    """
    if path.suffix == ".toml":
        settings = load_settings(path)
        pools = capped_specs(settings.pools, settings.limits, catalog)
        return GivenFleet(pools, {}, None, replica_facts(pools, catalog), {})
    if _text(path).lstrip().startswith(b"["):
        try:
            pools = msgspec.json.decode(_text(path), type=tuple[PoolSpec, ...])
        except msgspec.MsgspecError as error:
            raise ConfigError(f"--fleet {path} is no list of pools: {error}") from error
        if not pools:
            raise ConfigError(f"--fleet {path} holds no pool; add one, or give a plan")
        return GivenFleet(pools, {}, None, replica_facts(pools, catalog), {})
    if _is_by_hour(path):
        return _by_hour(path, catalog)
    plan = read_plan(path)
    pools = pools_of(plan, catalog)
    bids = {machines.offering: machines.bid_usd_per_hour for machines in plan.machines}
    return GivenFleet(pools, bids, plan.tasks_per_s, replica_facts(pools, catalog), {})


def _is_by_hour(path: Path) -> bool:
    try:
        table: object = msgspec.json.decode(_text(path))
    except msgspec.DecodeError:
        return False
    return is_table(table) and "pools" in table and "machines" not in table


def _by_hour(path: Path, catalog: Catalog) -> GivenFleet:
    try:
        fleet = msgspec.json.decode(_text(path), type=FleetByHour)
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f"--fleet {path} is no fleet by the hour: {error}; write one with `steelyard plan "
            "--fleet-by-hour`"
        ) from error
    return GivenFleet(
        fleet.pools, {}, fleet.tasks_per_s, replica_facts(fleet.pools, catalog), fleet.renting
    )


def read_plan(path: Path) -> FleetPlan:
    """Which plan does a file hold?

    Args:
        path: A plan as `steelyard plan --out` or the demo wrote it.

    Raises:
        ConfigError: It cannot be read, or is no plan.
    """
    try:
        return msgspec.json.decode(_text(path), type=FleetPlan)
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f"plan {path} is no plan: {error}; write one with `steelyard plan --out`"
        ) from error


def _text(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"plan {path} cannot be read: {error.strerror}") from error


def replica_facts(pools: tuple[PoolSpec, ...], catalog: Catalog) -> dict[str, ReplicaFacts]:
    """What is a replica of each pool made of, as far as the catalogue knows?

    Args:
        pools: The pools.
        catalog: Offerings with facts.

    Returns:
        By pool; those without an offering in the catalogue are left out.
    """
    found: dict[str, ReplicaFacts] = {}
    offerings = {offering.name: offering for offering in catalog.offerings}
    for spec in pools:
        offering = offerings.get(spec.offering)
        if offering is None:
            continue
        known = catalog.facts.get(hardware_key(offering))
        # A replica may be a share of a machine, priced and powered as such.
        share = spec.usd_per_hour / offering.usd_per_hour if offering.usd_per_hour > 0.0 else 1.0
        found[spec.name] = ReplicaFacts(
            gpus=offering.instance_type.accelerator_count,
            watts_idle=None
            if known is None or known.watts_idle is None
            else known.watts_idle * min(1.0, share),
            watts_max=None
            if known is None or known.watts_max is None
            else known.watts_max * min(1.0, share),
        )
    return found
