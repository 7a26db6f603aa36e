"""`steelyard upgrade`: the last step of a rolling upgrade, after which there is no way back."""

import json
from pathlib import Path

from steelyard.cli.store_choice import store_address
from steelyard.config.settings import StoreSection, load_settings
from steelyard.errors import StoreError
from steelyard.store.event_store import EventStore
from steelyard.store.open_store import is_postgres, open_store


def run_upgrade(config: Path, store: str, *, as_json: bool) -> None:
    """Give a store this version's number.

    Args:
        config: The TOML file that names the store; need not be there where `store` names it.
        store: Store instead of the file's; empty for that one.
        as_json: One JSON object instead of a sentence.

    Raises:
        StoreError: There is no such store, or it cannot be written.
    """
    section = StoreSection() if store else load_settings(config).store
    address = store_address(section, store)
    if not is_postgres(address.where) and not Path(address.where).is_file():
        raise StoreError(
            f"store {address.where} does not exist; name one with --store, or in [store]"
        )
    with open_store(address.where, address.password) as log:
        before = log.version
        log.upgrade()
        told = {"store": log.where, "version_before": before, "version": log.version}
    if as_json:
        print(json.dumps(told))
    elif before == log.version:
        print(f"{log.where} is of version {log.version} already")
    else:
        print(
            f"{log.where} was of version {before} and is of version {log.version}: versions of "
            "before refuse it now; processes of this one write it in full when they start again"
        )


def how_old(store: EventStore, newest: int) -> str:
    """What a process says when the log that it opens is older than itself; empty when it is not.

    Args:
        store: The log.
        newest: Version of the log that this process writes in full.
    """
    if store.version == newest:
        return ""
    return (
        f"log {store.where} is of version {store.version} and kept readable for older processes; "
        f"`steelyard upgrade` makes it version {newest} once none of them runs any more"
    )
