"""The owner's door to the seller that runs on this machine."""

from __future__ import annotations

from pathlib import Path

from computeswarm.core.errors import ComputeSwarmError
from computeswarm.seller.earnings_export import to_csv
from computeswarm.seller.owner_client import OwnerClient
from computeswarm.tui.backends.seller_mapping import seller_item
from computeswarm.tui.views import SellerItem

CSV_DAYS = 365


class LiveSeller:
    """Looks for ``owner.json`` again when the seller was restarted, with a token of its own."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is ``Paths.seller``.

        Raises:
            SellerUnavailable: no seller runs there.
        """
        self._folder = folder
        self._client = OwnerClient.find(folder)

    async def status(self) -> SellerItem:
        """Everything at once."""
        try:
            return seller_item(await self._client.status())
        except ComputeSwarmError:  # gone, or its successor at the same address refuses the token
            fresh = OwnerClient.find(self._folder)
            await self._client.close()
            self._client = fresh
            return seller_item(await fresh.status())

    async def pause(self) -> None:
        await self._client.pause()

    async def resume(self) -> None:
        await self._client.resume()

    async def drain(self) -> None:
        await self._client.drain()

    async def earnings_csv(self) -> str:
        return to_csv(await self._client.earnings(CSV_DAYS, "day"))

    async def set_price(self, atoms_per_hour: int) -> None:
        await self._client.set_price(atoms_per_hour)

    async def evict(self, job_id: str) -> None:
        await self._client.evict(job_id)

    async def accept(self, job_id: str) -> None:
        await self._client.accept(job_id)

    async def reject(self, job_id: str, reason: str) -> None:
        await self._client.reject(job_id, reason)

    async def hold(self, index: int, held: bool) -> None:
        await self._client.hold(index, held)

    async def close(self) -> None:
        await self._client.close()
