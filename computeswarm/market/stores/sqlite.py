"""The SQLite store: one file, one process."""

from __future__ import annotations

import asyncio
import json
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from computeswarm.core.crypto import to_checksum
from computeswarm.core.errors import Unavailable
from computeswarm.core.jobs import MarketJob
from computeswarm.market.rows import NodeColumns, NodeRow
from computeswarm.market.stores import sqlite_jobs, sqlite_nodes
from computeswarm.market.stores.counts import Counts
from computeswarm.market.stores.loading import ahead
from computeswarm.market.stores.pending import Pending
from computeswarm.market.stores.protocol import Change, Count, JobTotals, Leases, Position
from computeswarm.market.stores.sqlite_file import connect, meaning, open_file
from computeswarm.market.stores.sqlite_writer import Writer
from computeswarm.market.stores.write_behind import LEASES_A_COMMIT, WriteBehind

_START = Position("0")
T = TypeVar("T")


class SqliteStore:
    """See ``Store``. Several processes must not share the file."""

    kind = "sqlite"
    shared = False

    def __init__(self, path: Path) -> None:
        self.instance = secrets.token_hex(4)
        self.clock_ahead = 0.0
        self.unavailable_since: float | None = None
        self._path = path
        self._leases = WriteBehind(self._write_leases)
        self.flush_seconds = self._leases.seconds
        self._counts = Counts()
        self._writer: Writer | None = None
        self._reader: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="market-reader")

    @property
    def backlog(self) -> int:
        return len(self._leases)

    async def open(self) -> None:
        def opened() -> tuple[sqlite3.Connection, sqlite3.Connection]:
            return open_file(self._path), connect(self._path)

        writer, self._reader = await self._in_thread(opened)
        self._writer = Writer(writer)

    async def close(self) -> None:
        if self._writer is not None:
            try:
                await self._leases.close()
            finally:
                await self._writer.close()
                self._writer = None
        if self._reader is not None:
            await self._in_thread(self._reader.close)
            self._reader = None
        self._thread.shutdown()

    async def ping(self) -> None:
        await self._read(lambda db: db.execute("SELECT 1 FROM nodes LIMIT 1").fetchone())

    # nodes

    def load_nodes(self, batch: int = 10_000) -> AsyncIterator[NodeColumns]:
        return ahead(lambda after: self._read(partial(sqlite_nodes.load, after=after, limit=batch)))

    async def position(self) -> Position:
        return _START

    async def node(self, node_id: str) -> NodeRow | None:
        return await self._read(lambda db: sqlite_nodes.get(db, node_id))

    async def save_node(self, row: NodeRow) -> NodeRow:
        return await self._write(lambda db: sqlite_nodes.save(db, row))

    async def remove_node(self, node_id: str, *, session_key: bytes, counter: int) -> bool:
        return await self._write(lambda db: sqlite_nodes.remove(db, node_id, session_key, counter))

    async def revoke_node(self, node_id: str, *, seq: int) -> bool:
        return await self._write(lambda db: sqlite_nodes.revoke(db, node_id, seq))

    async def forget_nodes(
        self, *, before: float, proven_before: float, limit: int = 1_000
    ) -> Sequence[str]:
        return await self._write(lambda db: sqlite_nodes.forget(db, before, proven_before, limit))

    def touch(self, leases: Leases) -> None:
        self._leases.touch(leases)

    async def flush(self) -> None:
        await self._leases.flush()

    async def _write_leases(self, pending: Pending) -> None:
        taken: list[Leases] = []

        def write(db: sqlite3.Connection) -> None:
            taken.append(pending.take(LEASES_A_COMMIT))
            sqlite_nodes.touch(db, taken[0])

        def settled(good: bool) -> None:
            while taken:
                (pending.written if good else pending.put_back)(taken.pop())

        await self._write(write, settled)

    # jobs

    async def job(self, job_id: str) -> tuple[MarketJob, str] | None:
        return await self._read(lambda db: sqlite_jobs.get(db, job_id))

    async def add_job(self, job: MarketJob, submission: str) -> tuple[MarketJob, str, bool]:
        return await self._write(lambda db: sqlite_jobs.add(db, job, submission))

    async def change_job(
        self,
        old: MarketJob,
        new: MarketJob,
        *,
        session_key: bytes,
        counter: int,
        succeeded: int,
        failed: int,
    ) -> bool:
        def change(db: sqlite3.Connection) -> bool:
            stored = sqlite_jobs.get(db, old.job_id)
            if stored is None or stored[0] != old:
                return False
            good = sqlite_nodes.called(db, old.node_id, session_key, counter, succeeded, failed)
            if good:
                sqlite_jobs.replace(db, old, new)
            return good

        return await self._write(change)

    async def jobs_of(
        self, wallet: str, *, before: tuple[int, str] | None, limit: int
    ) -> Sequence[MarketJob]:
        address = to_checksum(wallet)
        return await self._read(lambda db: sqlite_jobs.of_wallet(db, address, before, limit))

    async def job_totals(self) -> JobTotals:
        return await self._read(sqlite_jobs.all_totals)

    # between instances: there are no others

    async def changes(self, after: Position, limit: int = 1_000) -> Sequence[Change] | None:
        return []

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def share(self, counts: Mapping[str, Count]) -> Mapping[str, int]:
        return self._counts.add(counts, time.time())

    # samples for charts

    async def add_samples(self, at: int, samples: Mapping[str, Mapping[str, Any]]) -> None:
        rows = [(series, at, json.dumps(figures)) for series, figures in samples.items()]
        sql = "INSERT OR IGNORE INTO samples (series, at, figures) VALUES (?,?,?)"
        await self._write(lambda db: db.executemany(sql, rows) and None)

    async def samples(
        self, series: str, *, since: int, until: int
    ) -> Sequence[tuple[int, Mapping[str, Any]]]:
        sql = "SELECT at, figures FROM samples WHERE series=? AND at BETWEEN ? AND ? ORDER BY at"
        rows = await self._read(lambda db: db.execute(sql, (series, since, until)).fetchall())
        return [(at, json.loads(figures)) for at, figures in rows]

    async def prune_samples(self, before: int, *, prefix: str = "") -> None:
        sql = "DELETE FROM samples WHERE at < ? AND substr(series, 1, length(?)) = ?"
        await self._write(lambda db: db.execute(sql, (before, prefix, prefix)) and None)

    # inside

    async def _write(
        self,
        work: Callable[[sqlite3.Connection], T],
        settled: Callable[[bool], None] | None = None,
    ) -> T:
        if self._writer is None:
            raise Unavailable("The market's database is closed.", retry_after=1)
        try:
            result = await self._writer.write(work, settled)
        except Unavailable:
            self._lost()
            raise
        self.unavailable_since = None
        return result

    async def _read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        db = self._reader
        if db is None:
            raise Unavailable("The market's database is closed.", retry_after=1)
        try:
            return await self._in_thread(lambda: query(db))
        except sqlite3.Error as error:
            self._lost()
            raise meaning(error) from None

    def _lost(self) -> None:
        if self.unavailable_since is None:
            self.unavailable_since = time.time()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
