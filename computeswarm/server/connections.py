"""What one connection, one address and all of them together may take of a server.

aiohttp answers requests; this stands before it: it counts connections as they come, and looks at
the open ones every few seconds for heads that trickle in and answers that nobody takes. A request
that arrives whole costs a look at one attribute.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from computeswarm.core.addresses import address_key
from computeswarm.core.errors import (
    PROBLEM_CONTENT_TYPE,
    BadRequest,
    ComputeSwarmError,
    TooManyRequests,
    Unavailable,
)
from computeswarm.core.logs import get_logger
from computeswarm.server.web import SlowClient, of_http, problem_reply

MAX_LINE = 8_190
"""Bytes of a request's first line."""
MAX_FIELD = 8_192
"""Bytes of one header; not ``MAX_LINE``, as aiohttp tells of the limit alone which was met."""
MAX_FIELDS = 64
MAX_HEAD = 64 * 1024
"""Bytes of a head that comes in pieces."""
CROWDED = 0.9
"""From this part of all connections on, idle ones make room."""
UNFAIR = 4
"""Where all are taken, who has so many times as many as a newcomer makes room for him."""
RETRY_SECONDS = 10

_log = get_logger("server")


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Times in seconds."""

    total: int = 2_000
    per_address: int = 500
    """From one IPv4 address or IPv6 /64; a farm or an office may well share one."""
    head_seconds: float = 10.0
    """For the first request's head from the connection on, for others' from their first byte."""
    idle_seconds: float = 75.0
    """Between requests."""
    crowded_idle_seconds: float = 5.0
    """The same where nearly all connections are taken."""
    send_seconds: float = 60.0
    """In which a reader has to take ``send_bytes`` while some wait for him."""
    send_bytes: int = 16 * 1024

    def sized(self, total: int, per_address: int) -> ConnectionLimits:
        """With an operator's numbers; 0 leaves ours, and a quarter of all for one address."""
        total = total or self.total
        return replace(self, total=total, per_address=per_address or max(1, total // 4))


class UriTooLong(ComputeSwarmError):
    code = "uri_too_long"
    status = 414
    title = "The address is too long"


class HeadTooLarge(ComputeSwarmError):
    code = "head_too_large"
    status = 431
    title = "The request's headers are too large"


class Connections:
    """All connections of one server.

    Args:
        trusts: whether an address is a proxy's of ours, which may have any number of them.
    """

    def __init__(
        self,
        limits: ConnectionLimits | None = None,
        *,
        trusts: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.limits = limits or ConnectionLimits()
        self.refused: dict[str, int] = {}
        """What was refused or cut, by why."""
        self._trusts = trusts
        self._open: dict[Connection, str] = {}
        self._by_address: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def open(self) -> int:
        """How many there are."""
        return len(self._open)

    def fit(self, most: int) -> None:
        """Take no more than that, whatever was allowed: accepting would fail without a word."""
        limits = self.limits
        if most < limits.total:
            _log.warning("connections_fewer", wanted=limits.total, possible=most)
            share = min(limits.per_address, most)
            self.limits = replace(limits, total=most, per_address=share)

    def start(self) -> None:
        """Begin to look after the open ones."""
        self._task = asyncio.create_task(self._look_forever(), name="connections")

    def stop(self) -> None:
        """End that."""
        if self._task is not None:
            self._task.cancel()

    def admit(self, connection: Connection, address: str) -> ComputeSwarmError | None:
        """Count a new connection, or say why it can't stay."""
        key = "" if self._trusts(address) else address_key(address)
        held = self._by_address.get(key, 0)
        if len(self._open) >= self.limits.total and not self._make_room(held + 1):
            self.count("too_many")
            return Unavailable(
                "The server has as many connections as it can take; try again soon.",
                retry_after=RETRY_SECONDS,
            )
        if key and held >= self.limits.per_address:
            self.count("too_many_of_address")
            return TooManyRequests(
                f"Your address has {held} connections open; close some, or use them again.",
                retry_after=RETRY_SECONDS,
                limit="connections per address",
                amount=self.limits.per_address,
            )
        self._by_address[key] = held + 1
        self._open[connection] = key
        return None

    def _make_room(self, wanted: int) -> bool:
        """End a connection of the address that has most, an idle one if there is any, for one who
        would have ``wanted``: or a few addresses could keep all others out."""
        most = max((n, key) for key, n in self._by_address.items())
        if not most[1] or most[0] < UNFAIR * wanted:
            return False
        theirs = [connection for connection, key in self._open.items() if key == most[1]]
        ended = next((connection for connection in theirs if connection.idle), theirs[0])
        self.count("made_room")
        self.forget(ended)
        ended.force_close()
        return True

    def forget(self, connection: Connection) -> None:
        """A connection has ended."""
        key = self._open.pop(connection, None)
        if key is None:
            return
        left = self._by_address[key] - 1
        if left:
            self._by_address[key] = left
        else:
            del self._by_address[key]

    def count(self, why: str) -> None:
        """Add to ``refused``."""
        self.refused[why] = self.refused.get(why, 0) + 1

    def look(self) -> None:
        """End what takes too long."""
        now = asyncio.get_running_loop().time()
        crowded = len(self._open) >= self.limits.total * CROWDED
        for connection in tuple(self._open):
            connection.look(now, crowded=crowded)

    async def _look_forever(self) -> None:
        limits = self.limits
        pause = min(2.5, limits.head_seconds / 4, limits.send_seconds / 4)
        while True:
            await asyncio.sleep(pause)
            self.look()


class Connection(RequestHandler):
    """aiohttp's connection, watched."""

    __slots__ = (
        "_all",
        "_began_at",
        "_head_at",
        "_head_bytes",
        "_unsent",
        "_unsent_at",
        "_unsent_taken",
    )

    def __init__(self, watching: Connections, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._all = watching
        self._began_at = self._loop.time()
        self._head_at = 0.0
        self._head_bytes = 0
        self._unsent = 0
        self._unsent_at = 0.0
        self._unsent_taken = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        address = str(peer[0]) if isinstance(peer, tuple) else ""
        refusal = self._all.admit(self, address)
        if refusal is None:
            super().connection_made(transport)
            return
        self._force_close = True  # what it sends now is nothing we read
        assert isinstance(transport, asyncio.Transport)
        transport.write(_raw(refusal))
        transport.close()

    @property
    def idle(self) -> bool:
        """Whether nothing of it is being answered."""
        return self._waiter is not None and not self._waiter.done()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._all.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        waiter = self._waiter
        if waiter is None or waiter.done():
            self._head_at = 0.0  # a request is here
        elif data:
            if not self._head_at:
                self._head_at, self._head_bytes = self._loop.time(), 0
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD:
                self._end(HeadTooLarge(f"A request's head has at most {MAX_HEAD} bytes."))

    def look(self, now: float, *, crowded: bool) -> None:
        """End it where its head or its reader takes too long."""
        limits, transport, waiter = self._all.limits, self.transport, self._waiter
        if transport is None:
            return
        unsent = transport.get_write_buffer_size()
        if unsent:
            self._look_at_reader(unsent, now)
            return
        self._unsent_at = 0.0
        if waiter is None or waiter.done():
            return  # a handler is at work, which has limits of its own
        since = self._head_at or (0.0 if self._request_count else self._began_at)
        if since:
            if now - since > limits.head_seconds:
                self._end(SlowClient("The request's head did not arrive in time; send it at once."))
        elif crowded:
            idle_since = self._next_keepalive_close_time - self._keepalive_timeout
            if now - idle_since > limits.crowded_idle_seconds:
                self._all.count("idle")
                self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What could not be read as a request, answered as everything else is."""
        if request.writer.output_size > 0:
            raise ConnectionError("half an answer is out")
        if status >= 500:
            _log.error("unhandled", exc=exc)
            error = ComputeSwarmError("The server met an error it did not expect; try again.")
        else:
            error = _unreadable(exc)
            self._all.count(error.code)
        reply = problem_reply(error)
        reply.force_close()
        return reply

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        """aiohttp's own refusals come out as documents too: a target that no route could take."""
        if isinstance(resp, web.HTTPException) and resp.status >= 400:
            resp = problem_reply(of_http(resp))
        return super().finish_response(request, resp, start_time)

    # inside

    def _look_at_reader(self, unsent: int, now: float) -> None:
        limits = self._all.limits
        if not self._unsent_at:
            self._unsent_at, self._unsent_taken = now, 0
        else:
            self._unsent_taken += max(0, self._unsent - unsent)
            if now - self._unsent_at > limits.send_seconds:
                if self._unsent_taken < limits.send_bytes:
                    self._all.count("slow_reader")
                    assert self.transport is not None
                    self.transport.abort()
                    return
                self._unsent_at, self._unsent_taken = now, 0
        self._unsent = unsent

    def _end(self, error: ComputeSwarmError) -> None:
        """Answer what never became a request, where that came at all, and hang up."""
        self._all.count(error.code)
        if self.transport is not None and self._head_at:
            self.transport.write(_raw(error))
        self.force_close()


class ConnectionServer(web.Server):
    """Makes a watched connection of each that comes; the rest is aiohttp's."""

    def __init__(self, made: web.Server, watching: Connections, **kwargs: Any) -> None:
        super().__init__(made.request_handler, request_factory=made.request_factory, **kwargs)
        self._watching = watching

    def __call__(self) -> RequestHandler:
        return Connection(self._watching, self, loop=self._loop, **self._kwargs)


def _unreadable(exc: BaseException | None) -> ComputeSwarmError:
    if isinstance(exc, LineTooLong):
        if exc.args[1] == MAX_LINE:
            return UriTooLong(f"A request's first line has at most {MAX_LINE} bytes.")
        return HeadTooLarge(f"A header has at most {MAX_FIELD} bytes; send less.")
    if exc is not None and "Too many headers" in str(exc):
        return HeadTooLarge(f"A request has at most {MAX_FIELDS} headers; send fewer.")
    return BadRequest("This is no HTTP request that the server can read.")


def _raw(error: ComputeSwarmError) -> bytes:
    """An answer where no request is."""
    body = json.dumps(error.to_problem(), separators=(",", ":")).encode()
    retry = f"Retry-After: {error.extra['retry_after']}\r\n" if "retry_after" in error.extra else ""
    head = (
        f"HTTP/1.1 {error.status} {error.title}\r\nContent-Type: {PROBLEM_CONTENT_TYPE}\r\n{retry}"
        f"Content-Length: {len(body)}\r\nConnection: close\r\nServer: computeswarm\r\n\r\n"
    )
    return head.encode("ascii") + body
