"""Which recorded run, plan or simulation does an argument of `steelyard report` mean?"""

import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from steelyard.cli.fleet_file import read_plan
from steelyard.config.unknown_keys import is_table
from steelyard.errors import ConfigError
from steelyard.ledger.health import Health, HealthSpan
from steelyard.ledger.ledger import Ledger
from steelyard.ledger.run_figures import RunFigures
from steelyard.planner.plan import FleetPlan
from steelyard.report.provider_plots import Mark
from steelyard.store.event_store import read_store
from steelyard.store.open_store import is_postgres, open_store
from steelyard.store.sqlite_log import read_events

_IN_URL = re.compile(r"(://[^/@:\s]*):[^/@\s]*(?=@)")
_PASSWORD = re.compile(r"password=[^&\s]*")


class Simulated(msgspec.Struct, frozen=True, kw_only=True):
    """What `steelyard simulate --json` printed, as far as a report needs it.

    Attributes:
        policy: The policy that was asked for first.
        runs: Figures by policy.
    """

    policy: str
    runs: dict[str, RunFigures]


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What an argument means; exactly one of the three is set.

    Attributes:
        label: The argument.
        ledger: Books of a recorded run.
        plan: A plan.
        simulated: Simulated runs.
        health: When pools of a recorded run were not whole.
    """

    label: str
    ledger: Ledger | None = None
    health: tuple[HealthSpan, ...] = ()
    plan: FleetPlan | None = None
    simulated: Simulated | None = None

    @property
    def sort(self) -> str:
        """`run`, `plan` or `simulation`."""
        if self.ledger is not None:
            return "run"
        return "plan" if self.plan is not None else "simulation"


def shown(where: str) -> str:
    """A source for people, without a password that its URL may hold.

    >>> shown("postgresql://me:secret@host/db?password=x"), shown("events.db")
    ('postgresql://me@host/db?password=***', 'events.db')
    """
    return _PASSWORD.sub("password=***", _IN_URL.sub(r"\1", where))


def read_source(where: str) -> Told:
    """What does an argument mean?

    Args:
        where: A store (`postgresql://` URL or SQLite file), a plan of `steelyard plan --out`, or
            what `steelyard simulate --json` printed.

    Returns:
        Its contents.

    Raises:
        ConfigError: It is none of these.
        StoreError: The log cannot be read.
    """
    if not is_postgres(where) and _looks_like_json(Path(where)):
        table = _json_table(Path(where))
        if "machines" in table:
            return Told(label=where, plan=read_plan(Path(where)))
        return Told(label=where, simulated=read_simulated(Path(where)))
    return _recorded(where)


def _looks_like_json(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(64).lstrip().startswith((b"{", b"["))
    except OSError:
        # What is missing or a folder is told of by the reader of logs.
        return False


def _json_table(path: Path) -> dict[str, Any]:
    try:
        found: object = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}") from error
    if not is_table(found):
        raise ConfigError(
            f"{path} is neither a plan nor a simulation; give what `steelyard plan --out` or"
            " `steelyard simulate --json` wrote, or an event log"
        )
    return found


def _recorded(where: str) -> Told:
    ledger, health = Ledger(), Health()
    with ExitStack() as stack:
        if is_postgres(where):
            events = read_store(stack.enter_context(open_store(where)))
        else:
            events = read_events(Path(where))
        for event in events:
            ledger.apply(event)
            health.apply(event)
    if not ledger.tasks:
        raise ConfigError(
            f"event log {where} holds no task that ended; run something first, or give another log"
        )
    return Told(label=where, ledger=ledger, health=health.spans())


def read_marks(path: Path) -> tuple[Mark, ...]:
    """Which moments does a file mark?

    Args:
        path: JSON: `[{"t_s": 1795426616.7, "label": "ash: cut off", "pool": "ash"}]`; `t_s` is on
            the log's clock, seconds since 1970 of a live run, and `pool` may be left out.

    Raises:
        ConfigError: It cannot be read, or has another form.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=tuple[Mark, ...])
    except OSError as error:
        raise ConfigError(f"marks {path} cannot be read: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f'marks {path} are none: {error}; give [{{"t_s": ..., "label": "..."}}]'
        ) from error


def read_simulated(path: Path) -> Simulated:
    """Which simulation does a file hold?

    Args:
        path: What `steelyard simulate --json` printed.

    Raises:
        ConfigError: It cannot be read, or is none.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Simulated)
    except OSError as error:
        raise ConfigError(f"simulation {path} cannot be read: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f"simulation {path} is none: {error}; write one with `steelyard simulate --json > FILE`"
        ) from error
    if found.policy not in found.runs:
        raise ConfigError(f"simulation {path} has no run of its own policy {found.policy!r}")
    return found
