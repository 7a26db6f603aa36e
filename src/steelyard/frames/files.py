"""Files as what frames are made of."""

from pathlib import Path

import msgspec

from steelyard.domain.workload import Workload
from steelyard.errors import ConfigError
from steelyard.ledger.ledger import Ledger
from steelyard.planner.plan import FleetPlan
from steelyard.store.imports.read import import_workload
from steelyard.store.sqlite_log import read_events


def read_workload(path: str | Path) -> Workload:
    """Which workload does a file hold?

    Args:
        path: A workload, an event log, or a trace of others that `steelyard workload convert`
            reads; the format is told from the content.

    Raises:
        WorkloadError: It cannot be read.
    """
    return import_workload(Path(path)).workload


def read_plan(path: str | Path) -> FleetPlan:
    """Which plan does a file hold?

    Args:
        path: As `steelyard plan --out` wrote it.

    Raises:
        ConfigError: It cannot be read, or is no plan.
    """
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=FleetPlan)
    except OSError as error:
        raise ConfigError(f"plan {path} cannot be read: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f"plan {path} is no plan: {error}; write one with `steelyard plan --out`"
        ) from error


def read_ledger(path: str | Path) -> Ledger:
    """What happened, by an event log?

    Args:
        path: SQLite file of a store.

    Raises:
        StoreError: It is missing or unreadable.
        SchemaMismatchError: It is no event log.
    """
    return Ledger.of(read_events(Path(path)))
