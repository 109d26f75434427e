"""A bought job over HTTP: state, events, further slices; its files are next door."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator

from aiohttp import web
from pydantic import BaseModel, Field

from computeswarm.core.errors import (
    BadRequest,
    TooManyRequests,
    Unauthorized,
)
from computeswarm.core.jobs import JobView
from computeswarm.core.signing import Document, parse_json
from computeswarm.core.x402 import PaymentProof
from computeswarm.seller.agent import SellerAgent
from computeswarm.seller.job import Job
from computeswarm.server.logs import get_logger
from computeswarm.server.routes import Route
from computeswarm.server.seller_app_files import FileHandlers
from computeswarm.server.web import (
    JSON_CONTENT_TYPE,
    bytes_reply,
    json_reply,
    read_body,
)

_log = get_logger("seller")
_BYTES = "application/octet-stream"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CONTENT_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})", re.ASCII)
_METER_SECONDS = 1.0
_PING_SECONDS = 20.0
_FRAME_LIMIT = 64 * 1024
_SEND_SECONDS = 60.0
_COPY_BYTES = 256 * 1024
_FOLLOWERS = 16
"""Streams of one job at a time; one that is not read holds up to a page of it in memory."""
_KEY = {"Authorization": "Bearer and the job's access key"}
_SINCE = {"since": "number of the last event seen; 0 for all"}
_NO_STORE = {"Cache-Control": "no-store"}


class SlicePayment(Document):
    """``POST /jobs/{id}/payments``."""

    slice: int = Field(ge=1, lt=10**9)
    payment_proof: PaymentProof | None = None


def job_routes(agent: SellerAgent) -> list[Route]:
    """The routes below /jobs."""
    return _JobHandlers(agent).routes()


class _JobHandlers:
    def __init__(self, agent: SellerAgent) -> None:
        self._agent = agent
        self._following: Counter[str] = Counter()
        self._files = FileHandlers(agent, self._job)

    def routes(self) -> list[Route]:
        job = "/jobs/{id}"
        view: dict[int, type[BaseModel] | str | None] = {200: JobView}
        stream = {**_SINCE, "follow": "0 ends with the newest event instead of the job"}
        return [
            Route("GET", job, self.view, "How a job stands", replies=view, headers=_KEY),
            Route(
                "POST",
                f"{job}/payments",
                self.pay,
                "Buy the next slice (x402)",
                body=SlicePayment,
                replies={200: JobView, 402: JSON_CONTENT_TYPE},
                headers=_KEY,
            ),
            Route(
                "GET",
                f"{job}/events",
                self.events,
                "The job's events, a page of them",
                replies={200: JSON_CONTENT_TYPE},
                query=_SINCE,
                headers=_KEY,
            ),
            Route(
                "GET",
                f"{job}/stream",
                self.stream,
                "The job's events as they come (WebSocket; a frame is a JSON array)",
                replies={101: None},
                query=stream,
                headers=_KEY,
            ),
            Route("POST", f"{job}/cancel", self.cancel, "End it", replies=view, headers=_KEY),
            *self._files.routes(),
        ]

    def _job(self, request: web.Request) -> Job:
        """The job, for who holds its key.

        Raises:
            JobNotFound, Unauthorized.
        """
        job = self._agent.desk.store.get(request.match_info["id"])
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not job.opened_by(key.strip()):
            raise Unauthorized("The access key of this job is missing or wrong.")
        return job

    def _view(self, job_id: str) -> web.StreamResponse:
        desk = self._agent.desk
        return json_reply(desk.view(desk.store.get(job_id)), headers=_NO_STORE)

    async def view(self, request: web.Request) -> web.StreamResponse:
        return self._view(self._job(request).job_id)

    async def pay(self, request: web.Request) -> web.StreamResponse:
        job = self._job(request)
        body = await read_body(request)
        asked = parse_json(SlicePayment, body)
        self._agent.check_started()
        answer = await self._agent.intake.pay_slice(
            request.headers, body, job, asked.slice, asked.payment_proof
        )
        headers = {**answer.headers, **_NO_STORE}
        return bytes_reply(answer.body, status=answer.status, headers=headers)

    async def events(self, request: web.Request) -> web.StreamResponse:
        job = self._job(request)
        log = self._agent.desk.log(job.job_id)
        lines = log.page(_since(request))
        body = b'{"events":[%b],"last_seq":%d}' % (b",".join(lines), log.last_seq)
        return bytes_reply(body, headers=_NO_STORE)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        job, since = self._job(request), _since(request)
        follow = request.query.get("follow", "1") != "0"
        if self._following[job.job_id] >= _FOLLOWERS:
            raise TooManyRequests(f"{_FOLLOWERS} streams of this job are open; close some.")
        self._following[job.job_id] += 1
        try:
            return await self._serve(request, job, since, follow)
        finally:
            self._following[job.job_id] -= 1
            if not self._following[job.job_id]:
                del self._following[job.job_id]

    async def _serve(
        self, request: web.Request, job: Job, since: int, follow: bool
    ) -> web.StreamResponse:
        socket = web.WebSocketResponse(
            heartbeat=_PING_SECONDS, max_msg_size=_FRAME_LIMIT, compress=False
        )
        await socket.prepare(request)
        sender = asyncio.create_task(self._send(socket, job.job_id, since, follow))
        try:
            async for _ in socket:  # nothing is expected; this sees pings and the end
                pass
        finally:
            sender.cancel()
            (ended,) = await asyncio.gather(sender, return_exceptions=True)
        if isinstance(ended, Exception):
            _log.error("stream_failed", exc=ended, job_id=job.job_id)
        return socket

    async def _send(
        self, socket: web.WebSocketResponse, job_id: str, since: int, follow: bool
    ) -> None:
        log = self._agent.desk.log(job_id)
        try:
            if follow:
                await self._follow(socket, job_id, since)
            else:
                while page := log.page(since):
                    since += len(page)
                    await _frame(socket, page)
        except (ConnectionError, TimeoutError):
            pass  # gone, or too slow to be worth a buffer: it may come back and resume
        finally:
            await socket.close(code=1000)

    async def _follow(self, socket: web.WebSocketResponse, job_id: str, since: int) -> None:
        told = asyncio.get_running_loop().time()
        async for page in self._pages(job_id, since):
            lines = list(page)
            now = asyncio.get_running_loop().time()
            if now - told >= _METER_SECONDS and (meter := self._agent.meter(job_id)) is not None:
                lines.append(meter.model_dump_json().encode())
                told = now
            if lines:
                await _frame(socket, lines)

    def _pages(self, job_id: str, since: int) -> AsyncIterator[list[bytes]]:
        return self._agent.desk.log(job_id).pages(since, idle=_METER_SECONDS)

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        job = self._job(request)
        await self._agent.cancel(job.job_id)
        return self._view(job.job_id)


def _since(request: web.Request) -> int:
    text = request.query.get("since", "0")
    if not text.isascii() or not text.isdigit() or len(text) > 16:
        raise BadRequest("since is a whole number: the last event seen.")
    return int(text)


async def _frame(socket: web.WebSocketResponse, lines: list[bytes]) -> None:
    async with asyncio.timeout(_SEND_SECONDS):
        await socket.send_str("[" + ",".join(line.decode() for line in lines) + "]")
