"""A bought job over HTTP: inputs, state, events, further slices, outputs."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from functools import lru_cache

from aiohttp import hdrs, web
from pydantic import BaseModel, Field

from computeswarm.core.errors import (
    BadRequest,
    Conflict,
    Gone,
    NotFound,
    TooManyRequests,
    Unauthorized,
)
from computeswarm.core.jobs import InputState, JobView, OutputList
from computeswarm.core.signing import Document, parse_json
from computeswarm.core.x402 import PaymentProof
from computeswarm.seller.agent import SellerAgent
from computeswarm.seller.job import Job
from computeswarm.seller.outputs import open_output
from computeswarm.server.logs import get_logger
from computeswarm.server.openapi import Route
from computeswarm.server.web import (
    JSON_CONTENT_TYPE,
    bytes_reply,
    json_reply,
    read_body,
    stream_body,
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
                f"{job}/inputs/{{sha256}}",
                self.input,
                "How much of an input is here (HEAD: in Upload-Offset)",
                replies={200: InputState},
                headers=_KEY,
            ),
            Route(
                "PUT",
                f"{job}/inputs/{{sha256}}",
                self.upload,
                "Send an input, as raw bytes; Content-Range goes on where it broke off",
                replies={202: InputState, 204: None},
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
            Route(
                "GET",
                f"{job}/outputs",
                self.outputs,
                "What the job left",
                replies={200: OutputList},
                headers=_KEY,
            ),
            Route(
                "GET",
                f"{job}/outputs/{{path:.+}}",
                self.output,
                "One output; Range is supported",
                replies={200: _BYTES, 206: _BYTES},
                headers=_KEY,
            ),
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

    async def input(self, request: web.Request) -> web.StreamResponse:
        return _input_reply(200, self._input(request)[1])

    async def upload(self, request: web.Request) -> web.StreamResponse:
        job, before = self._input(request)
        self._agent.uploaded(job.job_id)
        span = _content_range(request, before.size)
        now = await self._agent.inputs.receive(
            job.job_id,
            job.spec,
            before.sha256,
            span,
            stream_body(request, limit=span[1] - span[0]),
            lambda: self._agent.uploaded(job.job_id),
        )
        if now.received < now.size:
            return _input_reply(202, now)
        self._agent.dispatcher.schedule()
        return web.Response(status=204)

    def _input(self, request: web.Request) -> tuple[Job, InputState]:
        job, sha256 = self._job(request), request.match_info["sha256"]
        if not _SHA256.fullmatch(sha256):
            raise BadRequest("An input is named by its sha256 in lower-case hex.")
        return job, self._agent.inputs.state(job.job_id, job.spec, sha256)

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

    async def outputs(self, request: web.Request) -> web.StreamResponse:
        return json_reply(_listed(self._job(request)), headers=_NO_STORE)

    async def output(self, request: web.Request) -> web.StreamResponse:
        job, path = self._job(request), request.match_info["path"]
        found = next((file for file in _listed(job).files if file.path == path), None)
        if found is None:
            raise NotFound("There is no output of that name; see the list of outputs.")
        file = await asyncio.to_thread(
            open_output, self._agent.desk.outputs_folder(job.job_id), path
        )
        with file:
            start, stop = _range(request, found.size)
            reply = web.StreamResponse(
                status=200 if (start, stop) == (0, found.size) else 206,
                headers={
                    "Content-Type": _BYTES,
                    "Accept-Ranges": "bytes",
                    "X-Content-Type-Options": "nosniff",
                    "ETag": f'"{found.sha256}"',
                },
            )
            if reply.status == 206:
                reply.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{found.size}"
            reply.content_length = stop - start
            await reply.prepare(request)
            file.seek(start)
            left = 0 if request.method == hdrs.METH_HEAD else stop - start
            while left > 0:
                chunk = await asyncio.to_thread(file.read, min(left, _COPY_BYTES))
                if not chunk:
                    break
                left -= len(chunk)
                await reply.write(chunk)
            await reply.write_eof()
        return reply


def _input_reply(status: int, state: InputState) -> web.Response:
    headers = {"Upload-Offset": str(state.received), "Upload-Length": str(state.size)}
    return json_reply(state, status=status, headers={**headers, **_NO_STORE})


def _content_range(request: web.Request, size: int) -> tuple[int, int]:
    """First byte of a body and the one after its last; the whole file without ``Content-Range``.

    Raises:
        BadRequest: it can't be read, or is not within the file.
    """
    text = request.headers.get(hdrs.CONTENT_RANGE)
    if text is None:
        return 0, size
    found = _CONTENT_RANGE.fullmatch(text.strip())
    if found is None or int(found[3]) != size or not int(found[1]) <= int(found[2]) < size:
        raise BadRequest(f"Content-Range is bytes FROM-TO/{size}, with TO below {size}.")
    return int(found[1]), int(found[2]) + 1


def _listed(job: Job) -> OutputList:
    if job.outputs:
        return _parsed(job.outputs)
    if not job.state.terminal:
        raise Conflict("The job has not ended; its outputs can be fetched then.")
    if job.phases.running is None:
        return OutputList(job_id=job.job_id)
    raise Gone("The outputs of this job are no longer kept.")


@lru_cache(maxsize=4)
def _parsed(outputs: str) -> OutputList:
    """Ten thousand outputs are fetched one by one, and each request looks into the list."""
    return OutputList.model_validate_json(outputs)


def _since(request: web.Request) -> int:
    text = request.query.get("since", "0")
    if not text.isascii() or not text.isdigit() or len(text) > 16:
        raise BadRequest("since is a whole number: the last event seen.")
    return int(text)


def _range(request: web.Request, size: int) -> tuple[int, int]:
    """First byte and the one after the last.

    Raises:
        HTTPRequestRangeNotSatisfiable: outside of the file.
    """
    try:
        start, stop, _ = request.http_range.indices(size) if size else (0, 0, 1)
    except ValueError:
        raise BadRequest("The Range header can't be read; write bytes=FROM-TO.") from None
    if size and stop <= start:
        raise BadRequest(f"The file has {size} bytes; ask for a part within them.")
    return start, stop


async def _frame(socket: web.WebSocketResponse, lines: list[bytes]) -> None:
    async with asyncio.timeout(_SEND_SECONDS):
        await socket.send_str("[" + ",".join(line.decode() for line in lines) + "]")
