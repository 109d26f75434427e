"""A market over real HTTP, sellers that sign, and a clock that a test moves."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from node_records import START, node_record

from computeswarm.core.clock import Clock
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.ids import new_job_id
from computeswarm.core.jobs import SUBMISSION_KIND, JobSubmission
from computeswarm.core.market_auth import headers
from computeswarm.core.nodes import RECORD_KIND, GPUInfo, NodeRecord, Registration
from computeswarm.core.sessions import (
    REVOCATION_KIND,
    Enrolment,
    NodeRevocation,
    PendingSession,
    enrol,
)
from computeswarm.core.signing import Signed
from computeswarm.market import Market, open_market
from computeswarm.server.market_app import build_market_app
from computeswarm.server.serving import Server

CHAIN_ID = 84532


@dataclass
class FakeClock:
    """Stands still until told otherwise."""

    time: float = START

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


@dataclass
class Reply:
    """A response, read whole."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class MarketClient:
    """Calls one market at ``url``."""

    session: aiohttp.ClientSession
    url: str

    async def call(self, method: str, path: str, **options: Any) -> Reply:
        if "data" in options:
            options["headers"] = {"Content-Type": "application/json"} | options.get("headers", {})
        async with self.session.request(method, self.url + path, **options) as response:
            return Reply(response.status, response.headers, await response.read())

    async def get(self, path: str, **options: Any) -> Reply:
        return await self.call("GET", path, **options)

    async def ids(self, query: str = "") -> list[str]:
        reply = await self.get("/api/v1/nodes", params={"q": query})
        assert reply.status == 200, reply.body
        return [node["node_id"] for node in reply.json["nodes"]]


@dataclass
class Seller:
    """A wallet with one node; keeps its session as a real seller does."""

    client: MarketClient
    name: str = "rig"
    key: PrivateKey = field(default_factory=PrivateKey.generate)
    issued_at: int = START
    changes: dict[str, Any] = field(default_factory=dict)
    seq: Any = field(default_factory=lambda: itertools.count(1))
    counter: Any = field(default_factory=lambda: itertools.count(1))
    session_key: bytes = b""
    pending: dict[int, PendingSession] = field(default_factory=dict)
    """Sessions that were signed, by ``seq``."""

    def record(self, **changes: Any) -> NodeRecord:
        gpu = GPUInfo(vendor="nvidia", model="RTX 4090", memory_bytes=24 * 2**30)
        given = {"gpus": (gpu,), "seq": next(self.seq), "issued_at": self.issued_at}
        given |= {"wallet": self.key.address, "name": self.name}
        return node_record(**given | self.changes | changes)

    @property
    def node_id(self) -> str:
        return self.record(seq=0).node_id

    def signed(self, **changes: Any) -> Signed:
        return Signed.make(self.key, RECORD_KIND, CHAIN_ID, self.record(**changes))

    def enrolment(self, record: Signed | None = None, **changes: Any) -> Enrolment:
        record = record or self.signed(**changes)
        made, pending = enrol(self.key, record, self.client.url or "http://x", self.issued_at)
        self.pending[pending.session.seq] = pending
        return made

    async def register(self, enrolment: Enrolment | None = None, **changes: Any) -> Reply:
        enrolment = enrolment or self.enrolment(**changes)
        body = enrolment.model_dump_json()
        reply = await self.client.call("POST", "/api/v1/nodes/register", data=body)
        if reply.status == 201:
            registration = Registration.model_validate_json(reply.body)
            pending = self.pending[enrolment.record.document["seq"]]
            self.session_key = pending.mac_key(registration.market_key)
            self.counter = itertools.count(1)
        return reply

    async def revoke(self, key: PrivateKey | None = None, **changes: Any) -> Reply:
        key = key or self.key
        values = {
            "wallet": key.address,
            "node_id": self.node_id,
            "seq": next(self.seq),
            "issued_at": self.issued_at,
        } | changes
        document = NodeRevocation.model_validate(values)
        body = Signed.make(key, REVOCATION_KIND, CHAIN_ID, document).model_dump_json()
        return await self.client.call("POST", f"/api/v1/nodes/{self.node_id}/revoke", data=body)

    def auth(self, method: str, path: str, body: bytes, **changes: Any) -> dict[str, str]:
        counter = changes.pop("counter", None) or next(self.counter)
        return headers(
            changes.pop("node", self.node_id),
            changes.pop("session_key", self.session_key),
            method=method,
            path=path,
            counter=counter,
            body=body,
        )

    async def call(self, method: str, path: str, body: bytes, **changes: Any) -> Reply:
        made = self.auth(method, path, body, **changes)
        return await self.client.call(method, path, data=body, headers=made)

    async def beat(self, status: str = "idle", **changes: Any) -> Reply:
        body = json.dumps({"status": status, "running": int(status == "busy")}).encode()
        return await self.call("POST", f"/api/v1/nodes/{self.node_id}/heartbeat", body, **changes)

    async def leave(self) -> Reply:
        return await self.call("DELETE", f"/api/v1/nodes/{self.node_id}", b"")

    async def patch(self, job_id: str, state: str, **members: Any) -> Reply:
        body = json.dumps({"state": state, **members}).encode()
        return await self.call("PATCH", f"/api/v1/jobs/{job_id}", body)


def submission(node_id: str, buyer: PrivateKey, **changes: Any) -> Signed:
    """A job's metadata, signed by its buyer."""
    values = {
        "job_id": new_job_id(),
        "node_id": node_id,
        "buyer": buyer.address,
        "spec_hash": "0x" + "ab" * 32,
        "price_per_hour": 360_000,
        "max_seconds": 600,
        "issued_at": START,
    }
    document = JobSubmission.model_validate(values | changes)
    return Signed.make(buyer, SUBMISSION_KIND, CHAIN_ID, document)


@asynccontextmanager
async def serving(market: Market) -> AsyncIterator[MarketClient]:
    """A client of a market that is started over HTTP, and closed at the end."""
    async with (
        Server(build_market_app(market)) as server,
        aiohttp.ClientSession() as session,
    ):
        yield MarketClient(session, await server.start("127.0.0.1", 0))


@asynccontextmanager
async def running_market(
    path: Path | str, clock: Clock, *, names: Set[str] = frozenset()
) -> AsyncIterator[MarketClient]:
    """A market on a free port; leaving stops it as a restart would."""
    async with serving(open_market(path, clock=clock, names=names)) as client:
        yield client
