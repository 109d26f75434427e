"""What selling brought and cost: kept, gas, electricity and what is left, by day, GPU or job.

Money comes from the books of the payments alone, so its totals are theirs to the atom; time and
energy come from ``usage.db``. All of it is read beside whoever writes it, so a report needs no
running seller. A day is the owner's own, by this machine's clock.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Literal, get_args

from computeswarm.core.errors import ConfigError
from computeswarm.core.signing import Document
from computeswarm.core.text import clean_line
from computeswarm.payments.ledger.sums import QUARTER, Piece, pieces
from computeswarm.payments.storage import connect_to_read
from computeswarm.seller.usage import CPU

By = Literal["day", "gpu", "job"]
Files = dict[str, sqlite3.Connection | None]
MAX_DAYS = 3_650
MAX_ROWS = 10_000
"""Of a report by job only the newest rows are listed; the total counts them all."""
_MJ_PER_KWH = 3_600_000_000
_WEI = 10**18


class EarningsRow(Document):
    """Sums of a day, a GPU, a job, or of all. Money in atoms of USDC, times in seconds.

    ``kept`` is what was received less what went back and what still has to (``owed``).
    ``electricity`` and ``net`` are None where no current was measured; ``measured_permille`` says
    for how much of the time it was. ``idle_electricity`` is the part of it that went by on offer.
    """

    key: str
    label: str
    received: int = 0
    refunded: int = 0
    owed: int = 0
    kept: int = 0
    gas_wei: str = "0"
    gas: int = 0
    """What the gas was worth; 0 on a network whose ether is worth nothing."""
    joules: int | None = None
    electricity: int | None = None
    idle_electricity: int | None = None
    measured_permille: int | None = None
    net: int | None = None
    jobs: int = 0
    sold_seconds: int = 0
    offered_seconds: int = 0
    """Sold, or free to be sold."""

    @property
    def utilisation(self) -> float | None:
        """The share of the offered time that was sold."""
        return self.sold_seconds / self.offered_seconds if self.offered_seconds else None


class EarningsReport(Document):
    """``GET /owner/earnings``."""

    network: str
    by: By
    first_day: str
    last_day: str
    electricity_price: int
    """Atoms a kilowatt-hour; that of now, for all days."""
    eth_price: int
    """Atoms an ether; 0 where it is worth nothing."""
    rows: tuple[EarningsRow, ...]
    """Days and jobs from old to new, GPUs in their order."""
    left_out: int = 0
    total: EarningsRow


@dataclass(frozen=True, slots=True)
class Prices:
    """What current and gas cost. Atoms a kilowatt-hour, and atoms an ether."""

    electricity: int
    ether: int


@dataclass(slots=True)
class _Sums:
    label: str = ""
    received: int = 0
    refunded: int = 0
    owed: int = 0
    gas_wei: int = 0
    jobs: set[str] = field(default_factory=set)
    ms: int = 0
    offered_ms: int = 0
    sold_ms: int = 0
    measured_ms: int = 0
    millijoules: int = 0
    idle_millijoules: int = 0

    def pay(self, piece: Piece, share: int = 0, of: int = 1) -> None:
        """Count a piece, or the ``share``-th of ``of`` parts, which add up to it."""
        self.received += _part(piece.received, share, of)
        self.refunded += _part(piece.refunded, share, of)
        self.owed += _part(piece.owed, share, of)
        self.gas_wei += _part(piece.gas_wei, share, of)
        if piece.payments:
            self.jobs.add(piece.job_id)

    def use(self, row: sqlite3.Row) -> None:
        """Count a row of the usage."""
        self.ms += row["ms"]
        self.offered_ms += row["offered_ms"]
        self.measured_ms += row["measured_ms"]
        self.millijoules += row["millijoules"]
        if row["job_id"]:
            self.sold_ms += row["ms"]
            self.jobs.add(row["job_id"])
        else:
            self.idle_millijoules += row["millijoules"]

    def row(self, key: str, prices: Prices) -> EarningsRow:
        kept = self.received - self.refunded - self.owed
        gas = _round(self.gas_wei * prices.ether, _WEI)
        measured = self.measured_ms > 0
        current = _round(self.millijoules * prices.electricity, _MJ_PER_KWH)
        return EarningsRow(
            key=key,
            label=self.label or key,
            received=self.received,
            refunded=self.refunded,
            owed=self.owed,
            kept=kept,
            gas_wei=str(self.gas_wei),
            gas=gas,
            joules=self.millijoules // 1000 if measured else None,
            electricity=current if measured else None,
            idle_electricity=(
                _round(self.idle_millijoules * prices.electricity, _MJ_PER_KWH)
                if measured
                else None
            ),
            measured_permille=(
                min(1000, _round(self.measured_ms * 1000, self.ms)) if measured else None
            ),
            net=kept - gas - current if measured else None,
            jobs=len(self.jobs),
            sold_seconds=self.sold_ms // 1000,
            offered_seconds=self.offered_ms // 1000,
        )


def days_until(today: date, count: int) -> list[tuple[str, float]]:
    """The local days up to ``today``, oldest first: ISO date, and the unix second it begins at."""
    days = [today - timedelta(days=count - 1 - n) for n in range(count)]
    # by the calendar, not by 86,400 s: some days have 23 or 25 hours
    return [(d.isoformat(), datetime(d.year, d.month, d.day).timestamp()) for d in days]


def report(
    folder: Path, chain_id: int, network: str, *, days: int, by: By, now: float, prices: Prices
) -> EarningsReport:
    """The earnings of the last ``days`` local days; see ``reports``."""
    return reports(folder, chain_id, network, days=days, ways=(by,), now=now, prices=prices)[0]


def reports(
    folder: Path,
    chain_id: int,
    network: str,
    *,
    days: int,
    ways: Sequence[By],
    now: float,
    prices: Prices,
) -> list[EarningsReport]:
    """One report for each of the ``ways``, out of one reading of the books.

    Args:
        folder: the seller's state.
        now: unix seconds.

    Raises:
        ConfigError: a file can't be read.
    """
    if not set(ways) <= set(get_args(By)) or not 1 <= days <= MAX_DAYS:
        raise ConfigError(f"Earnings are by day, gpu or job, and of 1 to {MAX_DAYS} days.")
    calendar = days_until(datetime.fromtimestamp(now).date(), days)
    with _files(folder) as files:
        since = calendar[0][1]
        money = pieces(files["payments"], files["channels"], chain_id, since)
        usage = list(_usage(files["usage"], since))
        total = _Sums(label="all")
        for piece in money:
            total.pay(piece)
        for used in usage:
            total.use(used)
        made = []
        for by in ways:
            groups = _groups(by, files, calendar, money, usage)
            rows = [sums.row(key, prices) for key, sums in groups.items()]
            made.append(
                EarningsReport(
                    network=network,
                    by=by,
                    first_day=calendar[0][0],
                    last_day=calendar[-1][0],
                    electricity_price=prices.electricity,
                    eth_price=prices.ether,
                    rows=tuple(rows[-MAX_ROWS:]),
                    left_out=max(0, len(rows) - MAX_ROWS),
                    total=total.row("total", prices),
                )
            )
    return made


def _groups(
    by: By,
    files: Files,
    calendar: list[tuple[str, float]],
    money: Sequence[Piece],
    usage: Sequence[sqlite3.Row],
) -> dict[str, _Sums]:
    if by == "day":
        return _by_day(calendar, money, usage)
    if by == "gpu":
        return _by_unit(files["usage"], money, usage)
    return _by_job(files["jobs"], money, usage)


def sold_model(folder: Path) -> str:
    """The model of the first GPU that this seller had; ``cpu`` without one.

    Raises:
        ConfigError: a file can't be read.
    """
    with _files(folder) as files:
        db = files["usage"]
        row = db.execute("SELECT * FROM units ORDER BY place LIMIT 1").fetchone() if db else None
        return CPU if row is None or row["unit"] == CPU else str(row["model"])


def _by_day(
    calendar: list[tuple[str, float]], money: Iterable[Piece], usage: Iterable[sqlite3.Row]
) -> dict[str, _Sums]:
    groups = {day: _Sums() for day, _ in calendar}
    begins = [begin for _, begin in calendar]

    def of(quarter: int) -> _Sums:
        # a quarter that began before the first day holds only what came after its midnight
        return groups[calendar[max(0, bisect_right(begins, quarter * QUARTER) - 1)][0]]

    for piece in money:
        of(piece.quarter).pay(piece)
    for used in usage:
        of(used["quarter"]).use(used)
    return groups


def _by_unit(
    db: sqlite3.Connection | None, money: Iterable[Piece], usage: Iterable[sqlite3.Row]
) -> dict[str, _Sums]:
    """By GPU; what a job brought is shared alike among those it held."""
    groups: dict[str, _Sums] = {}
    holders: defaultdict[str, list[str]] = defaultdict(list)
    if db is not None:
        for unit in db.execute("SELECT * FROM units ORDER BY place"):
            number = "" if unit["unit"] == CPU else f"#{unit['place']} "
            groups[unit["unit"]] = _Sums(label=f"{number}{clean_line(unit['model'], limit=60)}")
        for held in db.execute("SELECT DISTINCT job_id, unit FROM usage WHERE job_id != ''"):
            holders[held["job_id"]].append(held["unit"])
    for piece in money:
        # money for a job that never ran stands where no GPU's does
        units = holders.get(piece.job_id) or ["none"]
        for share, unit in enumerate(units):
            groups.setdefault(unit, _Sums(label="no GPU held")).pay(piece, share, len(units))
    for used in usage:
        groups.setdefault(used["unit"], _Sums()).use(used)
    return groups


def _by_job(
    db: sqlite3.Connection | None, money: Iterable[Piece], usage: Iterable[sqlite3.Row]
) -> dict[str, _Sums]:
    """By job, in the order of their first money; current that no job used stands under none."""
    groups: dict[str, _Sums] = {}
    for piece in money:
        groups.setdefault(piece.job_id, _Sums()).pay(piece)
    idle = _Sums(label="idle")
    for used in usage:
        if used["job_id"]:
            groups.setdefault(used["job_id"], _Sums()).use(used)
        else:
            idle.use(used)
    if db is not None:
        for job_id, name in db.execute("SELECT job_id, json_extract(spec, '$.name') FROM jobs"):
            if job_id in groups and name:
                groups[job_id].label = clean_line(str(name), limit=80)
    return groups | {"idle": idle} if idle.ms or idle.offered_ms else groups


def _usage(db: sqlite3.Connection | None, since: float) -> Iterator[sqlite3.Row]:
    if db is not None:
        yield from db.execute("SELECT * FROM usage WHERE quarter >= ?", (int(since // QUARTER),))


@contextmanager
def _files(folder: Path) -> Iterator[Files]:
    """Those that there are, each as it stands at one moment."""
    opened: Files = {}
    try:
        for name in ("payments", "channels", "jobs", "usage"):
            path = folder / f"{name}.db"
            opened[name] = connect_to_read(path) if path.exists() else None
        yield opened
    except sqlite3.Error as error:
        raise ConfigError(f"The books can't be read: they are damaged ({error}).") from None
    finally:
        for db in opened.values():
            if db is not None:
                db.close()


def _part(amount: int, share: int, of: int) -> int:
    """The ``share``-th of ``of`` equal parts; the first ones are an atom larger where it must."""
    return amount // of + (share < amount % of)


def _round(value: int, by: int) -> int:
    """Integer division, half up."""
    return (2 * value + by) // (2 * by) if by else 0
