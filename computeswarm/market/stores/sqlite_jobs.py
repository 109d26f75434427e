"""The jobs in SQLite: statements, each for use inside one of the writer's transactions."""

from __future__ import annotations

import sqlite3

from computeswarm.core.jobs import MarketJob
from computeswarm.market.stores.protocol import JobTotals
from computeswarm.market.stores.rules import Sum, difference, totals

# in halves: sellers report these numbers, and their sums don't fit SQLite's integers
_HALF_BITS = 26
_LOW = (1 << _HALF_BITS) - 1
_ADD_SUM = (
    "INSERT INTO totals VALUES (?,?,?,?,?,?,?) ON CONFLICT (state) DO UPDATE SET"
    " jobs=jobs+excluded.jobs, settled=settled+excluded.settled,"
    " ms_high=ms_high+excluded.ms_high, ms_low=ms_low+excluded.ms_low,"
    " paid_high=paid_high+excluded.paid_high, paid_low=paid_low+excluded.paid_low"
)
_PAGE = (
    "SELECT job_id, job, created_at FROM jobs WHERE {whose}=?"
    " AND (created_at, job_id) < (?, ?) ORDER BY created_at DESC, job_id DESC LIMIT ?"
)
_NEWEST = (2**62, "")


def get(db: sqlite3.Connection, job_id: str) -> tuple[MarketJob, str] | None:
    """A job and its submission."""
    row = db.execute("SELECT job, submission FROM jobs WHERE job_id=?", (job_id,)).fetchone()
    return None if row is None else (MarketJob.model_validate_json(row[0]), row[1])


def add(db: sqlite3.Connection, job: MarketJob, submission: str) -> tuple[MarketJob, str, bool]:
    """See ``Store.add_job``."""
    kept = get(db, job.job_id)
    if kept is not None:
        return *kept, False
    values = (job.job_id, job.buyer, job.seller, job.created_at, job.model_dump_json(), submission)
    db.execute("INSERT INTO jobs VALUES (?,?,?,?,?,?)", values)
    _count(db, None, job)
    return job, submission, True


def replace(db: sqlite3.Connection, old: MarketJob, new: MarketJob) -> None:
    """Take a job's next step; that it is still ``old`` was seen in this transaction."""
    db.execute("UPDATE jobs SET job=? WHERE job_id=?", (new.model_dump_json(), old.job_id))
    _count(db, old, new)


def of_wallet(
    db: sqlite3.Connection, wallet: str, before: tuple[int, str] | None, limit: int
) -> list[MarketJob]:
    """See ``Store.jobs_of``; the address as it is stored."""
    found: dict[str, tuple[int, str, str]] = {}
    for whose in ("buyer", "seller"):
        sql = _PAGE.format(whose=whose)
        for job_id, job, created_at in db.execute(sql, (wallet, *(before or _NEWEST), limit)):
            found[job_id] = created_at, job_id, job
    newest = sorted(found.values(), reverse=True)[:limit]
    return [MarketJob.model_validate_json(job) for _, _, job in newest]


def all_totals(db: sqlite3.Connection) -> JobTotals:
    """See ``Store.job_totals``."""
    return totals(
        [
            Sum(state, jobs, settled, _whole(ms_high, ms_low), _whole(paid_high, paid_low))
            for state, jobs, settled, ms_high, ms_low, paid_high, paid_low in db.execute(
                "SELECT * FROM totals"
            )
        ]
    )


def _count(db: sqlite3.Connection, old: MarketJob | None, new: MarketJob) -> None:
    for s in difference(old, new):
        halves = (*_halves(s.metered_ms), *_halves(s.paid))
        db.execute(_ADD_SUM, (s.state, s.jobs, s.settled, *halves))


def _halves(number: int) -> tuple[int, int]:
    return number >> _HALF_BITS, number & _LOW


def _whole(high: int, low: int) -> int:
    return (high << _HALF_BITS) + low
