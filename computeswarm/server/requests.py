"""What is measured of every request: time by route, answers by status, who was refused, what was
slow. It costs about a microsecond a request.

Refusals are told in one line every ten seconds, as an attack must not fill the log.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from time import perf_counter

from aiohttp import web
from aiohttp.typedefs import Handler

from computeswarm.core.logs import get_logger
from computeswarm.core.metrics import Exposition, Histogram
from computeswarm.server.request_id import HEADER, RequestName, current

SLOW_SECONDS = 1.0
REPORT_SECONDS = 10.0
_MOST_SLOW = 10
"""Lines about slow requests between two reports."""
_MOST_KEYS = 1_000
_SHOWN = 5

_log = get_logger("requests")


class RouteMeter:
    """One route; ``answers`` are by the first digit of their status, 0 for none at all."""

    __slots__ = ("answers", "method", "path", "took")

    def __init__(self, method: str, path: str) -> None:
        self.method = method
        self.path = path
        self.took = Histogram()
        self.answers = [0] * 6


class RequestMeter:
    """All routes of one server.

    Args:
        client: the address of whoever asks, for the report on refusals.
        slow_seconds: what takes longer is logged.
    """

    def __init__(
        self,
        *,
        client: Callable[[web.Request], str] = lambda request: request.remote or "?",
        slow_seconds: float = SLOW_SECONDS,
    ) -> None:
        self.routes: list[RouteMeter] = []
        self.in_flight = 0
        """Requests being answered, streams among them."""
        self._client = client
        self._slow_seconds = slow_seconds
        self._slow = 0
        self._refused: Counter[str] = Counter()
        self._addresses: Counter[str] = Counter()
        self._report_due = False

    def timed(self, method: str, path: str, handler: Handler) -> Handler:
        """A handler that is measured under a route's pattern; it must turn errors into answers."""
        route = RouteMeter(method, path)
        self.routes.append(route)
        observe, answers = route.took.observe, route.answers

        async def timed(request: web.Request) -> web.StreamResponse:
            name = RequestName(request.headers.get(HEADER))
            token = current.set(name)
            self.in_flight += 1
            status = 0
            started = perf_counter()
            try:
                reply = await handler(request)
                status = reply.status
            finally:
                seconds = perf_counter() - started
                self.in_flight -= 1
                current.reset(token)
                answers[status // 100] += 1
            if isinstance(reply, web.Response):  # a stream lasts as long as its reader likes
                observe(seconds)
                if seconds >= self._slow_seconds:
                    self._was_slow(route, status, seconds, name)
            if status >= 400 or name.known:
                self._name(request, reply, route, name)
            return reply

        return timed

    def expose(self, out: Exposition) -> None:
        """The figures of all routes that were used."""
        used = [route for route in self.routes if any(route.answers)]
        out.histogram(
            "http_request_duration_seconds",
            "Time to an answer, by route; streams are left out.",
            [({"method": r.method, "route": r.path}, r.took) for r in used if r.took.count],
        )
        answers = [
            ({"method": r.method, "route": r.path, "class": f"{digit}xx"}, count)
            for r in used
            for digit, count in enumerate(r.answers)
            if digit and count
        ]
        out.add("http_responses_total", "counter", "Answers by route and class.", *answers)
        gone = sum(route.answers[0] for route in used)
        out.counter("http_requests_aborted_total", "Requests whose client left.", gone)
        out.gauge("http_requests_in_flight", "Requests being answered.", self.in_flight)

    # the rare cases

    def _name(
        self, request: web.Request, reply: web.StreamResponse, route: RouteMeter, name: RequestName
    ) -> None:
        if not reply.prepared:
            reply.headers[HEADER] = str(name)
        if reply.status >= 400:
            self._count(self._refused, f"{reply.status} {route.method} {route.path}")
            self._count(self._addresses, self._client(request))

    def _count(self, counter: Counter[str], key: str) -> None:
        if key in counter or len(counter) < _MOST_KEYS:
            counter[key] += 1
        else:
            counter["others"] += 1
        self._report_later()

    def _was_slow(self, route: RouteMeter, status: int, seconds: float, name: RequestName) -> None:
        self._slow += 1
        if self._slow <= _MOST_SLOW:
            _log.warning(
                "request_slow",
                method=route.method,
                route=route.path,
                status=status,
                seconds=round(seconds, 3),
                request_id=str(name),
            )
        self._report_later()

    def _report_later(self) -> None:
        if not self._report_due:
            self._report_due = True
            asyncio.get_running_loop().call_later(REPORT_SECONDS, self.report)

    def report(self) -> None:
        """Tell of what was refused and slow since the last time."""
        if self._refused:
            _log.info(
                "requests_refused",
                count=self._refused.total(),
                seconds=REPORT_SECONDS,
                by=dict(self._refused.most_common(_SHOWN)),
                addresses=dict(self._addresses.most_common(_SHOWN)),
            )
        if self._slow > _MOST_SLOW:
            _log.warning("requests_slow", count=self._slow, seconds=REPORT_SECONDS)
        self._refused.clear()
        self._addresses.clear()
        self._slow = 0
        self._report_due = False
