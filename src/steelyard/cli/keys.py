"""What `steelyard keys ...` does with a store."""

import datetime as dt
import hashlib
import math
import re
import secrets
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from steelyard.cli.limits import seconds
from steelyard.domain.key import KEY_PREFIX, ApiKey, KeyTerms
from steelyard.errors import ConfigError, StoreError
from steelyard.gateway.keys_ring import SEEN_WITHIN_S
from steelyard.store.event_store import EventStore
from steelyard.store.keys_sql import Periods, Spend
from steelyard.store.open_store import open_store

_ID_BYTES = 8
_SECRET_BYTES = 32
_NAME = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,126}[\x21-\x7e])?")
_TASK_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")
# Attribute, its option, its unit.
_AMOUNTS = (
    ("budget_usd", "--budget", "USD"),
    ("budget_usd_per_day", "--budget-per-day", "USD"),
    ("budget_usd_per_month", "--budget-per-month", "USD"),
    ("requests_per_s", "--requests-per-s", "requests"),
    ("tokens_per_min", "--tokens-per-min", "tokens"),
)


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is asked for; see `KeyTerms`.

    Attributes:
        deadline: Of its task, from now; None without one.
        expires: A duration, or an RFC 3339 time; None for never.
    """

    name: str
    agent: str = ""
    team: str = ""
    task_id: str = ""
    deadline: str | None = None
    budget_usd: float | None = None
    budget_usd_per_day: float | None = None
    budget_usd_per_month: float | None = None
    requests_per_s: float | None = None
    tokens_per_min: float | None = None
    pools: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    expires: str | None = None
    control: bool = False

    def terms(self, now_s: float) -> KeyTerms:
        """What the key allows.

        Args:
            now_s: Seconds since 1970.

        Raises:
            ConfigError: Something of it makes no sense.
        """
        for what in ("name", "agent", "team"):
            text: str = getattr(self, what)
            if (text or what == "name") and not _NAME.fullmatch(text):
                raise ConfigError(f"{what} {text[:80]!a} is none; take 1-128 printable characters")
        if self.task_id and not _TASK_ID.fullmatch(self.task_id):
            raise ConfigError(f"--task {self.task_id[:80]!a} is none; take letters, digits, ._:-")
        for what, option, unit in _AMOUNTS:
            amount: float | None = getattr(self, what)
            if amount is not None and not 0.0 < amount < math.inf:
                raise ConfigError(
                    f"{option} is {amount:g} {unit}; it must be greater than 0; without it, there "
                    "is no limit"
                )
        if self.deadline is not None and not self.task_id:
            raise ConfigError("--deadline is a task's; give --task, too")
        return KeyTerms(
            name=self.name,
            agent=self.agent,
            team=self.team,
            task_id=self.task_id,
            deadline_s=None
            if self.deadline is None
            else now_s + seconds("--deadline", self.deadline),
            budget_usd=self.budget_usd,
            budget_usd_per_day=self.budget_usd_per_day,
            budget_usd_per_month=self.budget_usd_per_month,
            requests_per_s=self.requests_per_s,
            tokens_per_min=self.tokens_per_min,
            pools=self.pools,
            models=self.models,
            expires_s=None if self.expires is None else _moment_s(self.expires, now_s),
            control=self.control,
        )


def run_create(where: str, wanted: NewKey, *, as_json: bool) -> None:
    """Make a key and print it.

    Args:
        where: The store; made if missing.
        wanted: What it allows.
        as_json: One JSON object instead of the key alone.

    Raises:
        ConfigError: The name is taken, or something makes no sense.
    """
    now_s = time.time()
    key_id = secrets.token_hex(_ID_BYTES)
    token, digest = _secret(key_id)
    key = ApiKey(key_id=key_id, digest=digest, terms=wanted.terms(now_s), created_s=now_s)
    with open_store(where) as store:
        for known in store.keys.changed_after(0).result():
            if known.terms.name == wanted.name and not known.revoked_s:
                raise ConfigError(
                    f"key {known.key_id} is called {wanted.name!r} already; take another name, or "
                    "rotate that one"
                )
        _put(store, key)
    _print_token(token, key, as_json=as_json)


def run_list(where: str, *, as_json: bool) -> None:
    """Print all keys.

    Args:
        where: The store.
        as_json: A JSON list instead of a table.
    """
    with _existing(where) as store:
        keys = store.keys.changed_after(0).result()
        spends = store.keys.spends().result()
    keys.sort(key=lambda key: (key.created_s, key.key_id))
    if as_json:
        print(msgspec.json.encode([_told(key, spends) for key in keys]).decode())
        return
    table = Table("key", "name", "for", "state", "spent (USD)", "budget (USD)")
    for key in keys:
        told = _told(key, spends)
        budget = key.terms.budget_usd
        table.add_row(
            *(key.key_id, key.terms.name, _owner(key.terms), told["state"]),
            f"{told['spent_usd']:.6f}",
            "" if budget is None else f"{budget:g}",
        )
    Console(markup=False).print(table)


def run_show(where: str, wanted: str, *, as_json: bool) -> None:
    """Print one key and what it used.

    Args:
        where: The store.
        wanted: Id or name of the key.
        as_json: One JSON object instead of tables.
    """
    with _existing(where) as store:
        key = _found(store, wanted)
        spends = [one for one in store.keys.spends().result() if one.key_id == key.key_id]
        holds = [one for one in store.keys.holds().result() if one.key_id == key.key_id]
    told = _told(key, spends)
    told["held_usd"] = math.fsum(one.held_usd for one in holds)
    told["lost_usd"] = math.fsum(one.lost_usd for one in holds)
    told["periods"] = [one._asdict() for one in spends]
    if as_json:
        print(msgspec.json.encode(told).decode())
        return
    for name, value in told.items():
        if name != "periods" and value not in (None, "", []):
            print(f"{name}: {value}")
    table = Table("period", "spent (USD)", "tokens", "requests")
    for one in spends:
        table.add_row(one.period, f"{one.spent_usd:.6f}", str(one.tokens), str(one.requests))
    Console(markup=False).print(table)


def run_revoke(where: str, wanted: str, *, as_json: bool) -> None:
    """Take a key back.

    Args:
        where: The store.
        wanted: Id or name of the key.
        as_json: Print JSON.
    """
    with _existing(where) as store:
        key = _found(store, wanted)
        if not key.revoked_s:
            key = msgspec.structs.replace(key, revoked_s=time.time())
            _put(store, key)
    if as_json:
        print(msgspec.json.encode(_told(key, [])).decode())
        return
    print(f"{key.key_id}: revoked")


def run_rotate(where: str, wanted: str, grace: str, *, as_json: bool) -> None:
    """Give a key a new secret and print it.

    Args:
        where: The store.
        wanted: Id or name of the key.
        grace: For how long the old one is valid, too.
        as_json: One JSON object instead of the key alone.

    Raises:
        ConfigError: The key is revoked.
    """
    grace_s = seconds("--grace", grace, may_be_none=True)
    with _existing(where) as store:
        key = _found(store, wanted)
        if key.revoked_s:
            raise ConfigError(f"key {key.key_id} is revoked; create another one")
        token, digest = _secret(key.key_id)
        key = msgspec.structs.replace(
            key, digest=digest, old_digest=key.digest, old_until_s=time.time() + grace_s
        )
        _put(store, key)
    _print_token(token, key, as_json=as_json)


def _secret(key_id: str) -> tuple[str, bytes]:
    """A new key of this id, and what is kept of it."""
    token = f"{KEY_PREFIX}{key_id}-{secrets.token_urlsafe(_SECRET_BYTES)}"
    return token, hashlib.sha256(token.encode()).digest()


def _put(store: EventStore, key: ApiKey) -> None:
    """Store a key, and wait until every gateway that runs has seen it."""
    store.keys.put(key).result()
    time.sleep(SEEN_WITHIN_S)


def _print_token(token: str, key: ApiKey, *, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode({"key": token, **_told(key, [])}).decode())
    else:
        print(token)


def _told(key: ApiKey, spends: list[Spend]) -> dict[str, Any]:
    """A key as it is shown: neither its secret nor its hash."""
    total = Periods.at(0.0).total
    spent = [one for one in spends if (one.key_id, one.period) == (key.key_id, total)]
    return {
        "key_id": key.key_id,
        **msgspec.to_builtins(key.terms),
        "state": _state(key),
        "created_s": key.created_s,
        "revoked_s": key.revoked_s or None,
        "old_until_s": key.old_until_s or None,
        "spent_usd": math.fsum(one.spent_usd for one in spent),
        "tokens": sum(one.tokens for one in spent),
        "requests": sum(one.requests for one in spent),
    }


def _state(key: ApiKey) -> str:
    if key.revoked_s:
        return "revoked"
    expires_s = key.terms.expires_s
    return "expired" if expires_s is not None and expires_s <= time.time() else "valid"


def _owner(terms: KeyTerms) -> str:
    owners = {"task": terms.task_id, "agent": terms.agent, "team": terms.team}
    return ", ".join(f"{kind} {name}" for kind, name in owners.items() if name)


def _found(store: EventStore, wanted: str) -> ApiKey:
    keys = store.keys.changed_after(0).result()
    named = [key for key in keys if key.key_id == wanted]
    named = named or [key for key in keys if key.terms.name == wanted and not key.revoked_s]
    named = named or [key for key in keys if key.terms.name == wanted]
    if not named:
        # What looks like a key may be one; it is not repeated.
        shown = "that is given" if wanted.startswith(KEY_PREFIX) else repr(wanted[:80])
        raise ConfigError(f"key {shown} is not in the store; `steelyard keys list` shows the ids")
    return named[-1]


def _moment_s(text: str, now_s: float) -> float:
    """A duration from now, or an RFC 3339 time, as seconds since 1970."""
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        return now_s + seconds("--expires", text)
    if moment.tzinfo is None:
        raise ConfigError(f"--expires {text!r} names no time zone; add Z for UTC")
    return moment.timestamp()


@contextmanager
def _existing(where: str) -> Generator[EventStore, None, None]:
    """Open a store that is there: looking must not make one."""
    if "://" not in where and not Path(where).is_file():
        raise StoreError(f"store {where} does not exist; give --store, or create a key first")
    with open_store(where) as store:
        yield store
