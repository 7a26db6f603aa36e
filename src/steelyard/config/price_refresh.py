"""Newer prices than the packaged ones, from a database in the schema of Spare Cores.

The packaged table stays as it is: what is read is kept in the user's cache folder, and counts only
where it is asked for. Schema: tables `server_price`, `server` and `region` of sparecores-crawler
0.10 (github.com/SpareCores/sc-crawler, `sc_crawler/tables.py`); enumerations stand there by name
or by value.
"""

import csv
import importlib
import io
import lzma
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Literal, cast

import msgspec

from steelyard.config.environment import cache_folder, limit_price_download
from steelyard.errors import ConfigError

# Seconds that a download may take.
DOWNLOAD_S = 120
_COLUMNS = (
    "provider",
    "instance_type",
    "region",
    "capacity_type",
    "usd_per_hour",
    "price_date",
    "price_source",
)
# Of several zones of a region, the cheapest counts: a buyer may choose.
_QUERY = """
SELECT p.vendor_id, s.api_reference, r.api_reference, lower(p.allocation), min(p.price),
       max(date(p.observed_at))
FROM server_price AS p
JOIN server AS s ON s.vendor_id = p.vendor_id AND s.server_id = p.server_id
JOIN region AS r ON r.vendor_id = p.vendor_id AND r.region_id = p.region_id
WHERE lower(p.status) = 'active' AND lower(p.unit) = 'hour' AND p.currency = 'USD'
  AND lower(p.operating_system) = 'linux' AND lower(p.allocation) IN ('ondemand', 'spot')
  AND p.price > 0
GROUP BY 1, 2, 3, 4
ORDER BY 1, 2, 3, 4
"""


class PriceRow(msgspec.Struct, frozen=True, kw_only=True):
    """A price of a known instance type.

    Attributes:
        provider: Who sells it.
        instance_type: What.
        region: Where.
        capacity_type: How it is rented.
        usd_per_hour: Price of one.
        price_date: Day on which it was seen, ISO 8601.
        price_source: Where it was read.
    """

    provider: str
    instance_type: str
    region: str
    capacity_type: Literal["on_demand", "spot"]
    usd_per_hour: float
    price_date: str
    price_source: str

    @property
    def name(self) -> str:
        """Name of the offering."""
        return "/".join((self.provider, self.region, self.instance_type, self.capacity_type))


def read_prices(
    path: Path, known: frozenset[tuple[str, str]], regions: frozenset[tuple[str, str]]
) -> tuple[PriceRow, ...]:
    """Which prices of known instance types does a database hold?

    Args:
        path: SQLite file.
        known: Provider and name of the instance types that count.
        regions: Provider and name of the regions that count.

    Returns:
        Linux prices per hour in USD, on demand and spot, sorted by name.

    Raises:
        ConfigError: It cannot be read, is no such database, or holds no such price.
    """
    if not path.is_file():
        raise ConfigError(f"--from {path} is not a file; give a SQLite database")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            found = database.execute(_QUERY).fetchall()
    except sqlite3.Error as error:
        raise ConfigError(
            f"--from {path} is no price database: {error}; tables server_price, server and region"
            " of sparecores-data are needed"
        ) from error
    rows = [
        PriceRow(
            provider=provider,
            instance_type=instance_type,
            region=region,
            capacity_type="spot" if allocation == "spot" else "on_demand",
            usd_per_hour=float(usd),
            price_date=str(day or ""),
            price_source=f"{path.name} (Spare Cores)",
        )
        for provider, instance_type, region, allocation, usd, day in found
        if (provider, instance_type) in known and (provider, region) in regions
    ]
    if not rows:
        raise ConfigError(
            f"--from {path} holds no price of a known instance type in the regions asked for;"
            f" it has {len(found)} prices in all"
        )
    return tuple(sorted(rows, key=lambda row: row.name))


def downloaded_prices() -> Path:
    """Where is the database that `sparecores-data` downloads?

    The package fetches it from its own server when it is imported.

    Raises:
        ConfigError: The package is not installed, or cannot download.
    """
    limit_price_download(DOWNLOAD_S)
    try:
        package = importlib.import_module("sc_data")
    except ImportError as error:
        raise ConfigError(
            "sparecores-data is not installed; pip install 'steelyard[catalog]', or give a"
            " database with --from FILE"
        ) from error
    except (OSError, RuntimeError, lzma.LZMAError, sqlite3.Error) as error:
        raise ConfigError(
            f"sparecores-data cannot download its database: {error}; this machine may have no"
            " internet: give a database with --from FILE"
        ) from error
    path = cast("str | None", package.db.path)
    if not path:
        raise ConfigError("sparecores-data gave no database; give one with --from FILE")
    return Path(path)


def refreshed_path() -> Path:
    """Where are refreshed prices kept?"""
    return cache_folder() / "prices.csv"


def write_refreshed(rows: tuple[PriceRow, ...]) -> Path:
    """Keep these prices for later plans.

    Args:
        rows: All of them; earlier ones are replaced.

    Returns:
        The file.

    Raises:
        ConfigError: It cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows([getattr(row, column) for column in _COLUMNS] for row in rows)
    path = refreshed_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.getvalue(), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"refreshed prices cannot be kept in {path}: {error}") from error
    return path


def read_refreshed() -> tuple[PriceRow, ...]:
    """Which prices did the last refresh keep?

    Raises:
        ConfigError: There was none, or its file is damaged.
    """
    path = refreshed_path()
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return tuple(
                msgspec.convert(row, PriceRow, strict=False) for row in csv.DictReader(file)
            )
    except FileNotFoundError as error:
        raise ConfigError(
            "there are no refreshed prices; run `steelyard catalog refresh` first"
        ) from error
    except (OSError, ValueError, msgspec.ValidationError) as error:
        raise ConfigError(
            f"refreshed prices in {path} cannot be read: {error}; run `steelyard catalog refresh`"
        ) from error
