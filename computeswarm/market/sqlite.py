"""The SQLite store: one writer thread that commits whatever has gathered, WAL, full sync."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path

from computeswarm.core.errors import ComputeSwarmError, ConfigError, StorageFull, Unavailable
from computeswarm.core.jobs import MarketJob
from computeswarm.core.states import JobState
from computeswarm.market.store import JobTotals, NodeRow

_BATCH = 2_000
MIGRATIONS = (
    """
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
    """,
)
"""Never edited once released, only added to: ``user_version`` counts those that were run."""

_COLUMNS = tuple(f.name for f in fields(NodeRow))
_SAVE_NODE = (
    f"INSERT OR REPLACE INTO nodes ({', '.join(_COLUMNS)})"  # noqa: S608 - our own column names
    f" VALUES ({', '.join('?' * len(_COLUMNS))})"
)
# a lease written late must not undo a registration or a departure written before it
_TOUCH = (
    "UPDATE nodes SET counter=max(counter, ?), last_seen=?, alive_seconds=?, status=?, queued=?,"
    " running=? WHERE node_id=? AND session_key=? AND gone=0"
)
_SAVE_JOB = "INSERT OR REPLACE INTO jobs VALUES (?,?,?,?,?,?,?,?,?,?)"

_HALF_BITS = 26
_TOTALS = (
    # in halves: sellers report these numbers, and SQLite's sum() fails where it overflows
    "SELECT state, count(*), sum(metered_ms >> 26), sum(metered_ms & 67108863),"
    " sum((paid - refunded) >> 26), sum((paid - refunded) & 67108863) FROM jobs GROUP BY state"
)


@dataclass(slots=True)
class _Write:
    sql: list[tuple[str, Sequence[tuple[object, ...]]]]
    done: Callable[[ComputeSwarmError | None], None]
    stop: bool = field(default=False)


class SqliteStore:
    """One file; several processes must not share it.

    Raises:
        ConfigError: the file can't be opened, or a later version of ComputeSwarm wrote it.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(mode=0o600)  # session keys lie in it
            self._reader = _connect(path)
            self._writer = _connect(path)
            _migrate(self._writer, path)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"The market's database {path} can't be used: {error}.") from None
        self._queue: queue.SimpleQueue[_Write] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="market-store", daemon=True)
        self._thread.start()

    def load_nodes(self) -> Sequence[NodeRow]:
        sql = f"SELECT {', '.join(_COLUMNS)} FROM nodes"  # noqa: S608 - our own column names
        return [NodeRow(*row) for row in self._reader.execute(sql)]

    def load_job(self, job_id: str) -> tuple[MarketJob, str] | None:
        sql = "SELECT job, submission FROM jobs WHERE job_id=?"
        row = self._reader.execute(sql, (job_id,)).fetchone()
        return None if row is None else (MarketJob.model_validate_json(row[0]), row[1])

    def job_totals(self) -> JobTotals:
        by_state: dict[str, int] = {}
        ended = metered = paid = 0
        for state, count, ms_high, ms_low, atoms_high, atoms_low in self._reader.execute(_TOTALS):
            by_state[state] = count
            paid += (atoms_high << _HALF_BITS) + atoms_low
            if JobState(state).terminal:
                ended += count
                metered += (ms_high << _HALF_BITS) + ms_low
        return JobTotals(by_state, ended, metered, paid)

    async def save_node(self, row: NodeRow) -> None:
        await self._write([(_SAVE_NODE, [astuple(row)])])

    async def save_job(self, job: MarketJob, submission: str, node: NodeRow | None = None) -> None:
        values = (
            job.job_id,
            job.node_id,
            job.buyer,
            str(job.state),
            job.metered_ms,
            job.paid,
            job.refunded,
            job.created_at,
            job.model_dump_json(),
            submission,
        )
        sql: list[tuple[str, Sequence[tuple[object, ...]]]] = [(_SAVE_JOB, [values])]
        if node is not None:
            sql.append((_SAVE_NODE, [astuple(node)]))
        await self._write(sql)

    def touch(self, rows: Sequence[NodeRow]) -> None:
        values = [
            (
                r.counter,
                r.last_seen,
                r.alive_seconds,
                r.status,
                r.queued,
                r.running,
                r.node_id,
                r.session_key,
            )
            for r in rows
        ]
        self._queue.put(_Write([(_TOUCH, values)], lambda _: None))

    async def close(self) -> None:
        await self._write([], stop=True)
        self._thread.join()
        self._reader.close()
        self._writer.close()

    async def _write(
        self, sql: list[tuple[str, Sequence[tuple[object, ...]]]], *, stop: bool = False
    ) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def settle(error: ComputeSwarmError | None) -> None:
            if future.done():
                return  # the caller was cancelled meanwhile
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        def done(error: ComputeSwarmError | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                loop.call_soon_threadsafe(settle, error)

        self._queue.put(_Write(sql, done, stop))
        await future

    def _work(self) -> None:
        stop = False
        while not stop:
            batch = [self._queue.get()]
            while len(batch) < _BATCH and not self._queue.empty():
                batch.append(self._queue.get())
            error = self._commit(batch)
            for write in batch:
                write.done(error)
                stop |= write.stop

    def _commit(self, batch: list[_Write]) -> ComputeSwarmError | None:
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            for write in batch:
                for sql, values in write.sql:
                    self._writer.executemany(sql, values)
            self._writer.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):  # a failed BEGIN has nothing to undo
                self._writer.execute("ROLLBACK")
            if "full" in str(error):
                return StorageFull("The market's disk is full; its operator must make room.")
            return Unavailable(f"The market's database does not take writes: {error}.")
        return None


def _connect(path: Path) -> sqlite3.Connection:
    made = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    made.execute("PRAGMA journal_mode=WAL")
    made.execute("PRAGMA synchronous=FULL")
    return made


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise ConfigError(f"{path} was written by a later version; update ComputeSwarm.")
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.executescript(f"BEGIN; {script}; PRAGMA user_version={number}; COMMIT;")
