"""A seller as its buyer uses it, by the routes of the seller's HTTP interface."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote as quote_path

from computeswarm.buyer.http.base import ANSWER_SECONDS, Answer, Peer
from computeswarm.buyer.http.bulk import Body, Bulk
from computeswarm.core.errors import BadRequest, SellerUnavailable
from computeswarm.core.events import EVENTS, JobEvent, OutputEvent
from computeswarm.core.jobs import (
    ExecuteRequest,
    InputState,
    JobSpec,
    JobView,
    OutputFile,
    OutputList,
    QuoteRequest,
)
from computeswarm.core.quotes import Scheme
from computeswarm.core.signing import Signed, parse_json

# a seller answers once the payment is on the chain, which may take several blocks
SETTLE_SECONDS = 90.0
_JSON = {"Content-Type": "application/json"}
MAX_EVENTS_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Access:
    """Which job, and the secret that opens it."""

    job_id: str
    key: str

    @property
    def headers(self) -> dict[str, str]:
        """The bearer token."""
        return {"Authorization": f"Bearer {self.key}"}


def check_events(value: Any) -> list[JobEvent]:
    """A stranger's list of events, each of them decodable.

    Raises:
        BadRequest: something else.
    """
    try:
        events = EVENTS.validate_python(value)
        for event in events:
            if isinstance(event, OutputEvent):
                event.raw()
    except ValueError:
        raise BadRequest("The seller's stream of events can't be read.") from None
    return events


class SellerClient:
    """One seller's node."""

    def __init__(self, url: str) -> None:
        self._peer = Peer(url, who="The seller", unavailable=SellerUnavailable)
        self._bulk = Bulk(self._peer)
        self.url = self._peer.url

    async def close(self) -> None:
        """Close the connections."""
        await self._bulk.close()
        await self._peer.close()

    async def quote(
        self, spec: JobSpec, scheme: Scheme = "exact", offer_per_hour: int | None = None
    ) -> Signed:
        """An offer for the spec; inline bytes stay at home."""
        asked = QuoteRequest(
            spec=spec.without_content(), scheme=scheme, offer_per_hour=offer_per_hour
        )
        body = asked.model_dump_json().encode()
        answer = await self._peer.request("POST", "/quotes", body=body, headers=_JSON)
        return parse_json(Signed, answer.body)

    async def execute(self, body: bytes, payment: Mapping[str, str] | None = None) -> Answer:
        """Ask for a job: 402 names the price, 202 is the job. The body is an ExecuteRequest."""
        return await self._pay("/execute", body, {}, payment)

    async def pay_slice(
        self, access: Access, index: int, payment: Mapping[str, str] | None = None
    ) -> Answer:
        """Buy slice ``index``: 402 names the price, 200 is the job."""
        body = b'{"slice":%d}' % index
        return await self._pay(f"/jobs/{access.job_id}/payments", body, access.headers, payment)

    async def _pay(
        self, path: str, body: bytes, headers: Mapping[str, str], payment: Mapping[str, str] | None
    ) -> Answer:
        return await self._peer.request(
            "POST",
            path,
            body=body,
            headers={**_JSON, **headers, **(payment or {})},
            seconds=SETTLE_SECONDS if payment else ANSWER_SECONDS,
            accept=(402,),
        )

    async def job(self, access: Access) -> JobView:
        """How the job stands."""
        return await self._view("GET", access, "")

    async def cancel(self, access: Access) -> JobView:
        """Stop the job; the unused rest of what was paid comes back."""
        return await self._view("POST", access, "/cancel")

    async def _view(self, method: str, access: Access, suffix: str) -> JobView:
        answer = await self._peer.request(
            method, f"/jobs/{access.job_id}{suffix}", headers=access.headers
        )
        view = parse_json(JobView, answer.body)
        if view.job_id != access.job_id:
            raise BadRequest("The seller answers for another job than the one asked for.")
        return view

    async def events(self, access: Access, since: int) -> list[JobEvent]:
        """The stored events after ``since``, as many as the seller gives at once."""
        answer = await self._peer.request(
            "GET",
            f"/jobs/{access.job_id}/events",
            params={"since": since},
            headers=access.headers,
            limit=MAX_EVENTS_BYTES,
        )
        page = answer.json()
        if not isinstance(page, dict):
            raise BadRequest("The seller's stream of events can't be read.")
        return check_events(page.get("events"))

    async def input_state(self, access: Access, sha256: str) -> InputState:
        """How much of an input he has."""
        answer = await self._peer.request(
            "GET", f"/jobs/{access.job_id}/inputs/{sha256}", headers=access.headers
        )
        return parse_json(InputState, answer.body)

    async def upload(
        self,
        access: Access,
        sha256: str,
        start: int,
        size: int,
        chunks: AsyncGenerator[bytes, None],
    ) -> None:
        """Send an input of ``size`` bytes from byte ``start`` on; the seller checks its digest."""
        headers = dict(access.headers)
        if start:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        place = f"/jobs/{access.job_id}/inputs/{sha256}"
        await self._bulk.put(place, chunks, size - start, headers, total=size)

    async def outputs(self, access: Access) -> OutputList:
        """The files the job left."""
        answer = await self._peer.request(
            "GET",
            f"/jobs/{access.job_id}/outputs",
            headers=access.headers,
            limit=32 * 1024 * 1024,
        )
        listed = parse_json(OutputList, answer.body)
        if listed.job_id != access.job_id:
            raise BadRequest("The seller lists the outputs of another job.")
        return listed

    def download(
        self, access: Access, file: OutputFile, start: int = 0
    ) -> AbstractAsyncContextManager[Body]:
        """The bytes of one output from ``start`` on: of this version of it, or none at all."""
        tag = f'"{file.sha256}"'
        headers = {**access.headers, "If-Match": tag}
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": tag}
        return self._bulk.get(f"/jobs/{access.job_id}/outputs/{quote_path(file.path)}", headers)


def execute_body(request: ExecuteRequest) -> bytes:
    """The request's bytes: a payment is bound to them, so a repetition sends the very same."""
    return request.model_dump_json().encode()
