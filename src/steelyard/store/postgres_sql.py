"""What PostgreSQL is told: the tables, and the two statements that write events and tasks.

Each of the two is a whole transaction where it stands alone: one round trip, one flush.
"""

from steelyard.store.backend import SCHEMA_VERSION
from steelyard.store.keys_tables import POSTGRES_KEYS

# One message, and so one transaction, as below. The version stays: older processes read it on.
ADD_KEYS = f"""
SET search_path = steelyard;
{POSTGRES_KEYS};
"""

# One message, and so one transaction: whoever finds the table `version` finds the others, too.
SCHEMA = f"""
CREATE SCHEMA IF NOT EXISTS steelyard;
SET search_path = steelyard;
CREATE TABLE version (version INTEGER PRIMARY KEY);
INSERT INTO version VALUES ({SCHEMA_VERSION});
CREATE TABLE writers (writer TEXT PRIMARY KEY, last_group BIGINT NOT NULL);
CREATE TABLE events (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    t_s DOUBLE PRECISION NOT NULL,
    kind TEXT NOT NULL,
    task_id TEXT,
    body BYTEA NOT NULL
);
CREATE INDEX events_by_task ON events (task_id, seq) WHERE task_id IS NOT NULL;
CREATE TABLE tasks (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id TEXT NOT NULL UNIQUE,
    agent TEXT NOT NULL,
    state TEXT NOT NULL,
    priority INTEGER NOT NULL,
    submitted_s DOUBLE PRECISION NOT NULL,
    parent TEXT NOT NULL,
    caller_key TEXT UNIQUE,
    worker TEXT NOT NULL,
    fence BIGINT NOT NULL,
    lease_until_s DOUBLE PRECISION NOT NULL,
    started_s DOUBLE PRECISION NOT NULL,
    cancelled INTEGER NOT NULL DEFAULT 0,
    signals INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX tasks_to_run ON tasks (priority DESC, number) WHERE state = 'open';
CREATE INDEX tasks_held ON tasks (worker) WHERE worker <> '';
CREATE INDEX tasks_started ON tasks (agent, started_s) WHERE started_s > 0;
CREATE INDEX tasks_by_parent ON tasks (parent) WHERE parent <> '';
CREATE INDEX tasks_waiting ON tasks (lease_until_s) WHERE state = 'waiting';
CREATE TABLE places (
    pool TEXT NOT NULL,
    name TEXT NOT NULL,
    owner TEXT NOT NULL,
    until_s DOUBLE PRECISION NOT NULL,
    started_s DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (pool, name)
);
CREATE INDEX places_by_owner ON places (owner);
{POSTGRES_KEYS};
"""  # noqa: S608 - a constant

# Rows come as one array per column, or as the values of a single row: that costs a tenth.
_MANY_EVENTS = """
    SELECT * FROM unnest(
        %b::float8[], %b::text[], %b::text[], %b::bytea[], %b::bigint[], %b::text[]
    ) WITH ORDINALITY AS given (t_s, kind, task_id, body, fence, ended, place)
"""
_ONE_EVENT = """
    SELECT %b::float8 AS t_s, %s AS kind, %s AS task_id, %b::bytea AS body, %s::bigint AS fence,
        %s AS ended, 1 AS place
"""
# The row of `writers` tells, after a lost connection, whether this very statement was committed.
# `held` locks the tasks' rows: whoever wants to take one over waits until these events are in, or
# has changed its fence before. What is told in the end are rows whose lease is gone, also when the
# statement is sent again: whoever has none must not go on. Events get numbers in the arrays' order.
_WRITE = """
WITH known AS (
    INSERT INTO writers AS of_writer VALUES (%s, %s)
    ON CONFLICT (writer) DO UPDATE SET last_group = excluded.last_group
    WHERE of_writer.last_group < excluded.last_group
    RETURNING writer
), held AS (
    SELECT task_id, fence FROM tasks WHERE task_id = {held} FOR SHARE
), given AS ({given}), kept AS (
    SELECT given.* FROM known, given LEFT JOIN held USING (task_id)
    WHERE given.fence = 0 OR given.fence = held.fence
), appended AS (
    INSERT INTO events (t_s, kind, task_id, body)
    SELECT t_s, kind, nullif(task_id, ''), body FROM kept {order}
){changed}
SELECT given.task_id, given.fence FROM given LEFT JOIN held USING (task_id)
WHERE given.fence <> 0 AND given.fence IS DISTINCT FROM held.fence
"""
_CHANGED = """, changed AS (
    UPDATE tasks SET
        signals = tasks.signals + news.signals,
        state = coalesce(
            news.ended, CASE tasks.state WHEN 'waiting' THEN 'open' ELSE tasks.state END
        ),
        worker = CASE WHEN news.ended IS NULL THEN tasks.worker ELSE '' END,
        lease_until_s = CASE WHEN news.ended IS NULL AND tasks.state <> 'waiting'
            THEN tasks.lease_until_s ELSE 0 END
    FROM (
        SELECT task_id, max(nullif(ended, '')) AS ended,
            count(*) FILTER (WHERE kind = 'signal_sent') AS signals
        FROM kept WHERE ended <> '' OR kind = 'signal_sent' GROUP BY task_id
    ) AS news
    WHERE tasks.task_id = news.task_id
)"""
_MANY = {"held": "ANY (%b::text[])", "given": _MANY_EVENTS, "order": "ORDER BY place"}
_ONE = {"held": "%s", "given": _ONE_EVENT, "order": ""}
WRITE_MANY = _WRITE.format(**_MANY, changed=_CHANGED)
WRITE_MANY_STEPS = _WRITE.format(**_MANY, changed="")
WRITE_ONE = _WRITE.format(**_ONE, changed=_CHANGED)
WRITE_ONE_STEP = _WRITE.format(**_ONE, changed="")

_MANY_TASKS = """
    SELECT * FROM unnest(
        %b::text[], %b::text[], %b::int[], %b::float8[], %b::text[], %b::text[], %b::text[],
        %b::float8[], %b::float8[], %b::text[], %b::bytea[]
    ) WITH ORDINALITY AS given (
        task_id, agent, priority, submitted_s, parent, caller_key, worker, lease_s, t_s, kind,
        body, place
    )
"""
_ONE_TASK = """
    SELECT %s AS task_id, %s AS agent, %s::int AS priority, %b::float8 AS submitted_s, %s AS parent,
        %s AS caller_key, %s AS worker, %b::float8 AS lease_s, %b::float8 AS t_s, %s AS kind,
        %b::bytea AS body, 1 AS place
"""
_ADD = """
WITH given AS ({given}), added AS (
    INSERT INTO tasks (
        task_id, agent, state, priority, submitted_s, parent, caller_key, worker, fence,
        lease_until_s, started_s
    )
    SELECT task_id, agent, 'open', priority, submitted_s, parent, nullif(caller_key, ''), worker,
        CASE worker WHEN '' THEN 0 ELSE 1 END,
        CASE worker WHEN '' THEN 0 ELSE extract(epoch FROM clock_timestamp())::float8 + lease_s END,
        CASE worker WHEN '' THEN 0 ELSE extract(epoch FROM clock_timestamp())::float8 END
    FROM given ORDER BY place
    ON CONFLICT DO NOTHING
    RETURNING task_id
), appended AS (
    INSERT INTO events (t_s, kind, task_id, body)
    SELECT t_s, kind, task_id, body FROM given JOIN added USING (task_id) ORDER BY place
)
SELECT task_id FROM added
"""
ADD_TASKS = _ADD.format(given=_MANY_TASKS)
ADD_TASK = _ADD.format(given=_ONE_TASK)
