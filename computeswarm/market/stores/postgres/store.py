"""The PostgreSQL store: one database, any number of instances."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import asyncpg

from computeswarm.core.crypto import to_checksum
from computeswarm.core.errors import ComputeSwarmError, ConfigError
from computeswarm.core.jobs import MarketJob
from computeswarm.market.rows import NodeColumns, NodeRow
from computeswarm.market.stores.loading import ahead
from computeswarm.market.stores.pending import Pending
from computeswarm.market.stores.postgres import jobs, log, nodes, samples
from computeswarm.market.stores.postgres.batch import AddJob, ChangeJob, Remove, Revoke, Save
from computeswarm.market.stores.postgres.bell import Bell
from computeswarm.market.stores.postgres.commit import COMMIT_SECONDS, Committer
from computeswarm.market.stores.postgres.errors import LOST, WRONG, Unsure, meaning, unavailable
from computeswarm.market.stores.postgres.leases import lock_leases, write_leases
from computeswarm.market.stores.postgres.line import (
    Connection,
    Health,
    Line,
    Lines,
    Work,
    clock_ahead,
    connect,
    place,
    transact,
)
from computeswarm.market.stores.postgres.schema import migrate
from computeswarm.market.stores.protocol import Change, Count, JobTotals, Leases, Position
from computeswarm.market.stores.write_behind import LEASES_A_COMMIT, WriteBehind

_READERS = 4
_PING_SECONDS = 2.0
_READ_SECONDS = 4.0
_LOAD_SECONDS = 60.0
_HOUSEKEEPING_SECONDS = 20.0
_HOUSE_LOCK = 7_226_931_043
T = TypeVar("T")


class PostgresStore:
    """See ``Store``."""

    kind = "postgresql"
    shared = True

    def __init__(self, url: str) -> None:
        self.instance = secrets.token_hex(4)
        self.clock_ahead = 0.0
        self._url = url
        self._health = Health()
        self._leases = WriteBehind(self._write_leases)
        self.flush_seconds = self._leases.seconds
        self._readers = Lines(url, self._health, _READERS)
        self._lease_line = Line(url, self._health)
        self._write_line = Line(url, self._health)
        self._house_line = Line(url, self._health)
        self._committer = Committer(self._write_line, self.instance)
        self._bell = Bell(url, self._health)
        self._housekeeper: asyncio.Task[None] | None = None

    @property
    def unavailable_since(self) -> float | None:
        return self._health.since

    @property
    def backlog(self) -> int:
        return len(self._leases)

    async def open(self) -> None:
        where = place(self._url)
        connection: Connection = None
        try:
            connection = await connect(self._url)
            await transact(connection, migrate)
            self.clock_ahead = await clock_ahead(connection)
        except WRONG as error:
            raise ConfigError(f"The market can't use the database {where}: {error}.") from None
        except ValueError:  # asyncpg's own words may hold the password
            raise ConfigError(f"The market's database URL is not right: {where}.") from None
        except OSError:
            raise unavailable(f"nobody is at {where}") from None
        except (Unsure, asyncpg.PostgresError, *LOST) as error:
            raise meaning(error) or unavailable(str(error)) from None
        finally:
            if connection is not None:
                connection.terminate()
        self._bell.start()
        self._housekeeper = asyncio.create_task(self._keep_house())

    async def close(self) -> None:
        if self._housekeeper is not None:
            self._housekeeper.cancel()
            await asyncio.gather(self._housekeeper, return_exceptions=True)
        await self._committer.finish()
        try:
            await self._leases.close()
        finally:
            await self._bell.close()
            lines = (self._write_line, self._lease_line, self._house_line, self._readers)
            await asyncio.gather(*(line.close() for line in lines))

    async def ping(self) -> None:
        await self._read(lambda c: c.fetchval("SELECT 1"), seconds=_PING_SECONDS)

    # nodes

    def load_nodes(self, batch: int = 10_000) -> AsyncIterator[NodeColumns]:
        def fetch(after: int) -> Awaitable[NodeColumns]:
            work = partial(nodes.load, after=after, limit=batch)
            return self._read(work, seconds=_LOAD_SECONDS)

        return ahead(fetch)

    async def position(self) -> Position:
        return await self._read(log.end)

    async def node(self, node_id: str) -> NodeRow | None:
        return (await self._read(lambda c: nodes.get(c, [node_id]))).get(node_id)

    async def save_node(self, row: NodeRow) -> NodeRow:
        saved: NodeRow = await self._committer.write(Save(row))
        return saved

    async def remove_node(self, node_id: str, *, session_key: bytes, counter: int) -> bool:
        return bool(await self._committer.write(Remove(node_id, session_key, counter)))

    async def revoke_node(self, node_id: str, *, seq: int) -> bool:
        return bool(await self._committer.write(Revoke(node_id, seq)))

    async def forget_nodes(
        self, *, before: float, proven_before: float, limit: int = 1_000
    ) -> Sequence[str]:
        async def forget(connection: Connection) -> list[str]:
            due = await nodes.long_gone(connection, before, proven_before, limit)
            if not due:
                return []
            await nodes.lock(connection, due)  # first nodes, then leases, as all do
            await lock_leases(connection)
            gone = await nodes.forget(connection, before, proven_before, due)
            if gone:
                await log.append(connection, self.instance, [log.node_entry(one) for one in gone])
            return gone

        try:
            return await self._house_line.use(
                lambda c: transact(c, forget), seconds=_HOUSEKEEPING_SECONDS
            )
        except asyncpg.PostgresError as error:
            raise unavailable(str(error)) from None

    def touch(self, leases: Leases) -> None:
        self._leases.touch(leases)

    async def flush(self) -> None:
        await self._leases.flush()

    async def _write_leases(self, pending: Pending) -> None:
        taken = pending.take(LEASES_A_COMMIT)

        async def write(connection: Connection) -> None:
            await write_leases(connection, self.instance, taken)

        try:
            await self._lease_line.use(lambda c: transact(c, write), seconds=COMMIT_SECONDS)
        except asyncpg.PostgresError as error:
            pending.put_back(taken)
            raise unavailable(str(error)) from None
        except BaseException:
            pending.put_back(taken)
            raise
        pending.written(taken)

    # jobs

    async def job(self, job_id: str) -> tuple[MarketJob, str] | None:
        return (await self._read(lambda c: jobs.get(c, [job_id]))).get(job_id)

    async def add_job(self, job: MarketJob, submission: str) -> tuple[MarketJob, str, bool]:
        kept: tuple[MarketJob, str, bool] = await self._committer.write(AddJob(job, submission))
        return kept

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
        write = ChangeJob(
            old,
            new,
            session_key=session_key,
            counter=counter,
            succeeded=succeeded,
            failed=failed,
        )
        return bool(await self._committer.write(write))

    async def jobs_of(
        self, wallet: str, *, before: tuple[int, str] | None, limit: int
    ) -> Sequence[MarketJob]:
        address = to_checksum(wallet)
        return await self._read(lambda c: jobs.of_wallet(c, address, before, limit))

    async def job_totals(self) -> JobTotals:
        return await self._read(jobs.all_totals)

    # between instances

    async def changes(self, after: Position, limit: int = 1_000) -> Sequence[Change] | None:
        self._bell.hush()
        return await self._read(lambda c: log.read(c, after, limit))

    async def wait(self, seconds: float) -> None:
        await self._bell.wait(seconds)

    async def share(self, counts: Mapping[str, Count]) -> Mapping[str, int]:
        return await self._read(lambda c: samples.share(c, counts)) if counts else {}

    # samples for charts

    async def add_samples(self, at: int, figures: Mapping[str, Mapping[str, Any]]) -> None:
        await self._read(lambda c: samples.add(c, at, figures))

    async def samples(
        self, series: str, *, since: int, until: int
    ) -> Sequence[tuple[int, Mapping[str, Any]]]:
        return await self._read(lambda c: samples.read(c, series, since, until))

    async def prune_samples(self, before: int, *, prefix: str = "") -> None:
        await self._read(lambda c: samples.prune(c, before, prefix))

    # inside

    async def _read(self, work: Work[T], *, seconds: float = _READ_SECONDS) -> T:
        try:
            return await self._readers.use(work, seconds=seconds)
        except asyncpg.PostgresError as error:
            raise unavailable(str(error)) from None

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(_HOUSEKEEPING_SECONDS)
            # another time, where it can't be now
            with suppress(ComputeSwarmError, asyncpg.PostgresError):
                self.clock_ahead = await self._house_line.use(clock_ahead, seconds=_PING_SECONDS)
                await self._house_line.use(
                    lambda c: transact(c, tidy), seconds=_HOUSEKEEPING_SECONDS
                )


async def tidy(connection: Connection) -> None:
    """Forget and sum up what has gathered, unless another instance is at it."""
    if await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _HOUSE_LOCK):
        await log.prune(connection)
        await jobs.fold(connection)
        await samples.forget(connection)
