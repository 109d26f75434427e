"""What a report of earnings says, and what it is reckoned with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from computeswarm.core.signing import Document

By = Literal["day", "gpu", "job"]
MAX_DAYS = 3_650
MAX_ROWS = 10_000
"""Of a report by job only the newest rows are listed; the total counts them all."""


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
