"""A job's files over HTTP: inputs up and outputs down, both resumable at any byte."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from aiohttp import hdrs, web

from computeswarm.core.errors import (
    BadRequest,
    ComputeSwarmError,
    Conflict,
    Gone,
    NotFound,
    TooManyRequests,
)
from computeswarm.core.jobs import InputState, OutputFile, OutputList
from computeswarm.seller.agent import SellerAgent
from computeswarm.seller.job import Job
from computeswarm.seller.outputs import open_output
from computeswarm.server.routes import Route
from computeswarm.server.sending import send_file
from computeswarm.server.web import json_reply, stream_body

DOWNLOADS = 16
"""Of one job at a time."""
ALL_DOWNLOADS = 256
_BYTES = "application/octet-stream"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CONTENT_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})", re.ASCII)
_KEY = {"Authorization": "Bearer and the job's access key"}
_NO_STORE = {"Cache-Control": "no-store"}

FindJob = Callable[[web.Request], Job]


class OtherVersion(ComputeSwarmError):
    """The file is not, or no longer, the version that ``If-Match`` names."""

    code = "other_version"
    status = 412
    title = "There is another version of the file"


class FileHandlers:
    """The handlers.

    Args:
        job: the job of a request, for who holds its key.
    """

    def __init__(self, agent: SellerAgent, job: FindJob) -> None:
        self._agent = agent
        self._job = job
        self._sending: Counter[str] = Counter()

    def routes(self) -> list[Route]:
        """The routes below /jobs/{id}/inputs and /jobs/{id}/outputs."""
        place = "/jobs/{id}/inputs/{sha256}"
        return [
            Route(
                "GET",
                place,
                self.input,
                "How much of an input is here (HEAD: in Upload-Offset)",
                replies={200: InputState},
                headers=_KEY,
            ),
            Route(
                "PUT",
                place,
                self.upload,
                "Send an input, as raw bytes; Content-Range goes on where it broke off",
                replies={202: InputState, 204: None},
                headers=_KEY,
            ),
            Route(
                "GET",
                "/jobs/{id}/outputs",
                self.outputs,
                "What the job left, or what has settled while it runs",
                replies={200: OutputList},
                headers=_KEY,
            ),
            Route(
                "GET",
                "/jobs/{id}/outputs/{path:.+}",
                self.output,
                "One output; Range, If-Range and If-Match are supported",
                replies={200: _BYTES, 206: _BYTES},
                headers=_KEY,
            ),
        ]

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

    async def outputs(self, request: web.Request) -> web.StreamResponse:
        return json_reply(self._listed(self._job(request)), headers=_NO_STORE)

    def _listed(self, job: Job) -> OutputList:
        if job.outputs:
            return _parsed(job.outputs)
        if not job.state.terminal:
            if not job.spec.stream_outputs:
                raise Conflict("The job has not ended; its outputs can be fetched then.")
            live = self._agent.desk.live.get(job.job_id)
            files = live.files() if live is not None else ()
            return OutputList(job_id=job.job_id, files=files, final=False)
        if job.phases.running is None:
            return OutputList(job_id=job.job_id)
        raise Gone("The outputs of this job are no longer kept.")

    async def output(self, request: web.Request) -> web.StreamResponse:
        job = self._job(request)
        found, root, name = self._find(job, request.match_info["path"])
        tag = f'"{found.sha256}"'
        if request.headers.get(hdrs.IF_MATCH, tag) not in (tag, "*"):
            raise OtherVersion("The file has changed; see the list of outputs.")
        whole = request.headers.get(hdrs.IF_RANGE, tag) != tag
        start, stop = (0, found.size) if whole else _range(request, found.size)
        headers = {
            "Content-Type": _BYTES,
            "Accept-Ranges": "bytes",
            "X-Content-Type-Options": "nosniff",
            "ETag": tag,
        }
        part = (start, stop) != (0, found.size)
        if part:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{found.size}"
        reply = web.StreamResponse(status=206 if part else 200, headers=headers)
        if request.method == hdrs.METH_HEAD:
            reply.content_length = stop - start
            await reply.prepare(request)
            return reply
        if self._sending[job.job_id] >= DOWNLOADS or self._sending.total() >= ALL_DOWNLOADS:
            raise TooManyRequests("Many outputs are being fetched just now; wait for some of them.")
        self._sending[job.job_id] += 1
        try:
            with await asyncio.to_thread(open_output, root, name) as file:
                await send_file(request, reply, file, start, stop)
        finally:
            self._sending -= Counter({job.job_id: 1})
        return reply

    def _find(self, job: Job, path: str) -> tuple[OutputFile, Path, str]:
        """An output, and where its bytes lie.

        Raises:
            NotFound: there is none of that name.
            Conflict, Gone: there are none at all.
        """
        listed = self._listed(job)
        if not listed.final:
            live = self._agent.desk.live.get(job.job_id)
            settled = live.find(path) if live is not None else None
            if settled is not None:
                return settled[0], settled[1].parent, settled[1].name
        else:
            found = _by_path(job.outputs).get(path) if job.outputs else None
            if found is not None:
                return found, self._agent.desk.outputs_folder(job.job_id), path
        raise NotFound("There is no output of that name; see the list of outputs.")


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


@lru_cache(maxsize=4)
def _parsed(outputs: str) -> OutputList:
    """Ten thousand outputs are fetched one by one, and each request looks into the list."""
    return OutputList.model_validate_json(outputs)


@lru_cache(maxsize=4)
def _by_path(outputs: str) -> dict[str, OutputFile]:
    return {file.path: file for file in _parsed(outputs).files}


def _range(request: web.Request, size: int) -> tuple[int, int]:
    """First byte and the one after the last.

    Raises:
        BadRequest: it can't be read, or is outside of the file.
    """
    try:
        start, stop, _ = request.http_range.indices(size) if size else (0, 0, 1)
    except ValueError:
        raise BadRequest("The Range header can't be read; write bytes=FROM-TO.") from None
    if size and stop <= start:
        raise BadRequest(f"The file has {size} bytes; ask for a part within them.")
    return start, stop
