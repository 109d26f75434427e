"""Both sides' books of one home, read beside whoever writes them, and merged by time."""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from computeswarm.core.errors import ConfigError
from computeswarm.core.settings import Paths
from computeswarm.payments.ledger.buyer import buyer_entries
from computeswarm.payments.ledger.channels import channel_entries
from computeswarm.payments.ledger.entries import Entry, Kind, Role
from computeswarm.payments.ledger.seller import seller_entries
from computeswarm.payments.storage import connect_to_read


@dataclass(frozen=True, slots=True)
class Selection:
    """Which entries: ``since`` and ``until`` in unix seconds, ``job`` the beginning of an id."""

    role: Role | None = None
    since: float = 0.0
    until: float = 9e9
    job: str = ""
    kind: Kind | None = None

    def takes(self, entry: Entry) -> bool:
        """Whether job and kind fit; roles and times are chosen by the queries."""
        bare = entry.job_id.removeprefix("job-")
        return (self.kind is None or entry.kind is self.kind) and bare.startswith(
            self.job.removeprefix("job-")
        )


class Books:
    """The books below one home; a context manager. They may not exist, or be in use.

    Each file is read as it stood at one moment, and its owner goes on writing meanwhile.
    """

    def __init__(self, paths: Paths, chain_id: int) -> None:
        """``chain_id``: where refunds go of which the books don't say it."""
        self._seller = paths.seller / "payments.db"
        self._channels = paths.seller / "channels.db"
        self._buyer = paths.buyer / "payments.db"
        self._chain_id = chain_id
        self._open: list[sqlite3.Connection] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        for db in self._open:
            db.close()
        self._open.clear()

    def entries(self, chosen: Selection | None = None) -> Iterator[Entry]:
        """The chosen entries, oldest first, one by one.

        Raises:
            ConfigError: a file can't be read, or holds what we never write.
        """
        chosen = chosen or Selection()
        try:
            merged = heapq.merge(*self._sources(chosen), key=lambda entry: entry.at)
            yield from (entry for entry in merged if chosen.takes(entry))
        except (sqlite3.Error, KeyError, TypeError) as error:
            raise ConfigError(f"The books can't be read: they are damaged ({error}).") from None

    def first_job(self) -> float | None:
        """When the first job of either side was written down, as their own records have it: an
        audit starts there even where the first lines of the books are gone.

        Raises:
            ConfigError: a file can't be read.
        """
        found = []
        for path, column in ((self._seller, "created_ms / 1000.0"), (self._buyer, "created_at")):
            db = self._read(path.with_name("jobs.db"))
            if db and db.execute("SELECT 1 FROM sqlite_master WHERE name = 'jobs'").fetchone():
                found.append(db.execute(f"SELECT MIN({column}) FROM jobs").fetchone()[0])  # noqa: S608
        return min((one for one in found if one is not None), default=None)

    def first_block(self) -> int | None:
        """The earliest block in which the seller saw a transaction of his, as his notes on mined
        transactions have it: they are kept apart from the lines of the books."""
        db = self._read(self._seller)
        return db.execute("SELECT MIN(block) FROM receipts").fetchone()[0] if db else None

    def _sources(self, chosen: Selection) -> Iterator[Iterator[Entry]]:
        since, until = chosen.since, chosen.until
        if chosen.role is not Role.SELLER and (db := self._read(self._buyer)):
            yield buyer_entries(db, since=since, until=until)
            yield channel_entries(db, Role.BUYER, since=since, until=until)
        if chosen.role is Role.BUYER:
            return
        if db := self._read(self._seller):
            yield seller_entries(db, since=since, until=until, chain_id=self._chain_id)
        if db := self._read(self._channels):
            yield channel_entries(db, Role.SELLER, since=since, until=until)

    def _read(self, path: Path) -> sqlite3.Connection | None:
        if not path.exists():
            return None
        db = connect_to_read(path)
        self._open.append(db)
        return db
