"""The seller's jobs on disk: every step is durable before anyone acts on it."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from computeswarm.core.errors import Conflict, JobNotFound
from computeswarm.core.jobs import JobSpec, Payment, Phases
from computeswarm.core.quotes import Quote
from computeswarm.core.states import JobState, check_recovery, check_transition
from computeswarm.payments.storage import connect, transaction
from computeswarm.seller.answers import SCHEMA as ANSWERS
from computeswarm.seller.answers import Answers
from computeswarm.seller.job import PAYMENTS_HELD, Job

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    job_id TEXT PRIMARY KEY,
    authorization TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    spec TEXT NOT NULL,
    quote TEXT NOT NULL,
    buyer TEXT NOT NULL,
    key_hash TEXT NOT NULL,
    exit_code INTEGER,
    metered_ms INTEGER NOT NULL DEFAULT 0,
    cost INTEGER NOT NULL DEFAULT 0,
    refund INTEGER NOT NULL DEFAULT 0,
    refund_filed INTEGER NOT NULL DEFAULT 0,
    channel TEXT NOT NULL DEFAULT '',
    deposit INTEGER NOT NULL DEFAULT 0,
    deposit_tx TEXT NOT NULL DEFAULT '',
    bare INTEGER NOT NULL DEFAULT 0,
    slices_paid INTEGER NOT NULL DEFAULT 0,
    paid INTEGER NOT NULL DEFAULT 0,
    phases TEXT NOT NULL,
    outputs TEXT NOT NULL DEFAULT '',
    outputs_until INTEGER,
    created_ms INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state);
CREATE INDEX IF NOT EXISTS jobs_by_time ON jobs (created_ms);
CREATE TABLE IF NOT EXISTS payments (
    job_id TEXT NOT NULL,
    slice INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    tx TEXT NOT NULL,
    payer TEXT NOT NULL,
    PRIMARY KEY (job_id, slice)
);
CREATE TABLE IF NOT EXISTS restarts (job_id TEXT PRIMARY KEY, times INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS secrets (job_id TEXT PRIMARY KEY, sealed TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value BLOB NOT NULL);
"""
_PHASE = {
    JobState.QUEUED: "queued",
    JobState.STARTING: "starting",
    JobState.RUNNING: "running",
}


class JobStore:
    """``jobs.db``. Jobs that have not ended are held in memory too, since nobody else writes."""

    def __init__(self, path: Path) -> None:
        self._db = connect(path, _SCHEMA + ANSWERS)
        self.answers = Answers(self._db)
        ended = [state for state in JobState if state.terminal]
        marks = ",".join("?" * len(ended))
        rows = self._db.execute(
            f"SELECT * FROM jobs WHERE state NOT IN ({marks}) ORDER BY created_ms",  # noqa: S608
            ended,
        )
        self._live = {row["job_id"]: self._read(row) for row in rows.fetchall()}

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def secret(self) -> bytes:
        """32 random bytes that stay the same for this seller's life."""
        with transaction(self._db) as db:
            db.execute(
                "INSERT OR IGNORE INTO facts VALUES ('secret', ?)", (secrets.token_bytes(32),)
            )
        row = self._db.execute("SELECT value FROM facts WHERE name = 'secret'").fetchone()
        return bytes(row[0])

    def fact(self, name: str) -> bytes | None:
        """Something small that was kept under this name."""
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else bytes(row[0])

    def keep_fact(self, name: str, value: bytes) -> None:
        """Keep it over restarts, in the place of what was there."""
        with transaction(self._db) as db:
            db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def live(self) -> list[Job]:
        """Jobs that have not ended, oldest first."""
        return list(self._live.values())

    def find(self, job_id: str) -> Job | None:
        """A job by its id."""
        if (job := self._live.get(job_id)) is not None:
            return job
        return self._one("job_id = ?", job_id)

    def get(self, job_id: str) -> Job:
        """A job by its id.

        Raises:
            JobNotFound: none of ours.
        """
        job = self.find(job_id)
        if job is None:
            raise JobNotFound("There is no such job at this seller; check its id.")
        return job

    def bought_by(self, authorization: str) -> Job | None:
        """The job that a payment (``payer:nonce``) bought."""
        return self._one("authorization = ?", authorization)

    def recent(self, limit: int) -> list[Job]:
        """The newest jobs, newest first."""
        rows = self._db.execute("SELECT * FROM jobs ORDER BY created_ms DESC LIMIT ?", (limit,))
        return [self._live.get(row["job_id"]) or self._read(row) for row in rows.fetchall()]

    def add(self, job: Job, sealed_secrets: str = "") -> Job:
        """Write down a job whose payment is about to be broadcast, with its sealed secrets.

        The same job with the same payment may come again after a failure.

        Raises:
            Conflict: its id, or its payment, belongs to another job.
        """
        known = self.find(job.job_id) or self.bought_by(job.authorization)
        if known is not None:
            same = (known.job_id, known.authorization) == (job.job_id, job.authorization)
            if same and known.state is JobState.AWAITING_PAYMENT:
                return known
            raise Conflict("There is a job with this id already; make a new id.")
        with transaction(self._db) as db:
            db.execute(
                "INSERT INTO jobs (job_id, authorization, state, spec, quote, buyer, key_hash,"
                " bare, phases, created_ms) VALUES (?,?,?,?,?,?,?,?,?,?)",
                (
                    job.job_id,
                    job.authorization,
                    job.state,
                    job.spec.model_dump_json(),
                    job.quote.model_dump_json(),
                    job.buyer,
                    job.key_hash,
                    job.bare,
                    job.phases.model_dump_json(),
                    job.phases.created,
                ),
            )
            if sealed_secrets:
                db.execute("INSERT INTO secrets VALUES (?, ?)", (job.job_id, sealed_secrets))
        self._live[job.job_id] = job
        return job

    def sealed_secrets(self, job_id: str) -> str:
        """The box that came with a job; empty once it runs or has ended."""
        row = self._db.execute("SELECT sealed FROM secrets WHERE job_id = ?", (job_id,)).fetchone()
        return str(row[0]) if row else ""

    def forget_unpaid(self, job_id: str) -> None:
        """Drop a job that was never paid for."""
        with transaction(self._db) as db:
            db.execute(
                "DELETE FROM secrets WHERE job_id IN"
                " (SELECT job_id FROM jobs WHERE job_id = ? AND state = ?)",
                (job_id, JobState.AWAITING_PAYMENT),
            )
            dropped = db.execute(
                "DELETE FROM jobs WHERE job_id = ? AND state = ?",
                (job_id, JobState.AWAITING_PAYMENT),
            ).rowcount
            if dropped:
                db.execute("DELETE FROM asked WHERE job_id = ?", (job_id,))
        job = self._live.get(job_id)
        if job is not None and job.state is JobState.AWAITING_PAYMENT:
            del self._live[job_id]

    def payment(self, job_id: str, index: int) -> Payment | None:
        """The settled payment of one slice."""
        row = self._db.execute(
            "SELECT * FROM payments WHERE job_id = ? AND slice = ?", (job_id, index)
        ).fetchone()
        return None if row is None else _payment(row)

    def pay(self, job_id: str, payment: Payment) -> Job:
        """Write down a settled slice that is not known yet."""
        job = self.get(job_id)
        job = replace(
            job,
            slices_paid=job.slices_paid + 1,
            paid=job.paid + payment.amount,
            payments=(*job.payments, payment)[-PAYMENTS_HELD:],
        )
        with transaction(self._db) as db:
            db.execute(
                "INSERT INTO payments VALUES (?,?,?,?,?)",
                (job_id, payment.slice, payment.amount, payment.transaction, payment.payer),
            )
            _write_sums(db, job)
        return self._keep(job)

    def unpay(self, job_id: str, payment: Payment) -> Job:
        """Take a settled slice out again: the chain took the payment back for good."""
        job = self.get(job_id)
        job = replace(
            job,
            slices_paid=job.slices_paid - 1,
            paid=job.paid - payment.amount,
            payments=tuple(one for one in job.payments if one.slice != payment.slice),
        )
        with transaction(self._db) as db:
            db.execute(
                "DELETE FROM payments WHERE job_id = ? AND slice = ?", (job_id, payment.slice)
            )
            _write_sums(db, job)
        return self._keep(job)

    def open_channel(self, job_id: str, channel: str, deposit: int, transaction_: str) -> Job:
        """Write down that the deposit of a job's channel has arrived, and with it slice 0."""
        job = self.get(job_id)
        return self._write(
            replace(
                job,
                channel=channel,
                deposit=deposit,
                deposit_tx=transaction_,
                slices_paid=1,
                paid=job.quote.paid_through(0),
            )
        )

    def tick(self, job_id: str, index: int) -> Job:
        """Count that slice ``index`` of a job with a channel is vouched for.

        In memory until the job's next step: the voucher is durable where it is kept, and the
        channel's account brings the count up to it after a crash.
        """
        job = self.get(job_id)
        return self._keep(replace(job, slices_paid=index + 1, paid=job.quote.paid_through(index)))

    def advance(
        self, job_id: str, state: JobState, *, at_ms: int, durable: bool = True, **changes: Any
    ) -> Job:
        """Take one step of the state table, with what else changes by it.

        Without ``durable`` the step may be lost with the machine's power (not with this process):
        enough for steps that no money depends on.

        Raises:
            InvalidTransition: the table has no such step.
        """
        job = self.get(job_id)
        check_transition(job.state, state)
        phase = "ended" if state.terminal else _PHASE[state]
        phases = job.phases.model_copy(update={phase: at_ms, **changes.pop("phases", {})})
        if state.terminal:
            # what the buyer sent is his alone once the job has ended
            changes["spec"] = job.spec.without_content().model_copy(update={"env": {}})
        with nullcontext() if durable else self._relaxed():
            return self._write(replace(job, state=state, phases=phases, **changes))

    def step_back(self, job_id: str) -> Job:
        """A job that was starting as the seller was interrupted waits again, at its old place.

        Raises:
            InvalidTransition: it was not starting.
        """
        job = self.get(job_id)
        check_recovery(job.state, JobState.QUEUED)
        phases = job.phases.model_copy(update={"starting": None})
        with transaction(self._db) as db:
            db.execute(
                "INSERT INTO restarts VALUES (?, 1)"
                " ON CONFLICT (job_id) DO UPDATE SET times = times + 1",
                (job_id,),
            )
            db.execute(
                "UPDATE jobs SET state = ?, phases = ? WHERE job_id = ?",
                (JobState.QUEUED, phases.model_dump_json(), job_id),
            )
        return self._keep(replace(job, state=JobState.QUEUED, phases=phases))

    def restarts(self, job_id: str) -> int:
        """How often it has stepped back."""
        row = self._db.execute("SELECT times FROM restarts WHERE job_id = ?", (job_id,)).fetchone()
        return int(row[0]) if row else 0

    def update(self, job_id: str, **changes: Any) -> Job:
        """Change something other than the state."""
        return self._write(replace(self.get(job_id), **changes))

    def ended_by_state(self) -> dict[JobState, int]:
        """How many jobs ever ended in each state."""
        ended = [state for state in JobState if state.terminal]
        rows = self._db.execute("SELECT state, COUNT(*) FROM jobs GROUP BY state").fetchall()
        found = {row[0]: row[1] for row in rows}
        return {state: found.get(str(state), 0) for state in ended}

    def unfiled_refunds(self) -> list[Job]:
        """Ended jobs whose account was not handed to the payments, for a crash came between."""
        rows = self._db.execute(
            "SELECT * FROM jobs WHERE (refund > 0 OR channel != '') AND refund_filed = 0"
        )
        found = (self._read(row) for row in rows.fetchall())
        return [job for job in found if job.state.terminal]

    def kept(self) -> list[tuple[str, int]]:
        """Ended jobs whose outputs and logs are kept, and until when, the first to go first."""
        rows = self._db.execute(
            "SELECT job_id, outputs_until FROM jobs WHERE outputs_until IS NOT NULL"
            " ORDER BY outputs_until"
        )
        return [(row["job_id"], row["outputs_until"]) for row in rows.fetchall()]

    @contextmanager
    def _relaxed(self) -> Iterator[None]:
        self._db.execute("PRAGMA synchronous=NORMAL")
        try:
            yield
        finally:
            self._db.execute("PRAGMA synchronous=FULL")

    def _write(self, job: Job) -> Job:
        with transaction(self._db) as db:
            if job.state is JobState.RUNNING or job.state.terminal:
                db.execute("DELETE FROM secrets WHERE job_id = ?", (job.job_id,))
            if job.state.terminal:
                db.execute("DELETE FROM asked WHERE job_id = ?", (job.job_id,))
            db.execute(
                "UPDATE jobs SET state = ?, reason = ?, spec = ?, exit_code = ?, metered_ms = ?,"
                " cost = ?, refund = ?, refund_filed = ?, channel = ?, deposit = ?, deposit_tx = ?,"
                " slices_paid = ?, paid = ?,"
                " phases = ?, outputs = ?, outputs_until = ? WHERE job_id = ?",
                (
                    job.state,
                    job.reason,
                    job.spec.model_dump_json(),
                    job.exit_code,
                    job.metered_ms,
                    job.cost,
                    job.refund,
                    job.refund_filed,
                    job.channel,
                    job.deposit,
                    job.deposit_tx,
                    job.slices_paid,
                    job.paid,
                    job.phases.model_dump_json(),
                    job.outputs,
                    job.outputs_until,
                    job.job_id,
                ),
            )
        return self._keep(job)

    def _keep(self, job: Job) -> Job:
        if job.state.terminal:
            self._live.pop(job.job_id, None)
        else:
            self._live[job.job_id] = job
        return job

    def _one(self, where: str, value: str) -> Job | None:
        row = self._db.execute(f"SELECT * FROM jobs WHERE {where}", (value,)).fetchone()  # noqa: S608
        return None if row is None else self._read(row)

    def _read(self, row: sqlite3.Row) -> Job:
        newest = self._db.execute(
            "SELECT * FROM payments WHERE job_id = ? ORDER BY slice DESC LIMIT ?",
            (row["job_id"], PAYMENTS_HELD),
        ).fetchall()
        return Job(
            job_id=row["job_id"],
            authorization=row["authorization"],
            state=JobState(row["state"]),
            spec=JobSpec.model_validate_json(row["spec"]),
            quote=Quote.model_validate_json(row["quote"]),
            buyer=row["buyer"],
            key_hash=row["key_hash"],
            phases=Phases.model_validate(json.loads(row["phases"])),
            reason=row["reason"],
            exit_code=row["exit_code"],
            metered_ms=row["metered_ms"],
            cost=row["cost"],
            refund=row["refund"],
            refund_filed=bool(row["refund_filed"]),
            outputs=row["outputs"],
            outputs_until=row["outputs_until"],
            bare=bool(row["bare"]),
            channel=row["channel"],
            deposit=row["deposit"],
            deposit_tx=row["deposit_tx"],
            slices_paid=row["slices_paid"],
            paid=row["paid"],
            payments=tuple(_payment(each) for each in reversed(newest)),
        )


def _write_sums(db: sqlite3.Connection, job: Job) -> None:
    db.execute(
        "UPDATE jobs SET slices_paid = ?, paid = ? WHERE job_id = ?",
        (job.slices_paid, job.paid, job.job_id),
    )


def _payment(row: sqlite3.Row) -> Payment:
    return Payment(
        slice=row["slice"], amount=row["amount"], transaction=row["tx"], payer=row["payer"]
    )
