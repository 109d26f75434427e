"""What selling brought and cost: kept, gas, electricity and what is left, by day, GPU or job.

Money comes from the books of the payments alone, so its totals are theirs to the atom; time and
energy come from ``usage.db``. All of it is read beside whoever writes it, so a report needs no
running seller. A day is the owner's own, by this machine's clock.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import get_args

from computeswarm.core.errors import ConfigError
from computeswarm.payments.ledger.sums import QUARTER, Piece, pieces
from computeswarm.payments.storage import connect_to_read
from computeswarm.seller.earnings_groups import Sums, by_day, by_job, by_unit
from computeswarm.seller.earnings_rows import MAX_DAYS, MAX_ROWS, By, EarningsReport, Prices
from computeswarm.seller.usage import CPU

Files = dict[str, sqlite3.Connection | None]


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
        total = Sums(label="all")
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
) -> dict[str, Sums]:
    if by == "day":
        return by_day(calendar, money, usage)
    if by == "gpu":
        return by_unit(files["usage"], money, usage)
    return by_job(files["jobs"], money, usage)


def sold_model(folder: Path) -> str:
    """The model of the first GPU that this seller had; ``cpu`` without one.

    Raises:
        ConfigError: a file can't be read.
    """
    with _files(folder) as files:
        db = files["usage"]
        row = db.execute("SELECT * FROM units ORDER BY place LIMIT 1").fetchone() if db else None
        return CPU if row is None or row["unit"] == CPU else str(row["model"])


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
