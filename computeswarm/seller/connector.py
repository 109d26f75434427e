"""The seller's line to the market: registration, heartbeats, and how its jobs stand.

The market is a shop window. Nothing here stops a job: when the market is down the seller goes on,
tries again with growing pauses, and says so to its owner.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable

from computeswarm.core.clock import Clock
from computeswarm.core.errors import (
    ComputeSwarmError,
    Conflict,
    NodeRevoked,
    NotFound,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from computeswarm.core.jobs import JobUpdate
from computeswarm.core.nodes import Heartbeat, HeartbeatReply
from computeswarm.core.signing import parse_json
from computeswarm.core.text import clean_line
from computeswarm.seller.market_calls import patience
from computeswarm.seller.market_session import MarketSession, Sign
from computeswarm.seller.notices import Notices
from computeswarm.seller.owner import MarketLink

_FIRST_PAUSE, _LAST_PAUSE = 0.5, 60.0
_JITTER = 0.1
_LEAVE_SECONDS = 3.0
_REVOKED_PAUSE = 900.0
"""After so long a revoked node asks whether that is still so."""
_TAKEN_FROM_US = 3
"""Sessions in a row that ended before their first heartbeat, until another seller is suspected."""
_REVOKED = (
    "This node was revoked by its owner, so the market lists it no more; start the seller again to"
    " list it anew."
)
_TWINS = (
    "Another seller with this wallet and this name seems to run, as the market ends our sessions;"
    " give one of them another node_name."
)


class MarketConnector:
    """Keeps one node listed.

    Args:
        enrol: signs a record and a session for the market.
        pulse: what the next heartbeat says.
    """

    def __init__(
        self,
        url: str,
        node_id: str,
        *,
        enrol: Sign,
        pulse: Callable[[], Heartbeat],
        clock: Clock,
        notices: Notices,
    ) -> None:
        self._session = MarketSession(url, node_id, enrol, clock)
        self._node_id = node_id
        self._pulse = pulse
        self._clock = clock
        self._notices = notices
        self._every = 30.0
        self._last_ok: float | None = None
        self._problem = ""
        self._stale = True
        self._enrol_at = 0.0
        self._unused = 0
        self._revoked = False
        self._wake = asyncio.Event()
        self._tried = asyncio.Event()
        self._updates: dict[str, JobUpdate] = {}
        self._updated = asyncio.Event()
        self._told = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def link(self) -> MarketLink:
        """How things stand."""
        return MarketLink(
            url=self._session.url,
            connected=self._session.live and not self._problem,
            last_ok=self._last_ok,
            problem=self._problem,
        )

    def start(self) -> None:
        """Begin to register, to beat and to report."""
        self._tasks = [
            asyncio.create_task(self._beat_loop(), name="market-heartbeat"),
            asyncio.create_task(self._report_loop(), name="market-reports"),
        ]

    async def first_try(self) -> None:
        """Wait until the market took the node, or was found not to."""
        await self._tried.wait()

    def refresh(self, *, record: bool = False) -> None:
        """Send a heartbeat now; with ``record`` register anew, since what we sell has changed."""
        self._stale |= record
        self._wake.set()

    async def settled(self) -> None:
        """Wait until the market has heard all there is to say."""
        while self._updates:
            self._told.clear()
            await self._told.wait()

    def report(self, job_id: str, update: JobUpdate) -> None:
        """Tell the market how a job stands; only the latest state of each is kept for it."""
        if self._revoked:
            return  # it takes no word of ours any more
        self._updates.pop(job_id, None)
        self._updates[job_id] = update
        self._updated.set()

    async def close(self, *, leave: bool = True) -> None:
        """Send what is left to say, take the node off the market, and stop; in a few seconds."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            if leave and self._session.live and not self._problem:
                async with asyncio.timeout(_LEAVE_SECONDS):
                    await self._send_reports()
                    await self._session.call("DELETE", f"/api/v1/nodes/{self._node_id}")
        except (ComputeSwarmError, TimeoutError) as error:
            self._notices.tell(f"The market was not told that we leave: {error}", "warning")
        finally:
            await self._session.close()

    async def _beat_loop(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            self._wake.clear()
            try:
                await self._turn()
            except NodeRevoked:
                self._give_up()
                await asyncio.sleep(_REVOKED_PAUSE)
            except (Unauthorized, NotFound) as error:
                if self._session.live:
                    self._lose()
                    continue
                pause = await self._trouble(error, pause)  # the registration itself is refused
            except ComputeSwarmError as error:
                pause = await self._trouble(error, pause)
            else:
                pause = _FIRST_PAUSE
                self._well()
                spread = self._every * random.uniform(1 - _JITTER, 1)  # noqa: S311 - spreads the load
                await self._rest(spread)

    async def _turn(self) -> None:
        """Register where that is due, beat otherwise."""
        if not self._session.live:
            await self._enrol()
            return
        due = self._stale or self._session.ageing
        if due and self._clock.monotonic() >= self._enrol_at:
            try:
                await self._enrol()
            except (Unavailable, TooManyRequests) as error:
                # a market without its database still takes heartbeats: stay listed meanwhile
                self._enrol_at = self._clock.monotonic() + max(self._every, patience(error))
                self._notices.tell(f"The market takes no new record yet: {error}", "warning")
            else:
                return
        await self._beat()

    async def _enrol(self) -> None:
        stale, self._stale = self._stale, False  # what changes meanwhile is for the next one
        try:
            session = self._session
            reply = await (session.ask_again() if self._revoked else session.begin())
        except BaseException as error:
            self._stale |= stale
            if isinstance(error, Conflict) and self._session.listed:
                self._notices.tell(_TWINS, "warning")
            raise
        self._every = float(reply.heartbeat_seconds)
        self._revoked = False
        if self._session.came_back:
            self._notices.tell("The node had been revoked; this start listed it anew.", "warning")
        self._notices.tell(f"Listed at the market {self._session.url}.", "good")

    async def _beat(self) -> None:
        body = self._pulse().model_dump_json().encode()
        path = f"/api/v1/nodes/{self._node_id}/heartbeat"
        reply = parse_json(HeartbeatReply, await self._session.call("POST", path, body))
        self._every = float(reply.heartbeat_seconds)
        self._unused = 0

    def _lose(self) -> None:
        """The market knows our session no more: begin another at once."""
        self._session.drop()
        self._unused += 1
        if self._unused == _TAKEN_FROM_US:
            self._notices.tell(_TWINS, "warning")

    def _give_up(self) -> None:
        if not self._revoked:
            self._notices.tell(f"{_REVOKED} Jobs that run go on.", "error")
        self._revoked = True
        self._session.drop()
        self._problem = _REVOKED
        self._updates.clear()
        self._told.set()
        self._tried.set()

    def _well(self) -> None:
        if self._problem:
            self._notices.tell("The market answers again.", "good")
        self._problem = ""
        self._last_ok = self._clock.now()
        self._tried.set()
        self._updated.set()

    async def _trouble(self, error: ComputeSwarmError, pause: float) -> float:
        """Say it, wait, and give the next pause. What the market asks for is waited in any case."""
        self._problem = clean_line(error.detail, limit=300)
        self._notices.tell(f"{self._problem} Jobs go on; trying again.", "warning")
        self._tried.set()
        await asyncio.sleep(patience(error))
        await self._rest(pause * random.uniform(0.5, 1))  # noqa: S311 - spreads the load
        return min(pause * 2, _LAST_PAUSE)

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _report_loop(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            await self._updated.wait()
            self._updated.clear()
            if not self._session.live:
                continue  # the next good registration sets the event again
            used = self._session.number
            try:
                await self._send_reports()
                pause = _FIRST_PAUSE
            except (Unauthorized, NodeRevoked):
                if used == self._session.number:
                    self._wake.set()  # a heartbeat finds out, and the next session tells
                else:
                    self._updated.set()
            except (Unavailable, TooManyRequests) as error:
                await asyncio.sleep(max(pause, patience(error)))
                pause = min(pause * 2, _LAST_PAUSE)
                self._updated.set()

    async def _send_reports(self) -> None:
        while self._updates:
            job_id, update = next(iter(self._updates.items()))
            body = update.model_dump_json(exclude_none=True).encode()
            try:
                await self._session.call("PATCH", f"/api/v1/jobs/{job_id}", body)
            except NotFound:
                pass  # the buyer did not tell the market of it, which is his choice
            except (Unauthorized, NodeRevoked, Unavailable, TooManyRequests):
                raise
            except ComputeSwarmError as error:
                self._notices.tell(f"The market did not take the state of {job_id}: {error}")
            if self._updates.get(job_id) is update:
                del self._updates[job_id]
                self._told.set()
