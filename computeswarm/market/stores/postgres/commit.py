"""One task that commits whatever writes have gathered, in a few round trips."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from computeswarm.core.errors import ComputeSwarmError, Unavailable, Unprocessable
from computeswarm.market.stores.postgres import jobs, nodes
from computeswarm.market.stores.postgres.batch import Batch, Write
from computeswarm.market.stores.postgres.errors import AGAIN
from computeswarm.market.stores.postgres.leases import lock_leases
from computeswarm.market.stores.postgres.line import Connection, Line, transact
from computeswarm.market.stores.postgres.log import append

COMMIT_SECONDS = 12.0
_BATCH = 1_000
_TRIES = 5


class _Raced(Exception):
    """Another instance added the same node or job at the same time."""


class Committer:
    """Takes writes in the order they come; each is durable before its caller goes on."""

    def __init__(self, line: Line, instance: str) -> None:
        self._line = line
        self._instance = instance
        self._waiting: list[tuple[Write, asyncio.Future[Any]]] = []
        self._task: asyncio.Task[None] | None = None

    async def write(self, write: Write) -> Any:
        """Do it, together with others'.

        Raises:
            ComputeSwarmError: as the write says.
            StorageFull, Unavailable: not done, or nobody knows.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((write, future))
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run())
        return await future

    async def finish(self) -> None:
        """Wait until nothing waits any more."""
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        while self._waiting:
            batch = self._waiting[:_BATCH]
            del self._waiting[:_BATCH]
            results = await self._results([write for write, _ in batch])
            for (_, future), result in zip(batch, results, strict=True):
                if future.done():
                    continue  # its caller was cancelled meanwhile
                if isinstance(result, ComputeSwarmError):
                    future.set_exception(result)
                else:
                    future.set_result(result)

    async def _results(self, writes: Sequence[Write]) -> list[Any]:
        for attempt in range(_TRIES):
            if attempt:
                await asyncio.sleep(random.uniform(0, 0.02 * 2**attempt))  # noqa: S311 - no secret
            try:
                return await self._line.use(
                    lambda c: transact(c, lambda c: _commit(c, self._instance, writes)),
                    seconds=COMMIT_SECONDS,
                )
            except (*AGAIN, _Raced):
                continue
            except ComputeSwarmError as error:
                return [type(error)(error.detail, **error.extra) for _ in writes]
            except Exception as error:
                if len(writes) == 1:
                    return [Unprocessable(f"The market can't store this: {error}.")]
                # one of them can't be stored: it must not take the others with it
                return [result for write in writes for result in await self._results([write])]
        return [Unavailable("The market is too busy; try again.", retry_after=1) for _ in writes]


async def _commit(connection: Connection, instance: str, writes: Sequence[Write]) -> list[Any]:
    batch = await _locked(connection, writes)
    results: list[Any] = []
    for write in writes:
        try:
            results.append(write.apply(batch))
        except ComputeSwarmError as error:
            results.append(error)
    await _write_nodes(connection, batch)
    await _write_jobs(connection, batch)
    if batch.log:
        await append(connection, instance, batch.log)
    return results


async def _locked(connection: Connection, writes: Sequence[Write]) -> Batch:
    node_ids = {write.node_id for write in writes if write.node_id}
    job_ids = {write.job_id for write in writes if write.job_id}
    batch = Batch({}, {})
    if node_ids:
        batch.nodes = await nodes.lock(connection, node_ids)
        missing = len(node_ids) - len(batch.nodes)
        if missing:
            batch.numbers = await nodes.numbers(connection, missing)
    if job_ids:
        batch.jobs = await jobs.lock(connection, job_ids)
    return batch


async def _write_nodes(connection: Connection, batch: Batch) -> None:
    added, renewed = list(batch.added.values()), list(batch.renewed.values())
    if added and not await nodes.insert(connection, added):
        raise _Raced
    if renewed:
        await nodes.renew(connection, renewed)
    if batch.called:
        await nodes.change(connection, list(batch.called.values()))
    if renewed:
        await lock_leases(connection)
    if added or renewed:
        await nodes.begin_leases(connection, added + renewed)


async def _write_jobs(connection: Connection, batch: Batch) -> None:
    new = [batch.jobs[job_id] for job_id in batch.added_jobs]
    if new and not await jobs.insert(connection, new):
        raise _Raced
    changed = [batch.jobs[job_id][0] for job_id in batch.changed_jobs]
    if changed:
        await jobs.change(connection, changed)
    if batch.sums:
        await jobs.add_sums(connection, batch.sums)
