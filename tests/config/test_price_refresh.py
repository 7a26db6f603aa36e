import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from steelyard.config.catalog_table import load_catalog
from steelyard.config.plan_catalog import planning_catalog
from steelyard.config.plan_settings import AllowedSection, PlanSettings
from steelyard.config.price_refresh import (
    read_prices,
    read_refreshed,
    refreshed_path,
    write_refreshed,
)
from steelyard.config.refreshed_catalog import price_changes, with_prices
from steelyard.errors import ConfigError

KNOWN = frozenset({("aws", "m9g.xlarge"), ("gcp", "n4a-standard-2")})
REGIONS = frozenset({("aws", "us-east-1"), ("aws", "eu-central-1"), ("gcp", "us-central1")})
# Columns that are read, as sparecores-crawler 0.10 defines them; others are left out.
SCHEMA = """
CREATE TABLE region (vendor_id VARCHAR NOT NULL, region_id VARCHAR NOT NULL,
    api_reference VARCHAR NOT NULL, PRIMARY KEY (vendor_id, region_id));
CREATE TABLE server (vendor_id VARCHAR NOT NULL, server_id VARCHAR NOT NULL,
    api_reference VARCHAR NOT NULL, PRIMARY KEY (vendor_id, server_id));
CREATE TABLE server_price (vendor_id VARCHAR NOT NULL, region_id VARCHAR NOT NULL,
    zone_id VARCHAR NOT NULL, server_id VARCHAR NOT NULL, operating_system VARCHAR NOT NULL,
    allocation VARCHAR(8) NOT NULL, unit VARCHAR(8) NOT NULL, price FLOAT NOT NULL,
    price_upfront FLOAT NOT NULL, price_tiered JSON NOT NULL, currency VARCHAR NOT NULL,
    status VARCHAR(8) NOT NULL, observed_at DATETIME NOT NULL,
    PRIMARY KEY (vendor_id, region_id, zone_id, server_id, allocation));
INSERT INTO region VALUES ('aws', 'us-east-1', 'us-east-1'), ('gcp', '1000', 'us-central1'),
    ('aws', 'eu-central-1', 'eu-central-1'), ('aws', 'sa-east-1', 'sa-east-1');
INSERT INTO server VALUES ('aws', 'm9g.xlarge', 'm9g.xlarge'), ('gcp', '801', 'n4a-standard-2'),
    ('aws', 'x99.huge', 'x99.huge');
"""
PRICES = [
    ("aws", "us-east-1", "a", "m9g.xlarge", "Linux", "ONDEMAND", "HOUR", 0.25, "USD", "ACTIVE"),
    ("aws", "us-east-1", "a", "m9g.xlarge", "Linux", "SPOT", "HOUR", 0.09, "USD", "ACTIVE"),
    ("aws", "us-east-1", "b", "m9g.xlarge", "Linux", "SPOT", "HOUR", 0.08, "USD", "ACTIVE"),
    ("aws", "eu-central-1", "a", "m9g.xlarge", "Linux", "ondemand", "hour", 0.3, "USD", "active"),
    ("aws", "sa-east-1", "a", "m9g.xlarge", "Linux", "ONDEMAND", "HOUR", 0.1, "USD", "ACTIVE"),
    ("aws", "us-east-1", "a", "x99.huge", "Linux", "ONDEMAND", "HOUR", 9.0, "USD", "ACTIVE"),
    ("gcp", "1000", "a", "801", "Linux", "ONDEMAND", "HOUR", 0.07, "USD", "ACTIVE"),
    ("gcp", "1000", "b", "801", "Linux", "ONDEMAND", "HOUR", 0.01, "USD", "INACTIVE"),
    ("gcp", "1000", "c", "801", "Linux", "RESERVED", "MONTH", 9.0, "USD", "ACTIVE"),
]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "sc data #1.db"
    with closing(sqlite3.connect(path)) as made:
        made.executescript(SCHEMA)
        rows = [(*row[:8], 0.0, "[]", *row[8:], "2026-11-01 12:00:00") for row in PRICES]
        made.executemany(f"INSERT INTO server_price VALUES ({','.join('?' * 13)})", rows)  # noqa: S608
        made.commit()
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "steelyard" / "prices.csv"


def test_active_hourly_linux_prices_of_known_types_and_regions_are_read(database: Path) -> None:
    rows = read_prices(database, KNOWN, REGIONS)
    assert {row.name: row.usd_per_hour for row in rows} == {
        "aws/eu-central-1/m9g.xlarge/on_demand": 0.3,
        "aws/us-east-1/m9g.xlarge/on_demand": 0.25,
        "aws/us-east-1/m9g.xlarge/spot": 0.08,
        "gcp/us-central1/n4a-standard-2/on_demand": 0.07,
    }
    assert {row.price_date for row in rows} == {"2026-11-01"}


def test_refreshed_prices_are_kept_beside_the_packaged_ones_and_count_where_asked_for(
    database: Path, cache: Path
) -> None:
    with pytest.raises(ConfigError, match="run `steelyard catalog refresh` first"):
        read_refreshed()
    rows = read_prices(database, KNOWN, REGIONS)
    assert write_refreshed(rows) == refreshed_path() == cache
    assert read_refreshed() == rows
    packaged = planning_catalog(PlanSettings())
    assert packaged == load_catalog()
    asked = planning_catalog(PlanSettings(allowed=AllowedSection(refreshed_prices=True)))
    usd = {one.name: one.usd_per_hour for one in asked.offerings}
    assert usd["aws/us-east-1/m9g.xlarge/on_demand"] == 0.25
    assert usd["aws/eu-central-1/m9g.xlarge/on_demand"] == 0.3
    assert "aws/us-east-1/m9g.xlarge/spot" not in usd
    new = set(usd) - {one.name for one in packaged.offerings}
    assert new == {"aws/eu-central-1/m9g.xlarge/on_demand"}
    both = with_prices(load_catalog(with_spot=True), rows, with_spot=True)
    assert both.offering("aws/us-east-1/m9g.xlarge/spot").usd_per_hour == 0.08


def test_changes_name_the_old_price_and_what_is_new(database: Path) -> None:
    catalog = load_catalog(with_spot=True)
    changes = price_changes(catalog, read_prices(database, KNOWN, REGIONS))
    old = {one.offering: one.old_usd_per_hour for one in changes}
    name = "aws/us-east-1/m9g.xlarge/on_demand"
    assert old[name] == catalog.offering(name).usd_per_hour
    assert old["aws/eu-central-1/m9g.xlarge/on_demand"] is None


def test_what_is_no_price_database_is_refused(tmp_path: Path, database: Path) -> None:
    other = tmp_path / "other.db"
    other.write_text("no database", encoding="utf-8")
    with pytest.raises(ConfigError, match="is no price database"):
        read_prices(other, KNOWN, REGIONS)
    with pytest.raises(ConfigError, match="is not a file"):
        read_prices(tmp_path / "missing.db", KNOWN, REGIONS)
    with pytest.raises(ConfigError, match="holds no price of a known instance type"):
        read_prices(database, frozenset(), REGIONS)


def test_a_damaged_cache_says_how_to_mend_it(cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("provider,usd_per_hour\naws,cheap\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"prices.csv cannot be read: .*catalog refresh"):
        read_refreshed()
