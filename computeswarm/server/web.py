"""What both HTTP servers share: bounded bodies in, JSON and problem documents out.

Every error leaves as ``application/problem+json`` (RFC 9457); an unforeseen one is logged whole and
answered with a sentence that tells nothing of the inside.
"""

from __future__ import annotations

import asyncio
import errno
import json
import math
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, TypeVar

from aiohttp import ClientPayloadError, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler
from multidict import CIMultiDict
from pydantic import BaseModel

from computeswarm.core.errors import (
    PROBLEM_CONTENT_TYPE,
    BadRequest,
    ComputeSwarmError,
    StorageFull,
    TooLarge,
    TooManyRequests,
    Unavailable,
)
from computeswarm.core.signing import Document, parse_json
from computeswarm.core.text import clean_line
from computeswarm.server.logs import get_logger

JSON_LIMIT = 64 * 1024
BODY_SECONDS = 20.0
"""A JSON body has so many seconds to arrive whole."""
IDLE_SECONDS = 30.0
"""A streamed body has so many seconds for each chunk."""
SLOWEST = 1_024
"""Bytes a second of a streamed body, on the average after ``IDLE_SECONDS``."""
JSON_CONTENT_TYPE = "application/json"
_JSON_TYPES = frozenset({JSON_CONTENT_TYPE, "application/octet-stream", "text/plain"})
_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""What zlib is told of a coding: which head and checksum are round it."""
_INFLATED_AT_ONCE = 64 * 1024
RETRY_SECONDS = 5
"""What a 503 tells the client to wait where nobody knows better."""
COMMON_HEADERS = CIMultiDict({"X-Content-Type-Options": "nosniff", "Server": "computeswarm"})
_BROKEN = "The request body is broken; send it again."
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

_log = get_logger("server")
DocumentT = TypeVar("DocumentT", bound=Document)


class SlowClient(ComputeSwarmError):
    """The client took too long to send what it announced."""

    code = "request_timeout"
    status = 408
    title = "The request did not arrive in time"


class BrokenBody(BadRequest):
    """Chunks or compression that can't be undone: what follows on the line is unreadable too."""


class MethodNotAllowed(ComputeSwarmError):
    code = "method_not_allowed"
    status = 405
    title = "Not with this method"


class UnsupportedMedia(ComputeSwarmError):
    code = "unsupported_media_type"
    status = 415
    title = "Not in this form"


class ExpectationFailed(ComputeSwarmError):
    code = "expectation_failed"
    status = 417
    title = "More is expected than the server does"


async def read_body(
    request: web.Request, *, limit: int = JSON_LIMIT, seconds: float = BODY_SECONDS
) -> bytes:
    """The whole body, at most ``limit`` bytes, and as many *after* any decompression.

    Raises:
        TooLarge: longer than that; nothing beyond the limit was kept.
        SlowClient: not here after ``seconds``.
        UnsupportedMedia: compressed in a way that isn't known here.
        BadRequest: broken chunking or compression.
    """
    content = request.content
    coded = hdrs.CONTENT_ENCODING in request.headers
    if not coded and content.is_eof() and content.exception() is None:
        # it came in one packet with the head: no timer needed
        body = content.read_nowait(-1)
        if len(body) > limit:
            raise _too_large(limit)
        return body
    length = request.content_length
    if length is not None and length > limit:
        raise _too_large(limit)
    parts = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in stream_body(request, limit=limit, idle_seconds=seconds):
                parts += chunk
    except TimeoutError:
        raise _slow() from None
    return bytes(parts)


async def stream_body(
    request: web.Request, *, limit: int, idle_seconds: float = IDLE_SECONDS
) -> AsyncIterator[bytes]:
    """The body in chunks as they come, at most ``limit`` bytes after any decompression.

    It is decompressed here, step by step as it is read: aiohttp would do so as it arrives, all of
    it, before any handler could stop that.

    Raises:
        TooLarge: longer than that.
        SlowClient: nothing came for ``idle_seconds``, or less than ``SLOWEST`` over a longer time.
        UnsupportedMedia: compressed in a way that isn't known here.
        BadRequest: broken chunking or compression.
    """
    inflater = _inflater(request)
    total = came = 0
    waited = 0.0
    clock = asyncio.get_running_loop().time
    while True:
        # only waiting counts: what the server takes for what came is not the client's fault
        began = clock()
        left = idle_seconds + came / SLOWEST - waited
        chunk = await _next_chunk(request, min(idle_seconds, left))
        if not chunk:
            break
        waited += clock() - began
        came += len(chunk)
        for part in (chunk,) if inflater is None else _inflated(inflater, chunk):
            total += len(part)
            if total > limit:
                raise _too_large(limit)
            yield part
    if inflater is not None and total and not inflater.eof:
        raise BrokenBody(_BROKEN)


async def _next_chunk(request: web.Request, idle_seconds: float) -> bytes:
    try:
        async with asyncio.timeout(idle_seconds):
            return await request.content.readany()
    except TimeoutError:
        raise _slow() from None
    except (HttpProcessingError, ClientPayloadError, web.RequestPayloadError):
        request.content.feed_eof()  # or aiohttp would read on, and meet the error again
        raise BrokenBody(_BROKEN) from None


def _inflater(request: web.Request) -> zlib._Decompress | None:
    coding = request.headers.get(hdrs.CONTENT_ENCODING, "").strip().lower()
    if coding in ("", "identity"):
        return None
    if coding not in _WINDOWS:
        sentence = f"The body may be gzip or deflate, not {clean_line(coding, limit=60)}."
        raise UnsupportedMedia(sentence)
    return zlib.decompressobj(_WINDOWS[coding])


def _inflated(inflater: zlib._Decompress, chunk: bytes) -> Iterator[bytes]:
    """What a chunk becomes, no more at once than can be told to be too much in time."""
    while chunk:
        if inflater.eof:  # something behind the end
            raise BrokenBody(_BROKEN)
        try:
            part = inflater.decompress(chunk, _INFLATED_AT_ONCE)
        except zlib.error:
            raise BrokenBody(_BROKEN) from None
        chunk = inflater.unconsumed_tail or inflater.unused_data
        if part:
            yield part


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request body is larger than {limit} bytes; send less.", limit=limit)


def _slow() -> SlowClient:
    return SlowClient("The request body did not arrive in time; send it again.")


async def read_model(
    request: web.Request, model: type[DocumentT], *, limit: int = JSON_LIMIT
) -> DocumentT:
    """The body as a ``model``.

    Raises:
        UnsupportedMedia: it says itself that it is something else than JSON.
        TooLarge, SlowClient: see ``read_body``.
        BadRequest: not JSON or not a ``model``; the sentence names the member that is wrong.
    """
    _check_media(request)
    return parse_json(model, await read_body(request, limit=limit))


def _check_media(request: web.Request) -> None:
    """Bytes and text of no stated kind pass, as clients send them; forms and the like don't."""
    kind, _, _ = request.headers.get(hdrs.CONTENT_TYPE, "").partition(";")
    kind = kind.strip().lower()
    if kind and kind not in _JSON_TYPES and not kind.endswith("+json"):
        sentence = f"The body is to be {JSON_CONTENT_TYPE}, not {clean_line(kind, limit=60)}."
        raise UnsupportedMedia(sentence)


def json_reply(
    value: BaseModel | Any,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    content_type: str = JSON_CONTENT_TYPE,
) -> web.Response:
    """A JSON response of a model or of plain JSON values."""
    if isinstance(value, BaseModel):
        body = value.model_dump_json().encode()
    else:
        body = json.dumps(value, separators=(",", ":")).encode()
    return bytes_reply(body, status=status, headers=headers, content_type=content_type)


def bytes_reply(
    body: bytes,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    content_type: str = JSON_CONTENT_TYPE,
) -> web.Response:
    """A response of ready bytes, with the headers every answer carries."""
    merged = CIMultiDict(COMMON_HEADERS)
    merged["Content-Type"] = content_type
    if headers:
        merged.update(headers)
    return web.Response(body=body, status=status, headers=merged)


def problem_reply(error: ComputeSwarmError) -> web.Response:
    """The problem document of an error."""
    headers = {"Cache-Control": "no-store"}
    if isinstance(error, (TooManyRequests, Unavailable)):
        wait = error.extra.get("retry_after", RETRY_SECONDS)
        headers["Retry-After"] = str(max(1, math.ceil(wait)))
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = ", ".join(error.extra.get("allowed", []))
    reply = json_reply(
        error.to_problem(), status=error.status, headers=headers, content_type=PROBLEM_CONTENT_TYPE
    )
    if isinstance(error, (TooLarge, SlowClient, BrokenBody)):
        reply.force_close()  # the rest of that body is nothing we want to read
    return reply


def answering(handler: Handler) -> Handler:
    """A handler whose every exception becomes a problem document; the unforeseen ones are logged.

    Wrapped around each handler, because an aiohttp middleware would cost every heartbeat 2 µs more.
    """

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except ComputeSwarmError as error:
            return _answer(request, error)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            return _answer(request, of_http(error))
        except Exception as error:
            if isinstance(error, ConnectionError) and request.transport is None:
                raise  # the client is gone: nobody is left to answer
            if isinstance(error, OSError) and error.errno in _DISK_FULL:
                _log.error("disk_full", method=request.method, path=request.path)
                return _answer(request, StorageFull("The server's disk is full; try again later."))
            return _unforeseen(request, error)

    return answer


def _unforeseen(request: web.Request, error: Exception) -> web.StreamResponse:
    _log.error("unhandled", exc=error, method=request.method, path=request.path)
    sentence = "The server met an error it did not expect; try again, or tell its operator."
    return _answer(request, ComputeSwarmError(sentence))


def _answer(request: web.Request, error: ComputeSwarmError) -> web.StreamResponse:
    started = request.writer.output_size > 0
    if started and request.transport is not None:
        # half an answer is out: cutting the line is the only honest end
        request.transport.abort()
    return problem_reply(error)


def of_http(error: web.HTTPException) -> ComputeSwarmError:
    """aiohttp's own refusals, such as an unknown form or a failed precondition."""
    mapped = BadRequest(f"The request can't be handled: {error.reason}.")
    mapped.status = error.status  # type: ignore[misc]  # this answer's own, not the class's
    return mapped
