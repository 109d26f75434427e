"""What the owner answered to jobs that ask him, on disk: it outlives a crash, and so does the time
he has left."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from computeswarm.payments.storage import transaction

SCHEMA = """
CREATE TABLE IF NOT EXISTS asked (
    job_id TEXT PRIMARY KEY,
    since_ms INTEGER NOT NULL,
    until_ms INTEGER NOT NULL,
    accepted INTEGER NOT NULL DEFAULT 0
);
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """One job's question; times in unix milliseconds."""

    since_ms: int
    until_ms: int
    """Without an answer by then the job goes back."""
    accepted: bool = False


class Answers:
    """The table ``asked`` of ``jobs.db``. A row goes with the end of its job."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def of(self, job_id: str) -> Asked | None:
        """What a job was asked and answered; None where nobody was asked."""
        row = self._db.execute("SELECT * FROM asked WHERE job_id = ?", (job_id,)).fetchone()
        if row is None:
            return None
        return Asked(row["since_ms"], row["until_ms"], bool(row["accepted"]))

    def ask(self, job_id: str, since_ms: int, until_ms: int) -> None:
        """Write down that a job asks; a question that is out keeps its time."""
        with transaction(self._db) as db:
            db.execute(
                "INSERT OR IGNORE INTO asked VALUES (?, ?, ?, 0)", (job_id, since_ms, until_ms)
            )

    def accept(self, job_id: str) -> None:
        """The owner said yes, which is never taken back."""
        with transaction(self._db) as db:
            db.execute("UPDATE asked SET accepted = 1 WHERE job_id = ?", (job_id,))

    def withdraw(self, job_id: str) -> None:
        """Nobody is asked any more: the owner lets jobs in by themselves."""
        with transaction(self._db) as db:
            db.execute("DELETE FROM asked WHERE job_id = ? AND accepted = 0", (job_id,))
