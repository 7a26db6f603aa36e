"""The tables of keys in both databases, and how a store of version 3 gets them.

Version 3 has events, tasks and places; version 4 has keys, too. Nothing that was there changes, so
a store is brought up to date in one short transaction when it is opened to be written.
"""

SQLITE_KEYS = """
CREATE TABLE keys (
    key_id TEXT PRIMARY KEY,
    digest BLOB NOT NULL,
    terms BLOB NOT NULL,
    created_s REAL NOT NULL,
    revoked_s REAL NOT NULL,
    old_digest BLOB NOT NULL,
    old_until_s REAL NOT NULL,
    changed INTEGER NOT NULL
) STRICT;
CREATE INDEX keys_changed ON keys (changed);
CREATE TABLE key_spend (
    key_id TEXT NOT NULL,
    period TEXT NOT NULL,
    spent_usd REAL NOT NULL,
    tokens INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    PRIMARY KEY (key_id, period)
) STRICT;
CREATE TABLE key_holds (
    key_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    held_usd REAL NOT NULL,
    lost_usd REAL NOT NULL,
    until_s REAL NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (key_id, owner)
) STRICT
"""

POSTGRES_KEYS = (
    SQLITE_KEYS.replace(" STRICT", "")
    .replace("BLOB", "BYTEA")
    .replace("REAL", "DOUBLE PRECISION")
    .replace("INTEGER", "BIGINT")
)
