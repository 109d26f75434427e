"""One made-up seller: registers with real signatures, beats as told, works, leaves or crashes."""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import dataclass, field

from benchmarks.fleet.line import Line, Reply
from benchmarks.fleet.model import DAY, Fleet, Machine
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.jobs import JobUpdate
from computeswarm.core.market_auth import headers
from computeswarm.core.nodes import RECORD_KIND, HeartbeatReply, Registration
from computeswarm.core.sessions import enrol
from computeswarm.core.signing import Signed
from computeswarm.core.states import JobState

_HOUR = 3_600.0
_MEAN_JOB_SECONDS = 600.0
_OTHERS_JOBS_PER_HOUR = 2.0
"""Jobs whose buyers are not of this fleet: the market only sees that the node is busy."""
_FAILING = 0.03
_REFUNDED = 0.01


@dataclass(frozen=True, slots=True)
class Settings:
    """``speed``: habits of an hour take so many times less; heartbeats don't."""

    chain_id: int = 84532
    speed: float = 1.0
    sessions: bool = True
    """Whether nodes come and go; otherwise they register once and stay."""
    began: float = field(default_factory=time.time)

    def now(self) -> float:
        """The fleet's own time, in which prices drift; it began when the real one was ``began``."""
        return self.began + (time.time() - self.began) * self.speed


class Agent:
    """One node of the fleet.

    Args:
        up: the agents that are registered, by node id; it keeps its own place there.
    """

    def __init__(
        self,
        fleet: Fleet,
        machine: Machine,
        line: Line,
        settings: Settings,
        up: dict[str, Agent],
    ) -> None:
        self.node_id = ""
        self._fleet, self._machine, self._line, self._settings = fleet, machine, line, settings
        self._up = up
        self._key: PrivateKey = fleet.key(machine.owner)
        self._dice: random.Random = fleet.random("agent", machine.number)
        self._seq = int(time.time() * 1000)
        self._mac_key = b""
        self._counter = 0
        self._interval = 30.0
        self._running = 0
        self._queued = 0
        self._jobs: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._calling = asyncio.Lock()

    @property
    def idle(self) -> bool:
        """Whether a job would begin at once."""
        return not self._running

    async def live(self) -> None:
        """Session after session, until cancelled."""
        events = self._line.report.events
        while True:
            if not await self._register():
                events["refused for good"] += 1
                return
            events["sessions"] += 1
            ends = self._lasts(6.0) if self._settings.sessions else None
            try:
                async with asyncio.timeout(ends):
                    await self._beat()
            except TimeoutError:
                pass
            for job in self._jobs:
                job.cancel()
            self._running = self._queued = 0
            await self._go()

    def take(self, job_id: str, paid: int) -> None:
        """A buyer has told the market of a job for this node."""
        task = asyncio.create_task(self._work(job_id, paid))
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)

    # sessions

    async def _register(self) -> bool:
        async with self._calling:  # a call under the old session would be refused
            # one that was taken unheard is refused as known: once more, under a higher number
            return await self._enrol() or await self._enrol()

    async def _enrol(self) -> bool:
        fleet, machine = self._fleet, self._machine
        self._seq += 1
        record = fleet.record(machine, self._settings.now(), seq=self._seq)
        record = record.model_copy(update={"issued_at": int(time.time())})
        signed = Signed.make(self._key, RECORD_KIND, self._settings.chain_id, record)
        enrolment, pending = enrol(self._key, signed, self._line.url, time.time())
        body = enrolment.model_dump_json().encode()
        reply = await self._line.patient("register", "POST", "/api/v1/nodes/register", body)
        if not reply.good:
            return False
        made = Registration.model_validate_json(reply.body)
        self._mac_key = pending.mac_key(made.market_key)
        self._counter, self._interval = 0, float(made.heartbeat_seconds)
        self.node_id = record.node_id
        self._up[self.node_id] = self
        return True

    async def _beat(self) -> None:
        """Heartbeats at the told interval, and at once where the status changed."""
        path = f"/api/v1/nodes/{self.node_id}/heartbeat"
        price_until = asyncio.get_running_loop().time() + DAY / self._settings.speed
        others = asyncio.create_task(self._others_jobs())
        try:
            while True:
                reply = await self._call("heartbeat", "POST", path, self._pulse())
                if reply.good:
                    told = HeartbeatReply.model_validate_json(reply.body)
                    self._interval = float(told.heartbeat_seconds)
                elif reply.status in (401, 404) and not await self._register():
                    return  # the market forgot us, or a twin took over
                if asyncio.get_running_loop().time() >= price_until:
                    price_until += DAY / self._settings.speed
                    self._line.report.events["price changes"] += await self._register()
                self._changed.clear()
                try:
                    async with asyncio.timeout(reply.wait or self._interval):
                        await self._changed.wait()
                    await asyncio.sleep(min(0.5, self._interval / 4))  # changes come together
                except TimeoutError:
                    pass
        finally:
            others.cancel()

    async def _go(self) -> None:
        """End a session in one of three ways, and stay away for a while."""
        way = self._dice.random()
        self._up.pop(self.node_id, None)
        events = self._line.report.events
        if way < 0.55:
            events["left"] += 1
            await self._call("leave", "DELETE", f"/api/v1/nodes/{self.node_id}", b"")
            await asyncio.sleep(self._lasts(4.0))
        elif way < 0.8:
            events["restarted"] += 1  # without a word, and back within minutes
            await asyncio.sleep(self._lasts(0.03))
        else:
            events["crashed"] += 1
            await asyncio.sleep(self._lasts(4.0))

    # work

    async def _others_jobs(self) -> None:
        while True:
            await asyncio.sleep(self._lasts(1 / _OTHERS_JOBS_PER_HOUR))
            self._queued += self._running > 0
            self._running += 1
            self._changed.set()
            await asyncio.sleep(self._lasts(_MEAN_JOB_SECONDS / _HOUR))
            self._running = max(0, self._running - 1)
            self._queued = max(0, self._queued - 1)
            self._changed.set()

    async def _work(self, job_id: str, paid: int) -> None:
        """Take a job from its payment to its end."""
        events = self._line.report.events
        self._running += 1
        self._changed.set()
        try:
            if not await self._tell(job_id, state=JobState.RUNNING, paid=paid):
                return
            seconds = self._lasts(_MEAN_JOB_SECONDS / _HOUR)
            await asyncio.sleep(seconds)
            way = self._dice.random()
            good = way >= _FAILING
            await self._tell(
                job_id,
                state=JobState.SUCCEEDED if good else JobState.FAILED,
                exit_code=0 if good else None,
                metered_ms=int(seconds * self._settings.speed * 1000),
                paid=paid,
                refunded=paid if way < _REFUNDED else 0,
            )
            events["jobs done" if good else "jobs failed"] += 1
        finally:
            self._running = max(0, self._running - 1)
            self._changed.set()

    async def _tell(self, job_id: str, **members: object) -> bool:
        update = JobUpdate.model_validate(members)
        body = update.model_dump_json(exclude_none=True).encode()
        reply = await self._call("job update", "PATCH", f"/api/v1/jobs/{job_id}", body)
        return reply.good

    # inside

    def _pulse(self) -> bytes:
        status = "busy" if self._running else "idle"
        queued = min(self._queued, 1000)
        return json.dumps(
            {"status": status, "running": int(self._running > 0), "queued": queued}
        ).encode()

    async def _call(self, kind: str, method: str, path: str, body: bytes) -> Reply:
        async with self._calling:  # counters must arrive in order
            self._counter += 1
            made = headers(
                self.node_id,
                self._mac_key,
                method=method,
                path=path,
                counter=self._counter,
                body=body,
            )
            return await self._line.call(kind, method, path, body, made)

    def _lasts(self, hours: float) -> float:
        """Seconds of a habit that takes so many hours on average, in the fleet's faster time."""
        return self._dice.lognormvariate(-0.125, 0.5) * hours * _HOUR / self._settings.speed
