"""The buyer's jobs on disk: enough to carry on with each of them after any crash."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from computeswarm.buyer.offer import Offer
from computeswarm.core.channels import SCHEME
from computeswarm.core.errors import ConfigError, JobNotFound
from computeswarm.core.jobs import ExecuteRequest, JobView
from computeswarm.core.quotes import Quote
from computeswarm.core.signing import parse, parse_json
from computeswarm.core.states import JobState, reachable
from computeswarm.payments.storage import connect, transaction


class Stage(StrEnum):
    """How far a purchase has come. From PAYING on, money may be on its way."""

    QUOTED = "quoted"
    PAYING = "paying"
    PAID = "paid"
    ENDED = "ended"
    ABANDONED = "abandoned"


_STEPS: dict[Stage, frozenset[Stage]] = {
    Stage.QUOTED: frozenset({Stage.PAYING, Stage.PAID, Stage.ABANDONED}),
    # back to nothing only where the seller has refused the payment
    Stage.PAYING: frozenset({Stage.PAID, Stage.ABANDONED}),
    Stage.PAID: frozenset({Stage.ENDED}),
    Stage.ENDED: frozenset(),
    Stage.ABANDONED: frozenset(),
}
_WAITING = {
    Stage.QUOTED: JobState.CREATED,
    Stage.PAYING: JobState.AWAITING_PAYMENT,
    Stage.PAID: JobState.QUEUED,
    Stage.ENDED: JobState.SELLER_LOST,
    Stage.ABANDONED: JobState.CANCELLED,
}

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    job_id TEXT PRIMARY KEY,
    stage TEXT NOT NULL,
    node_id TEXT NOT NULL,
    node_name TEXT NOT NULL,
    seller TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    name TEXT NOT NULL,
    budget INTEGER NOT NULL,
    access_key TEXT NOT NULL,
    quote TEXT NOT NULL,
    disk_bytes INTEGER NOT NULL,
    request TEXT NOT NULL,
    sources TEXT NOT NULL,
    view TEXT,
    reason TEXT NOT NULL DEFAULT '',
    created_at REAL NOT NULL,
    paid_at REAL
);
CREATE INDEX IF NOT EXISTS jobs_by_time ON jobs (created_at);
"""
_COLUMNS = (
    "job_id, stage, node_id, node_name, seller, endpoint, name, budget, access_key, quote,"
    " disk_bytes, view, reason, created_at, paid_at"
)


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One job as the buyer knows it. Money in atoms, times in unix seconds.

    ``view`` is what the seller said last; None before the first answer.
    """

    job_id: str
    stage: Stage
    node_id: str
    node_name: str
    seller: str
    endpoint: str
    name: str
    budget: int
    access_key: str
    quote: Quote
    disk_bytes: int
    view: JobView | None
    reason: str
    created_at: float
    paid_at: float | None

    @property
    def state(self) -> JobState:
        """The seller's word, or what our own stage implies."""
        return self.view.state if self.view else _WAITING[self.stage]

    @property
    def by_channel(self) -> bool:
        """Whether it is paid by vouchers on a deposit."""
        return self.quote.scheme == SCHEME

    @property
    def price_per_hour(self) -> int:
        """Atoms for the whole job."""
        return self.quote.price_per_hour

    @property
    def paid(self) -> int:
        """Atoms settled or vouched for, as the seller shows them."""
        return self.view.paid if self.view else 0

    @property
    def cost(self) -> int:
        """Atoms used up, as the seller meters them."""
        return self.view.cost if self.view else 0

    @property
    def exit_code(self) -> int | None:
        return self.view.exit_code if self.view else None


class JobJournal:
    """The jobs in one SQLite file; several processes may share it.

    Raises:
        StorageFull: there is no room; whatever was to be written was not.
    """

    def __init__(
        self, path: Path, *, on_view: Callable[[JobRecord, JobView], None] | None = None
    ) -> None:
        """``on_view`` is shown whatever a seller says that fits the job, before it is kept here."""
        self._db = connect(path, _SCHEMA)
        self._on_view = on_view

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def add(self, offer: Offer, request: ExecuteRequest, *, budget: int, now: float) -> JobRecord:
        """Store a purchase before anything is signed; the same offer again is the same purchase."""
        record, spec = offer.node.info, offer.spec
        with transaction(self._db) as db:
            db.execute(
                "INSERT OR IGNORE INTO jobs (job_id, stage, node_id, node_name, seller, endpoint,"
                " name, budget, access_key, quote, disk_bytes, request, sources, created_at)"
                " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                (
                    *(offer.job_id, Stage.QUOTED.value, offer.node.node_id, record.name),
                    *(record.wallet, record.endpoint, spec.name, budget, request.access_key),
                    *(offer.quote.model_dump_json(), spec.disk_bytes, request.model_dump_json()),
                    *(json.dumps({k: str(v) for k, v in offer.sources.items()}), now),
                ),
            )
        return self.get(offer.job_id)

    def get(self, job_id: str) -> JobRecord:
        """One job.

        Raises:
            JobNotFound: it is not in the journal.
        """
        found = self._select("job_id = ?", job_id)
        if not found:
            raise JobNotFound(f"There is no job {job_id[:60]}; `computeswarm jobs` lists yours.")
        return found[0]

    def find(self, prefix: str) -> JobRecord:
        """The one job whose id starts so, with or without ``job-``.

        Raises:
            JobNotFound: none, or several.
        """
        bare = prefix.strip().removeprefix("job-")
        usable = bool(bare) and bare.isascii() and bare.isalnum()
        found = self._select("job_id GLOB ? LIMIT 2", f"job-{bare}*") if usable else []
        if len(found) == 1:
            return found[0]
        if found:
            raise JobNotFound(f"Several jobs start with {prefix[:60]}; type more of the id.")
        raise JobNotFound(f"There is no job {prefix[:60]!r}; `computeswarm jobs` lists yours.")

    def all(self) -> list[JobRecord]:
        """All jobs, newest first."""
        return self._select("1 ORDER BY created_at DESC, rowid DESC")

    def unfinished(self) -> list[JobRecord]:
        """Those that are neither ended nor abandoned, oldest first."""
        return self._select("stage IN ('quoted', 'paying', 'paid') ORDER BY created_at")

    def request(self, job_id: str) -> ExecuteRequest:
        """What was or will be posted to the seller, inline files and all."""
        return parse_json(ExecuteRequest, self._one("request", job_id))

    def sources(self, job_id: str) -> Mapping[str, Path]:
        """The local files of the uploads, by digest."""
        found: dict[str, str] = json.loads(self._one("sources", job_id))
        return {digest: Path(path) for digest, path in found.items()}

    def step(self, job_id: str, stage: Stage, *, reason: str = "", now: float = 0) -> JobRecord:
        """Go one stage on; going where the purchase already is changes nothing.

        An ended purchase drops its inline files and variables: they may hold secrets.
        """
        with transaction(self._db) as db:
            old = Stage(self._one("stage", job_id))
            if stage in _STEPS[old]:
                db.execute(
                    "UPDATE jobs SET stage = ?, reason = ?, paid_at = COALESCE(paid_at, ?)"
                    " WHERE job_id = ?",
                    (stage.value, reason, now if stage is Stage.PAID else None, job_id),
                )
                if not _STEPS[stage]:
                    db.execute(
                        "UPDATE jobs SET request = '', sources = '{}' WHERE job_id = ?", (job_id,)
                    )
        return self.get(job_id)

    def see(self, view: JobView, *, reason: str = "") -> JobRecord:
        """Keep what the seller says now, unless it contradicts how the job ended or its terms."""
        record = self.get(view.job_id)
        if record.view is not None and not _follows(record.view, view):
            return record
        if self._on_view is not None:
            self._on_view(record, view)
        if record.view == view:
            return record
        with transaction(self._db) as db:
            db.execute(
                "UPDATE jobs SET view = ?, reason = ? WHERE job_id = ?",
                (view.model_dump_json(), reason or record.reason, view.job_id),
            )
        if view.state.terminal and record.stage is Stage.PAID:
            return self.step(view.job_id, Stage.ENDED, reason=reason or record.reason)
        return self.get(view.job_id)

    def _one(self, column: str, job_id: str) -> str:
        row = self._db.execute(
            f"SELECT {column} FROM jobs WHERE job_id = ?",  # noqa: S608 - our own column names
            (job_id,),
        ).fetchone()
        if row is None:
            raise JobNotFound(f"There is no job {job_id[:60]}; `computeswarm jobs` lists yours.")
        return str(row[0])

    def _select(self, where: str, *values: object) -> list[JobRecord]:
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM jobs WHERE {where}", values)  # noqa: S608
        return [_record(row) for row in rows]


def _follows(old: JobView, new: JobView) -> bool:
    same = old.node_id == new.node_id and old.price_per_hour == new.price_per_hour
    return same and (old.state == new.state or reachable(old.state, new.state))


def _record(row: sqlite3.Row) -> JobRecord:
    try:
        return JobRecord(
            job_id=row["job_id"],
            stage=Stage(row["stage"]),
            node_id=row["node_id"],
            node_name=row["node_name"],
            seller=row["seller"],
            endpoint=row["endpoint"],
            name=row["name"],
            budget=row["budget"],
            access_key=row["access_key"],
            quote=parse(Quote, json.loads(row["quote"])),
            disk_bytes=row["disk_bytes"],
            view=None if row["view"] is None else parse_json(JobView, row["view"]),
            reason=row["reason"],
            created_at=row["created_at"],
            paid_at=row["paid_at"],
        )
    except ValueError as error:
        raise ConfigError("The journal of jobs is damaged; move jobs.db away.") from error
