"""Which store does a command work on?"""

from steelyard.config.environment import secret
from steelyard.config.settings import StoreSection
from steelyard.store.event_store import EventStore
from steelyard.store.open_store import open_store
from steelyard.store.reader import StoreAddress


def opened_store(section: StoreSection, option: str = "") -> EventStore:
    """Open the store of an option, or else of the configuration.

    Args:
        section: `[store]` of the configuration.
        option: What `--store` says; empty when it is not given.

    Returns:
        The store; the caller closes it.

    Raises:
        ConfigError: The password's environment variable is not set.
        StoreError: It cannot be opened.
    """
    address = store_address(section, option)
    return open_store(address.where, address.password)


def store_address(section: StoreSection, option: str = "") -> StoreAddress:
    """Where is that store?

    Raises:
        ConfigError: The password's environment variable is not set.
    """
    if option or not section.url:
        return StoreAddress(where=option or str(section.path))
    password = ""
    if section.password_env is not None:
        password = secret(section.password_env, "store.password_env")
    return StoreAddress(where=section.url, password=password)
