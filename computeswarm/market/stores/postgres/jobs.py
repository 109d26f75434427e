"""The jobs in PostgreSQL: reading, and writing many at once."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from computeswarm.core.jobs import MarketJob
from computeswarm.market.stores.postgres.line import Connection
from computeswarm.market.stores.protocol import JobTotals
from computeswarm.market.stores.rules import Sum, totals

Kept = tuple[MarketJob, str]
_ROWS = "SELECT job_id, job, submission FROM jobs WHERE job_id = ANY($1::text[])"
_INSERT = (
    "INSERT INTO jobs (job_id, buyer, seller, created_at, job, submission)"
    " SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[],"
    " $6::text[]) AS g (job_id, buyer, seller, created_at, job, submission) ORDER BY job_id"
    " ON CONFLICT (job_id) DO NOTHING RETURNING job_id"
)
_CHANGE = (
    "UPDATE jobs AS j SET job=g.job FROM unnest($1::text[], $2::text[]) AS g (job_id, job)"
    " WHERE j.job_id = g.job_id"
)
_ADD_SUMS = (
    "INSERT INTO totals SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[],"
    " $4::numeric[], $5::numeric[])"
)
_TOTALS = (
    "SELECT state, sum(jobs)::bigint, sum(settled)::bigint, sum(metered_ms) AS metered_ms,"
    " sum(paid) AS paid FROM totals GROUP BY state"
)
_FOLD = (
    "WITH folded AS (DELETE FROM totals RETURNING *) INSERT INTO totals SELECT state, sum(jobs),"
    " sum(settled), sum(metered_ms), sum(paid) FROM folded GROUP BY state"
)
_OF_WALLET = (
    "(SELECT job_id, created_at, job FROM jobs WHERE buyer=$1"
    " AND (created_at, job_id) < ($2, $3) ORDER BY created_at DESC, job_id DESC LIMIT $4)"
    " UNION (SELECT job_id, created_at, job FROM jobs WHERE seller=$1"
    " AND (created_at, job_id) < ($2, $3) ORDER BY created_at DESC, job_id DESC LIMIT $4)"
    " ORDER BY created_at DESC, job_id DESC LIMIT $4"
)
_NEWEST = (2**62, "")


async def get(connection: Connection, job_ids: Collection[str]) -> dict[str, Kept]:
    """Those of them that there are, with their submissions."""
    return _kept(await connection.fetch(_ROWS, list(job_ids)))


async def lock(connection: Connection, job_ids: Collection[str]) -> dict[str, Kept]:
    """Those of them that there are; they stay as they are until the transaction ends."""
    sql = f"{_ROWS} ORDER BY job_id FOR UPDATE"
    return _kept(await connection.fetch(sql, sorted(job_ids)))


async def insert(connection: Connection, jobs: Sequence[Kept]) -> bool:
    """Add new jobs; False where another instance was faster with one of them."""
    columns = zip(
        *(
            (j.job_id, j.buyer, j.seller, j.created_at, j.model_dump_json(), submission)
            for j, submission in jobs
        ),
        strict=True,
    )
    made = await connection.fetch(_INSERT, *columns)
    return len(made) == len(jobs)


async def change(connection: Connection, jobs: Sequence[MarketJob]) -> None:
    """Replace jobs; they are locked."""
    ids = [job.job_id for job in jobs]
    await connection.execute(_CHANGE, ids, [job.model_dump_json() for job in jobs])


async def add_sums(connection: Connection, sums: Sequence[Sum]) -> None:
    """Note what steps add to the sums."""
    columns = zip(*((s.state, s.jobs, s.settled, s.metered_ms, s.paid) for s in sums), strict=True)
    await connection.execute(_ADD_SUMS, *columns)


async def all_totals(connection: Connection) -> JobTotals:
    """See ``Store.job_totals``."""
    rows = await connection.fetch(_TOTALS)
    return totals(
        [Sum(s, jobs, settled, int(ms), int(paid)) for s, jobs, settled, ms, paid in rows]
    )


async def fold(connection: Connection) -> None:
    """Sum up what has been added since the last time."""
    await connection.execute(_FOLD)


async def of_wallet(
    connection: Connection, wallet: str, before: tuple[int, str] | None, limit: int
) -> list[MarketJob]:
    """See ``Store.jobs_of``; the address as it is stored."""
    rows = await connection.fetch(_OF_WALLET, wallet, *(before or _NEWEST), limit)
    return [MarketJob.model_validate_json(job) for _, _, job in rows]


def _kept(rows: Sequence[Sequence[str]]) -> dict[str, Kept]:
    return {job_id: (MarketJob.model_validate_json(job), text) for job_id, job, text in rows}
