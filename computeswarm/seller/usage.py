"""What this machine did with its time and its current: sold, offered, and the energy of both.

Kept in ``usage.db``, in whole milliseconds and millijoules by quarter of an hour, GPU and job (''
is nobody's: on offer, and idle). What is not for sale is not counted. Each write adds what came
since the last one and forgets it in the same step, so a crash loses some seconds and counts none
twice. Money is not kept here: the books have it.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from computeswarm.core.clock import Clock
from computeswarm.core.errors import ComputeSwarmError
from computeswarm.payments.ledger.sums import QUARTER
from computeswarm.payments.storage import connect, transaction

_log = logging.getLogger(__name__)

CPU = "cpu"
"""The unit of a machine without a GPU, and of jobs that hold none."""
_TICK_SECONDS = 1.0
_WRITE_SECONDS = 10.0
_LONGEST_TICK = 30.0
"""A machine that slept used what nobody measured, and offered nothing."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS units (
    unit TEXT PRIMARY KEY,
    place INTEGER NOT NULL,
    model TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS usage (
    quarter INTEGER NOT NULL,
    unit TEXT NOT NULL,
    job_id TEXT NOT NULL,
    ms INTEGER NOT NULL DEFAULT 0,
    offered_ms INTEGER NOT NULL DEFAULT 0,
    measured_ms INTEGER NOT NULL DEFAULT 0,
    millijoules INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (quarter, unit, job_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS usage_by_job ON usage (job_id, unit) WHERE job_id != '';
"""
_ADD = """
INSERT INTO usage VALUES (?,?,?,?,?,?,?) ON CONFLICT (quarter, unit, job_id) DO UPDATE SET
    ms = ms + excluded.ms, offered_ms = offered_ms + excluded.offered_ms,
    measured_ms = measured_ms + excluded.measured_ms,
    millijoules = millijoules + excluded.millijoules
"""

_EVER = """
SELECT unit, CASE job_id WHEN '' THEN '' ELSE 'job' END AS held, SUM(ms), SUM(offered_ms),
    SUM(measured_ms), SUM(millijoules)
FROM usage GROUP BY unit, held
"""


@dataclass(frozen=True, slots=True)
class Unit:
    """Something that is sold: a GPU (or a slice of one), by its uuid, or the processor."""

    key: str
    place: int
    model: str


@dataclass(frozen=True, slots=True)
class Reading:
    """A unit just now.

    ``jobs`` hold it (the processor may have several); ``places`` is how many could, 0 where it is
    not sold by itself. ``watts`` is None where nobody measures them.
    """

    jobs: tuple[str, ...]
    offered: bool
    watts: float | None = None
    places: int = 1
    owners: bool = False
    """Its owner uses it himself; a job that has it stands still."""


@dataclass(slots=True)
class Ever:
    """A unit's sums since the first start, as far as they are on the disk: they only rise."""

    unit: Unit
    sold_ms: int = 0
    offered_ms: int = 0
    measured_ms: int = 0
    millijoules: int = 0

    def add(self, job_id: str, ms: int, offered_ms: int, measured_ms: int, mj: int) -> None:
        """Count a row."""
        self.sold_ms += ms if job_id else 0
        self.offered_ms += offered_ms
        self.measured_ms += measured_ms
        self.millijoules += mj


@dataclass(slots=True)
class _Sum:
    ms: float = 0.0
    offered_ms: float = 0.0
    measured_ms: float = 0.0
    millijoules: float = 0.0


class UsageLog:
    """Adds up readings, each of which stands for the time since the one before.

    Args:
        read: the units now, in their order.
    """

    def __init__(
        self, path: Path, units: Sequence[Unit], read: Callable[[], Sequence[Reading]], clock: Clock
    ) -> None:
        self._db = connect(path, _SCHEMA)
        self._units = units
        self._read = read
        self._clock = clock
        self._sums: dict[tuple[int, str, str], _Sum] = {}
        self._last: float | None = None
        self._written = clock.monotonic()
        self._task: asyncio.Task[None] | None = None
        with transaction(self._db, durable=False) as db:
            db.executemany(
                "INSERT OR REPLACE INTO units VALUES (?,?,?)",
                [(unit.key, unit.place, unit.model) for unit in units],
            )
        self.ever = {unit.key: Ever(unit) for unit in units}
        for unit_key, *counts in self._db.execute(_EVER):
            if unit_key in self.ever:
                self.ever[unit_key].add(*counts)

    def start(self) -> None:
        """Begin to read, once a second."""
        self._last = self._clock.monotonic()
        self._task = asyncio.create_task(self._ticks(), name="usage")

    async def close(self) -> None:
        """Write the rest and stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self.tick()
        self.write()
        self._db.close()

    def tick(self) -> None:
        """Count the time since the last tick as the units stand now. Called as well just before a
        job takes its place or leaves it, so that no job is charged for another's current."""
        now = self._clock.monotonic()
        if self._last is None:
            return
        seconds, self._last = min(now - self._last, _LONGEST_TICK), now
        if seconds <= 0:
            return
        quarter = int(self._clock.now() // QUARTER)
        for unit, reading in zip(self._units, self._read(), strict=True):
            # what its owner does with it while it is not for sale is no cost of selling
            if not reading.owners and (reading.jobs or (reading.offered and reading.places)):
                self._count(quarter, unit.key, reading, seconds)

    def _count(self, quarter: int, unit: str, reading: Reading, seconds: float) -> None:
        holders = reading.jobs or ("",)
        for job_id in holders:
            held = self._sums.setdefault((quarter, unit, job_id), _Sum())
            held.ms += seconds * 1000
            if job_id:
                held.offered_ms += seconds * 1000
            if reading.watts is not None:
                held.measured_ms += seconds * 1000 / len(holders)
                held.millijoules += reading.watts * seconds * 1000 / len(holders)
        free = reading.places - len(reading.jobs)
        if reading.offered and free > 0:
            idle = self._sums.setdefault((quarter, unit, ""), _Sum())
            idle.offered_ms += seconds * 1000 * free

    def write(self) -> None:
        """Put what was counted on the disk. Whole units only: the fractions wait for the next."""
        whole: list[tuple[int, str, str, int, int, int, int]] = []
        rest: dict[tuple[int, str, str], _Sum] = {}
        for key, held in self._sums.items():
            counts = (held.ms, held.offered_ms, held.measured_ms, held.millijoules)
            done = (
                int(held.ms),
                int(held.offered_ms),
                int(held.measured_ms),
                int(held.millijoules),
            )
            whole.append((*key, *done))
            rest[key] = _Sum(*(count - part for count, part in zip(counts, done, strict=True)))
        if whole:
            with transaction(self._db, durable=False) as db:
                db.executemany(_ADD, whole)
            for _, unit, job_id, *ints in whole:
                self.ever[unit].add(job_id, *ints)
        newest = int(self._clock.now() // QUARTER)
        self._sums = {key: held for key, held in rest.items() if key[0] >= newest}
        self._written = self._clock.monotonic()

    async def _ticks(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            try:
                self.tick()
                if self._clock.monotonic() - self._written >= _WRITE_SECONDS:
                    self.write()
            except (ComputeSwarmError, sqlite3.Error) as error:
                _log.warning("usage can't be kept just now: %s", error)
