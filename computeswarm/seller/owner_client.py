"""The owner's remote control of a running seller, over its loopback API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

import httpx

from computeswarm.core.errors import SellerUnavailable, from_problem
from computeswarm.core.signing import parse_json
from computeswarm.core.text import clean_line
from computeswarm.seller.earnings_rows import By, EarningsReport
from computeswarm.seller.owner import OwnerFile, OwnerStatus

OWNER_FILE = "owner.json"


class OwnerClient:
    """Speaks to one seller; see ``find`` for the one that runs on this machine.

    Every method raises SellerUnavailable when the seller does not answer.
    """

    def __init__(self, url: str, token: str, *, timeout: float = 10.0) -> None:
        self.url = url
        self._http = httpx.AsyncClient(
            base_url=url,
            timeout=timeout,
            headers={"Authorization": f"Bearer {token}"},
            trust_env=False,  # a proxy has no business between an owner and his own machine
        )

    @classmethod
    def find(cls, folder: Path) -> Self:
        """The seller whose state lies in ``folder`` (``Paths.seller``).

        Raises:
            SellerUnavailable: none runs there.
        """
        try:
            found = OwnerFile.model_validate_json((folder / OWNER_FILE).read_bytes())
        except (OSError, ValueError):
            raise SellerUnavailable(
                "No seller runs on this machine; start one with: computeswarm seller."
            ) from None
        return cls(found.url, found.token)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; the seller goes on."""
        await self._http.aclose()

    async def status(self) -> OwnerStatus:
        """Everything at once."""
        return parse_json(OwnerStatus, await self._call("GET", "/owner/status"))

    async def pause(self, reason: str = "") -> None:
        """Take no new jobs; those that are paid go on. Buyers are told the reason."""
        await self._call("POST", "/owner/pause", {"reason": reason} if reason else None)

    async def drain(self, reason: str = "", *, then_stop: bool = False) -> None:
        """Take no new jobs and finish those that are paid; then stop, if wanted."""
        await self._call("POST", "/owner/drain", {"reason": reason, "then_stop": then_stop})

    async def resume(self) -> None:
        """Take new jobs again, after a pause or a drain."""
        await self._call("POST", "/owner/resume")

    async def set_price(self, atoms_per_hour: int) -> None:
        """Price of one GPU (of the machine on a cpu node) for quotes from now on."""
        await self._call("POST", "/owner/price", {"price_per_hour": atoms_per_hour})

    async def evict(self, job_id: str) -> None:
        """End a job; its buyer gets everything back.

        Raises:
            JobNotFound: there is no such job.
            Conflict: it has ended already.
        """
        await self._call("POST", f"/owner/jobs/{job_id}/evict")

    async def accept(self, job_id: str) -> None:
        """Let a job in that waits for the owner's yes.

        Raises:
            JobNotFound: there is no such job.
            Conflict: it does not wait for that, and why.
        """
        await self._call("POST", f"/owner/jobs/{job_id}/accept")

    async def reject(self, job_id: str, reason: str = "") -> None:
        """Turn it away; its buyer is told the reason and gets everything back. Raises as above."""
        await self._call("POST", f"/owner/jobs/{job_id}/reject", {"reason": reason})

    async def hold(self, index: int, held: bool) -> None:
        """Keep a GPU (0 is the machine where it has none) from new jobs, or release it.

        Raises:
            NotFound: there is no such GPU.
        """
        await self._call("POST", f"/owner/gpus/{index}/hold", {"held": held})

    async def earnings(self, days: int, by: By) -> EarningsReport:
        """What selling brought and cost in the last ``days``, today included."""
        path = f"/owner/earnings?days={days}&by={by}"
        return parse_json(EarningsReport, await self._call("GET", path))

    async def stop(self) -> None:
        """Hand running jobs back and end the seller."""
        await self._call("POST", "/owner/stop")

    async def _call(self, method: str, path: str, body: Any = None) -> bytes:
        try:
            reply = await self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise SellerUnavailable(
                f"The seller at {self.url} does not answer ({type(error).__name__});"
                " check that it still runs."
            ) from None
        if reply.status_code < 400:
            return reply.content
        try:
            document = json.loads(reply.content)
        except ValueError:
            document = None
        refusal = from_problem(document, status=reply.status_code)
        refusal.detail = clean_line(refusal.detail, limit=500)
        raise refusal
