-- The wide record and the hot lease apart; jobs by wallet; sums kept instead of scanned.
-- The function key_bytes() is given by the program: this SQLite may have no unhex().
CREATE TABLE wide_nodes (
    number INTEGER PRIMARY KEY, node_id TEXT NOT NULL UNIQUE, wallet TEXT NOT NULL,
    record BLOB NOT NULL, facts BLOB NOT NULL, words TEXT NOT NULL, seq INTEGER NOT NULL,
    session_key BLOB NOT NULL, session_until REAL NOT NULL, call_counter INTEGER NOT NULL,
    registered_at REAL NOT NULL, succeeded INTEGER NOT NULL, failed INTEGER NOT NULL,
    gone INTEGER NOT NULL
) STRICT;
CREATE TABLE leases (
    number INTEGER PRIMARY KEY, seq INTEGER NOT NULL, counter INTEGER NOT NULL,
    last_seen REAL NOT NULL, lease_until REAL NOT NULL, alive_seconds REAL NOT NULL,
    queued INTEGER NOT NULL, running INTEGER NOT NULL, status INTEGER NOT NULL
) STRICT;
INSERT INTO wide_nodes
    SELECT NULL, node_id, coalesce(json_extract(record, '$.document.wallet'), ''),
        CAST(record AS BLOB), x'', '', seq, key_bytes(session_key), last_seen + 86400.0, counter,
        registered_at, succeeded, failed, gone
    FROM nodes ORDER BY registered_at, node_id;
INSERT INTO leases
    SELECT number, o.seq, o.counter, o.last_seen, o.last_seen + 90.0, o.alive_seconds, o.queued,
        o.running,
        CASE o.status WHEN 'idle' THEN 0 WHEN 'busy' THEN 1 WHEN 'draining' THEN 2 ELSE 3 END
    FROM nodes AS o JOIN wide_nodes USING (node_id);
DROP TABLE nodes;
ALTER TABLE wide_nodes RENAME TO nodes;

CREATE TABLE totals (
    state TEXT PRIMARY KEY, jobs INTEGER NOT NULL, settled INTEGER NOT NULL,
    ms_high INTEGER NOT NULL, ms_low INTEGER NOT NULL,
    paid_high INTEGER NOT NULL, paid_low INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
INSERT INTO totals
    SELECT state, count(*), sum(paid > refunded), sum(metered_ms >> 26),
        sum(metered_ms & 67108863), sum((paid - refunded) >> 26),
        sum((paid - refunded) & 67108863)
    FROM jobs GROUP BY state;
CREATE TABLE lean_jobs (
    job_id TEXT PRIMARY KEY, buyer TEXT NOT NULL, seller TEXT NOT NULL,
    created_at INTEGER NOT NULL, job TEXT NOT NULL, submission TEXT NOT NULL
) WITHOUT ROWID, STRICT;
INSERT INTO lean_jobs
    SELECT job_id, buyer, coalesce(json_extract(job, '$.seller'), ''), created_at, job, submission
    FROM jobs;
DROP TABLE jobs;
ALTER TABLE lean_jobs RENAME TO jobs;
CREATE INDEX jobs_by_buyer ON jobs (buyer, created_at, job_id);
CREATE INDEX jobs_by_seller ON jobs (seller, created_at, job_id);

CREATE TABLE samples (
    series TEXT NOT NULL, at INTEGER NOT NULL, figures TEXT NOT NULL,
    PRIMARY KEY (series, at)
) WITHOUT ROWID, STRICT;
