CREATE TABLE nodes (
    node_id TEXT PRIMARY KEY, record TEXT NOT NULL, seq INTEGER NOT NULL,
    session_key TEXT NOT NULL, counter INTEGER NOT NULL, registered_at REAL NOT NULL,
    last_seen REAL NOT NULL, alive_seconds REAL NOT NULL, status TEXT NOT NULL,
    queued INTEGER NOT NULL, running INTEGER NOT NULL, succeeded INTEGER NOT NULL,
    failed INTEGER NOT NULL, gone INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
CREATE TABLE jobs (
    job_id TEXT PRIMARY KEY, node_id TEXT NOT NULL, buyer TEXT NOT NULL, state TEXT NOT NULL,
    metered_ms INTEGER NOT NULL, paid INTEGER NOT NULL, refunded INTEGER NOT NULL,
    created_at INTEGER NOT NULL, job TEXT NOT NULL, submission TEXT NOT NULL
) WITHOUT ROWID, STRICT;
CREATE INDEX jobs_by_state ON jobs (state, metered_ms, paid, refunded);
