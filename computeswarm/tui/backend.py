"""The two doors between the screens and the world. Tests come in through the same ones.

Shaped after ``buyer.client.Buyer`` and ``seller.owner_client.OwnerClient``; all text is clean and
every error is a ``ComputeSwarmError`` whose sentence can be shown as it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from computeswarm.tui.draft import JobDraft
from computeswarm.tui.views import (
    Balance,
    Download,
    FacetItem,
    FundsItem,
    Identity,
    JobItem,
    LedgerPage,
    LogLine,
    Meter,
    NodePage,
    OfferItem,
    PriceTrend,
    SellerItem,
    WalletItem,
)

Report = Callable[[str, int, int], None]
"""Progress of long work: a word (``uploading``), bytes done, bytes in all."""


class BuyerBackend(Protocol):
    """Everything Buyer mode needs."""

    @property
    def identity(self) -> Identity: ...

    async def unlock(self, password: str) -> None:
        """Open the wallet for paying. Raises WrongPassword, WalletError."""
        ...

    async def nodes(self, query: str, *, sort: str, limit: int, cursor: str = "") -> NodePage:
        """A page of the nodes that match, at most 100; with a page's ``next``, those behind it.

        Raises InvalidQuery, MarketUnavailable, BadRequest for a cursor of another search.
        """
        ...

    async def facets(self, query: str) -> list[FacetItem]:
        """How many nodes match by model, region and so on.

        Raises InvalidQuery, MarketUnavailable.
        """
        ...

    def watch(self, query: str) -> AsyncIterator[bool]:
        """True when something among the nodes that match is another, False as a sign of life.

        Ends where so much changes that looking now and then is less work. Raises InvalidQuery,
        MarketUnavailable, NotFound where the market can't be followed.
        """
        ...

    async def prices(self, model: str) -> PriceTrend:
        """What sellers of a model asked in the last thirty days.

        Raises MarketUnavailable, also where the market keeps no history.
        """
        ...

    async def balance(self) -> Balance:
        """Raises ChainUnavailable."""
        ...

    async def jobs(self) -> list[JobItem]:
        """The local journal, newest first; asks nobody."""
        ...

    async def offer(self, draft: JobDraft) -> OfferItem:
        """Ask the draft's node, or the cheapest that fits, for a signed quote.

        Raises BadRequest, Unprocessable, NoNodeFits, SellerUnavailable.
        """
        ...

    async def buy(self, offer: OfferItem, report: Report) -> str:
        """Pay the first slice and start; the job's id. The same offer never pays twice.

        Raises InsufficientFunds, PolicyRefused, QuoteExpired, PaymentPending, Unavailable.
        """
        ...

    def follow(self, job_id: str) -> AsyncIterator[LogLine | Meter | JobItem]:
        """What happens to a job, from its first line on; pays its next slices within the budget.

        Ends with the job as it ended. Raises SellerUnavailable when nobody answers for long.
        """
        ...

    async def refresh(self, job_id: str) -> JobItem:
        """Ask the seller how the job stands. Raises SellerUnavailable."""
        ...

    async def cancel(self, job_id: str) -> None: ...

    async def download(
        self, job_id: str, folder: Path, report: Report, *, overwrite: bool = False
    ) -> Download:
        """Fetch a job's outputs. Raises WouldOverwrite unless ``overwrite``, where other files of
        their names are in the folder; SellerUnavailable, Gone, NotFound."""
        ...

    async def close(self) -> None: ...


class SellerBackend(Protocol):
    """The owner's view of his own seller."""

    async def status(self) -> SellerItem: ...

    async def pause(self) -> None: ...

    async def resume(self) -> None: ...

    async def drain(self) -> None: ...

    async def set_price(self, atoms_per_hour: int) -> None: ...

    async def earnings_csv(self) -> str:
        """The earnings of a year by day, as a CSV file."""
        ...

    async def evict(self, job_id: str) -> None: ...

    async def accept(self, job_id: str) -> None:
        """Let a job in that asks. Raises Conflict where it does not, or no more."""
        ...

    async def reject(self, job_id: str, reason: str) -> None:
        """Turn it away; all that was paid goes back. Raises Conflict."""
        ...

    async def hold(self, index: int, held: bool) -> None:
        """Keep a GPU (0 is a machine without one) from new jobs, or release it."""
        ...

    async def close(self) -> None: ...


class WalletBackend(Protocol):
    """What Wallet mode shows, and the making of a wallet."""

    async def status(self) -> WalletItem:
        """The wallet, its caps and what of them is used; asks only this machine's disk.

        Raises StorageFull, ConfigError where the books can't be read.
        """
        ...

    async def funds(self) -> FundsItem:
        """What it holds. Raises ChainUnavailable, ConfigError, WalletError without a wallet."""
        ...

    async def ledger(self, find: str, *, limit: int) -> LedgerPage:
        """The newest ``limit`` lines of both sides' books that hold every word of ``find``.

        Raises ConfigError where the books can't be read.
        """
        ...

    async def ledger_csv(self, find: str) -> str:
        """All that match, oldest first, as a CSV file. Raises ConfigError."""
        ...

    async def create(self, password: str) -> str:
        """Make a wallet; its address. It is never written over one that is there.

        Raises WalletError for a password that is too short, too; StorageFull.
        """
        ...

    async def import_key(self, key_hex: str, password: str) -> str:
        """The same with a private key of one's own. Raises WalletError, StorageFull."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Backends:
    """What ``connect`` brings: a buyer, and a seller where one runs on this machine."""

    buyer: BuyerBackend
    seller: SellerBackend | None = None
    wallet: WalletBackend | None = None
    attach: Callable[[], SellerBackend | None] = lambda: None
    """Looks again for a seller on this machine, where there was none."""


Connect = Callable[[], Awaitable[Backends]]
