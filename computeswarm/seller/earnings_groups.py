"""Sums of time, current and money, by day, by GPU or by job: the rows of a report before they are
priced."""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from computeswarm.core.text import clean_line
from computeswarm.payments.ledger.sums import QUARTER, Piece
from computeswarm.seller.earnings_rows import EarningsRow, Prices
from computeswarm.seller.usage import CPU

_MJ_PER_KWH = 3_600_000_000
_WEI = 10**18


@dataclass(slots=True)
class Sums:
    """Of one row. Money in atoms, gas in wei."""

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
        """The row, at these prices."""
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


def by_day(
    calendar: list[tuple[str, float]], money: Iterable[Piece], usage: Iterable[sqlite3.Row]
) -> dict[str, Sums]:
    """By local day; ``calendar`` has each day and the unix second it begins at."""
    groups = {day: Sums() for day, _ in calendar}
    begins = [begin for _, begin in calendar]

    def of(quarter: int) -> Sums:
        # a quarter that began before the first day holds only what came after its midnight
        return groups[calendar[max(0, bisect_right(begins, quarter * QUARTER) - 1)][0]]

    for piece in money:
        of(piece.quarter).pay(piece)
    for used in usage:
        of(used["quarter"]).use(used)
    return groups


def by_unit(
    db: sqlite3.Connection | None, money: Iterable[Piece], usage: Iterable[sqlite3.Row]
) -> dict[str, Sums]:
    """By GPU; what a job brought is shared alike among those it held."""
    groups: dict[str, Sums] = {}
    holders: defaultdict[str, list[str]] = defaultdict(list)
    if db is not None:
        for unit in db.execute("SELECT * FROM units ORDER BY place"):
            number = "" if unit["unit"] == CPU else f"#{unit['place']} "
            groups[unit["unit"]] = Sums(label=f"{number}{clean_line(unit['model'], limit=60)}")
        for held in db.execute("SELECT DISTINCT job_id, unit FROM usage WHERE job_id != ''"):
            holders[held["job_id"]].append(held["unit"])
    for piece in money:
        # money for a job that never ran stands where no GPU's does
        units = holders.get(piece.job_id) or ["none"]
        for share, unit in enumerate(units):
            groups.setdefault(unit, Sums(label="no GPU held")).pay(piece, share, len(units))
    for used in usage:
        groups.setdefault(used["unit"], Sums()).use(used)
    return groups


def by_job(
    db: sqlite3.Connection | None, money: Iterable[Piece], usage: Iterable[sqlite3.Row]
) -> dict[str, Sums]:
    """By job, in the order of their first money; current that no job used stands under none."""
    groups: dict[str, Sums] = {}
    for piece in money:
        groups.setdefault(piece.job_id, Sums()).pay(piece)
    idle = Sums(label="idle")
    for used in usage:
        if used["job_id"]:
            groups.setdefault(used["job_id"], Sums()).use(used)
        else:
            idle.use(used)
    if db is not None:
        for job_id, name in db.execute("SELECT job_id, json_extract(spec, '$.name') FROM jobs"):
            if job_id in groups and name:
                groups[job_id].label = clean_line(str(name), limit=80)
    return groups | {"idle": idle} if idle.ms or idle.offered_ms else groups


def _part(amount: int, share: int, of: int) -> int:
    """The ``share``-th of ``of`` equal parts; the first ones are an atom larger where it must."""
    return amount // of + (share < amount % of)


def _round(value: int, by: int) -> int:
    """Integer division, half up."""
    return (2 * value + by) // (2 * by) if by else 0
