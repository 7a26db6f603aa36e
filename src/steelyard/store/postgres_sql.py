"""What PostgreSQL is told: the tables, and the two statements that write events and tasks.

Each of the two is a whole transaction where it stands alone: one round trip, one flush.
"""

SCHEMA_VERSION = 2

SCHEMA = """
CREATE SCHEMA IF NOT EXISTS steelyard;
SET search_path = steelyard;
CREATE TABLE IF NOT EXISTS version (version INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS writers (writer TEXT PRIMARY KEY, last_group BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS events (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    t_s DOUBLE PRECISION NOT NULL,
    kind TEXT NOT NULL,
    task_id TEXT,
    body BYTEA NOT NULL
);
CREATE INDEX IF NOT EXISTS events_by_task ON events (task_id, seq) WHERE task_id IS NOT NULL;
CREATE TABLE IF NOT EXISTS tasks (
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
CREATE INDEX IF NOT EXISTS tasks_to_run ON tasks (priority DESC, number) WHERE state = 'open';
CREATE INDEX IF NOT EXISTS tasks_held ON tasks (worker) WHERE worker <> '';
CREATE INDEX IF NOT EXISTS tasks_started ON tasks (agent, started_s) WHERE started_s > 0;
CREATE INDEX IF NOT EXISTS tasks_by_parent ON tasks (parent) WHERE parent <> '';
"""

# The row of `writers` tells, after a lost connection, whether this very statement was committed.
# `held` locks the tasks' rows: whoever wants to take one over waits until these events are in, or
# has changed its fence before. Events are numbered in the order of the arrays.
WRITE = """
WITH known AS (
    INSERT INTO writers AS of_writer VALUES (%s, %s)
    ON CONFLICT (writer) DO UPDATE SET last_group = excluded.last_group
    WHERE of_writer.last_group < excluded.last_group
    RETURNING writer
), held AS (
    SELECT task_id, fence FROM tasks WHERE task_id = ANY (%b::text[]) ORDER BY task_id FOR SHARE
), given AS (
    SELECT * FROM unnest(
        %b::float8[], %b::text[], %b::text[], %b::bytea[], %b::bigint[], %b::text[]
    ) WITH ORDINALITY AS given (t_s, kind, task_id, body, fence, ended, place)
), kept AS (
    SELECT given.* FROM known, given LEFT JOIN held USING (task_id)
    WHERE given.fence = 0 OR given.fence = held.fence
), appended AS (
    INSERT INTO events (t_s, kind, task_id, body)
    SELECT t_s, kind, nullif(task_id, ''), body FROM kept ORDER BY place
), changed AS (
    UPDATE tasks SET
        signals = tasks.signals + news.signals,
        state = coalesce(news.ended, tasks.state),
        worker = CASE WHEN news.ended IS NULL THEN tasks.worker ELSE '' END,
        lease_until_s = CASE WHEN news.ended IS NULL THEN tasks.lease_until_s ELSE 0 END
    FROM (
        SELECT task_id, max(nullif(ended, '')) AS ended,
            count(*) FILTER (WHERE kind = 'signal_sent') AS signals
        FROM kept WHERE ended <> '' OR kind = 'signal_sent' GROUP BY task_id
    ) AS news
    WHERE tasks.task_id = news.task_id
)
SELECT DISTINCT given.task_id, given.fence
FROM known, given LEFT JOIN held USING (task_id)
WHERE given.fence <> 0 AND given.fence IS DISTINCT FROM held.fence
"""

ADD_TASKS = """
WITH given AS (
    SELECT *, extract(epoch FROM clock_timestamp())::float8 AS now_s FROM unnest(
        %b::text[], %b::text[], %b::int[], %b::float8[], %b::text[], %b::text[], %b::text[],
        %b::float8[], %b::float8[], %b::text[], %b::bytea[]
    ) WITH ORDINALITY AS given (
        task_id, agent, priority, submitted_s, parent, caller_key, worker, lease_s, t_s, kind,
        body, place
    )
), added AS (
    INSERT INTO tasks (
        task_id, agent, state, priority, submitted_s, parent, caller_key, worker, fence,
        lease_until_s, started_s
    )
    SELECT task_id, agent, 'open', priority, submitted_s, parent, nullif(caller_key, ''), worker,
        CASE worker WHEN '' THEN 0 ELSE 1 END,
        CASE worker WHEN '' THEN 0 ELSE now_s + lease_s END,
        CASE worker WHEN '' THEN 0 ELSE now_s END
    FROM given ORDER BY place
    ON CONFLICT DO NOTHING
    RETURNING task_id
), appended AS (
    INSERT INTO events (t_s, kind, task_id, body)
    SELECT t_s, kind, task_id, body FROM given JOIN added USING (task_id) ORDER BY place
)
SELECT task_id FROM added
"""
