"""A seller that speaks the contract without chain or sandbox, and misbehaves on demand."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from computeswarm.buyer.client import Buyer
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.events import EndEvent, OutputEvent, StateEvent, encode_output
from computeswarm.core.jobs import (
    ExecuteReply,
    ExecuteRequest,
    JobView,
    OutputFile,
    OutputList,
    Payment,
    Phases,
    QuoteRequest,
)
from computeswarm.core.nodes import (
    RECORD_KIND,
    ComputeNode,
    Hardware,
    Isolation,
    NodeRecord,
    NodeStatus,
)
from computeswarm.core.quotes import QUOTE_KIND, Quote
from computeswarm.core.sealing import public_key
from computeswarm.core.settings import Paths, Settings
from computeswarm.core.signing import Signed
from computeswarm.core.states import JobState
from computeswarm.payments.present import read_payment
from computeswarm.payments.terms import Terms, payment_required, response_headers

CHAIN = BASE_SEPOLIA


@dataclass
class FakeJob:
    """A job at the fake seller; a test writes its events."""

    view: JobView
    request: ExecuteRequest
    uploads: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, bytearray] = field(default_factory=dict)
    outputs: dict[str, bytes] = field(default_factory=dict)
    events: list[Any] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    started: float = field(default_factory=time.monotonic)

    def emit(self, event: type, **members: Any) -> None:
        seq = len(self.events) + 1
        self.events.append(event(seq=seq, at=int(time.time() * 1000), **members))
        self.changed.set()

    def say(self, data: bytes, stream: str = "stdout") -> None:
        text, encoding = encode_output(data)
        self.emit(OutputEvent, stream=stream, data=text, encoding=encoding)

    def state(self, state: JobState, reason: str = "") -> None:
        self.view = self.view.model_copy(update={"state": state})
        self.emit(StateEvent, state=state, reason=reason)

    def end(self, state: JobState = JobState.SUCCEEDED, exit_code: int | None = 0) -> None:
        update = {"state": state, "exit_code": exit_code, "next_payment_due_ms": None}
        self.view = self.view.model_copy(update=update)
        self.emit(EndEvent, job=self.view)


class FakeSeller:
    """Faults are counted down by ``faults[name]``; ``terms`` overrides what a 402 asks for."""

    def __init__(self, *, price: int = 3_600_000, slice_seconds: int = 60) -> None:
        self.key = PrivateKey.generate()
        self.price = price
        self.slice_seconds = slice_seconds
        self.jobs: dict[str, FakeJob] = {}
        self.paid: list[tuple[int, int, str]] = []
        """(slice, atoms, nonce), once for each settled authorization."""
        self.presented: Counter[str] = Counter()
        self.replies: dict[str, bytes] = {}
        self.faults: Counter[str] = Counter()
        self.terms: dict[str, Any] = {}
        self.quote_changes: dict[str, Any] = {}
        self.quote_key = self.key
        self.runs: Any = lambda job: None
        self.forged_path = ""
        self.break_at = 0
        """Bytes of a file after which the line breaks, once, on its way up or down."""
        self.asked: list[tuple[str, str]] = []
        """Method and range of each transfer."""
        self.payment = asyncio.Event()
        self.url = ""
        self.network = False

    async def settled(self, count: int) -> None:
        """Until so many slices are paid."""
        async with asyncio.timeout(30):
            while len(self.paid) < count:
                self.payment.clear()
                await self.payment.wait()

    def hit(self, fault: str) -> bool:
        if self.faults[fault] <= 0:
            return False
        self.faults[fault] -= 1
        return True

    @property
    def record(self) -> NodeRecord:
        return NodeRecord(
            wallet=self.key.address,
            name="fake",
            endpoint=self.url,
            hardware=Hardware(cpu_model="Fake", cpu_cores=2, memory_bytes=2**32),
            isolation=Isolation.NAMESPACE,
            price_per_hour=self.price,
            slice_seconds=self.slice_seconds,
            max_job_seconds=86400,
            images=("python",),
            network=self.network,
            secrets_key=public_key(self.key),
            seq=1,
            issued_at=int(time.time()),
        )

    @property
    def node(self) -> ComputeNode:
        signed = Signed.make(self.key, RECORD_KIND, CHAIN.chain_id, self.record)
        now = int(time.time())
        return ComputeNode(
            node_id=self.record.node_id,
            status=NodeStatus.IDLE,
            record=signed,
            registered_at=now,
            last_seen=now,
        )

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_post("/quotes", self._quote)
        app.router.add_post("/execute", self._execute)
        app.router.add_get("/jobs/{id}", self._view)
        app.router.add_post("/jobs/{id}/payments", self._payment)
        app.router.add_get("/jobs/{id}/inputs/{sha}", self._input)
        app.router.add_put("/jobs/{id}/inputs/{sha}", self._upload)
        app.router.add_get("/jobs/{id}/events", self._events)
        app.router.add_get("/jobs/{id}/stream", self._stream)
        app.router.add_post("/jobs/{id}/cancel", self._cancel)
        app.router.add_get("/jobs/{id}/outputs", self._outputs)
        app.router.add_get("/jobs/{id}/outputs/{path:.+}", self._output)
        return app

    async def _quote(self, request: web.Request) -> web.Response:
        spec = QuoteRequest.model_validate_json(await request.read()).spec
        now = int(time.time())
        quote = Quote(
            quote_id="qt-" + "0" * 20,
            node_id=self.record.node_id,
            seller=self.key.address,
            spec_hash=spec.digest(),
            chain_id=CHAIN.chain_id,
            asset=CHAIN.usdc.address,
            pay_to=self.key.address,
            price_per_hour=self.price,
            slice_seconds=self.slice_seconds,
            max_seconds=spec.max_seconds,
            issued_at=now,
            expires_at=now + 300,
        ).model_copy(update=self.quote_changes)
        signed = Signed.make(self.quote_key, QUOTE_KIND, CHAIN.chain_id, quote)
        return _json(signed.model_dump(mode="json"))

    def _settle(self, request: web.Request, index: int, amount: int) -> web.Response | str:
        values = {
            "chain": CHAIN,
            "pay_to": self.key.address,
            "amount": amount,
            "resource_url": self.url + request.path,
            "max_timeout_seconds": 60,
        }
        terms = Terms(**{**values, **self.terms})
        presented = read_payment(request.headers, terms)
        if presented is None:
            headers, body = payment_required(terms, error="Pay first.")
            return _json(body, 402, headers)
        nonce = presented.authorization.nonce
        self.presented[nonce] += 1
        if self.hit("busy"):
            return _problem(503, "payment_pending")
        if self.hit("refuse"):
            headers, body = payment_required(
                terms, error="Too little.", reason="insufficient_funds"
            )
            return _json(body, 402, headers)
        if nonce not in [paid[2] for paid in self.paid]:
            self.paid.append((index, amount, nonce))
            self.payment.set()
        return nonce

    async def _execute(self, request: web.Request) -> web.StreamResponse:
        data = await request.read()
        asked = ExecuteRequest.model_validate_json(data)
        assert asked.job_id and asked.quote
        quote = Quote.model_validate(asked.quote.document)
        nonce = self._settle(request, 0, quote.slice_amount(0))
        if isinstance(nonce, web.Response):
            return nonce
        if nonce not in self.replies:
            missing = tuple(f.sha256 for f in asked.spec.inputs if f.content is None)
            view = JobView(
                job_id=asked.job_id,
                node_id=self.record.node_id,
                state=JobState.QUEUED,
                buyer=self.key.address,
                price_per_hour=quote.price_per_hour,
                slice_seconds=quote.slice_seconds,
                max_seconds=quote.max_seconds,
                missing_inputs=missing,
                paid=quote.slice_amount(0),
                slices_paid=1,
                payments=(
                    Payment(
                        slice=0,
                        amount=quote.slice_amount(0),
                        transaction="0x" + "1" * 64,
                        payer=self.key.address,
                    ),
                ),
                next_payment_due_ms=quote.slice_seconds * 1000,
                phases=Phases(created=1000, queued=1000),
            )
            job = self.jobs[asked.job_id] = FakeJob(view, asked)
            job.emit(StateEvent, state=JobState.QUEUED)
            reply = ExecuteReply(job=view, access_key=asked.access_key)
            self.replies[nonce] = reply.model_dump_json().encode()
            if not missing:
                self.runs(job)
        if self.hit("lose_reply"):
            return _drop(request)
        headers = response_headers(CHAIN, success=True, transaction="0x" + "1" * 64)
        return web.Response(
            body=self.replies[nonce], status=202, headers=headers, content_type="application/json"
        )

    def _job(self, request: web.Request) -> FakeJob:
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            raise web.HTTPNotFound
        if request.headers.get("Authorization") != f"Bearer {job.request.access_key}":
            raise web.HTTPUnauthorized
        return job

    def meter(self, job: FakeJob) -> JobView:
        if not job.view.state.terminal:
            spent = (time.monotonic() - job.started) * 1000
            due = max(0, int(job.view.slices_paid * self.slice_seconds * 1000 - spent))
            job.view = job.view.model_copy(update={"next_payment_due_ms": due})
        return job.view

    async def _view(self, request: web.Request) -> web.StreamResponse:
        job = self._job(request)
        if self.hit("drop"):
            return _drop(request)
        return _json(self.meter(job).model_dump(mode="json"))

    async def _payment(self, request: web.Request) -> web.StreamResponse:
        job = self._job(request)
        index = json.loads(await request.read())["slice"]
        assert job.request.quote
        quote = Quote.model_validate(job.request.quote.document)
        nonce = self._settle(request, index, quote.slice_amount(index))
        if isinstance(nonce, web.Response):
            return nonce
        paid = {n: (i, a) for i, a, n in self.paid}
        view = job.view
        if view.slices_paid == index:
            update = {"slices_paid": index + 1, "paid": sum(a for _, a in paid.values())}
            job.view = view.model_copy(update=update)
        if self.hit("lose_reply"):
            return _drop(request)
        return _json(self.meter(job).model_dump(mode="json"))

    async def _input(self, request: web.Request) -> web.Response:
        job, sha = self._job(request), request.match_info["sha"]
        size = next(f.size for f in job.request.spec.inputs if f.sha256 == sha)
        received = size if sha in job.uploads else len(job.parts.get(sha, b""))
        return _json({"sha256": sha, "size": size, "received": received})

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        job = self._job(request)
        sha = request.match_info["sha"]
        if self.hit("drop"):
            return _drop(request)
        part = job.parts.setdefault(sha, bytearray())
        ranged = re.match(r"bytes (\d+)-", request.headers.get("Content-Range", "bytes 0-"))
        assert ranged is not None and int(ranged[1]) in (0, len(part))
        del part[int(ranged[1]) :]
        self.asked.append(("PUT", request.headers.get("Content-Range", "")))
        while chunk := await request.content.readany():
            part += chunk
            if self.break_at and len(part) >= self.break_at:
                self.break_at = 0
                return _drop(request)
        data = bytes(job.parts.pop(sha))
        if hashlib.sha256(data).hexdigest() != sha:
            return _problem(400, "bad_request")
        job.uploads[sha] = data
        missing = tuple(s for s in job.view.missing_inputs if s not in job.uploads)
        job.view = job.view.model_copy(update={"missing_inputs": missing})
        if not missing:
            self.runs(job)
        return web.Response(status=204)

    async def _events(self, request: web.Request) -> web.Response:
        job = self._job(request)
        since = int(request.query.get("since", "0"))
        events = [e.model_dump(mode="json") for e in job.events if e.seq > since]
        return _json({"events": events, "last_seq": len(job.events)})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        job = self._job(request)
        if self.hit("no_stream"):
            raise web.HTTPForbidden
        if self.hit("drop"):
            return _drop(request)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        sent = int(request.query["since"])
        if self.hit("repeat"):
            sent = 0
        while True:
            job.changed.clear()
            for event in job.events[sent:]:
                await socket.send_str(json.dumps([event.model_dump(mode="json")]))
                sent = event.seq
                if self.hit("break_stream"):
                    await socket.close()
                    return socket
                if isinstance(event, EndEvent):
                    await socket.close()
                    return socket
            await job.changed.wait()

    async def _cancel(self, request: web.Request) -> web.Response:
        job = self._job(request)
        if not self.hit("ignore_cancel") and not job.view.state.terminal:
            job.end(JobState.CANCELLED, None)
        return _json(job.view.model_dump(mode="json"))

    async def _outputs(self, request: web.Request) -> web.Response:
        job = self._job(request)
        if self.hit("gone_outputs"):
            return _problem(410, "gone")
        files = tuple(
            OutputFile(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())
            for path, data in job.outputs.items()
        )
        listed = OutputList(job_id=job.view.job_id, files=files).model_dump(mode="json")
        if self.forged_path:
            listed["files"][0]["path"] = self.forged_path
        return _json(listed)

    async def _output(self, request: web.Request) -> web.StreamResponse:
        data = self._job(request).outputs[request.match_info["path"]]
        tag = f'"{hashlib.sha256(data).hexdigest()}"'
        ranged, condition = request.headers.get("Range", ""), request.headers.get("If-Range", "")
        self.asked.append(("GET", ranged))
        start = request.http_range.start or 0 if condition in ("", tag) else 0
        body = data[::-1] if self.hit("corrupt") else data[start:]
        headers = {"ETag": tag}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if self.break_at:
            broken = web.StreamResponse(status=206 if start else 200, headers=headers)
            broken.content_length = len(body)
            await broken.prepare(request)
            await broken.write(body[: self.break_at])
            self.break_at = 0
            return _drop(request)
        return web.Response(status=206 if start else 200, body=body, headers=headers)


def _drop(request: web.Request) -> web.Response:
    """No answer at all."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def _json(value: Any, status: int = 200, headers: Any = None) -> web.Response:
    return web.json_response(value, status=status, headers=headers)


def _problem(status: int, code: str) -> web.Response:
    document = {"code": code, "status": status, "detail": "\x1b[31mNo\x1b[0m."}
    return web.json_response(document, status=status, content_type="application/problem+json")


@asynccontextmanager
async def serving(seller: FakeSeller) -> AsyncIterator[FakeSeller]:
    """The fake on a port of its own."""
    runner = web.AppRunner(seller.app(), handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    seller.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield seller
    finally:
        await runner.cleanup()


def make_buyer(home: Path, key: PrivateKey | None, **settings: Any) -> Buyer:
    """A buyer whose market is down unless a test says otherwise."""
    options = {k: settings.pop(k) for k in ("lost_seconds", "present_seconds") if k in settings}
    paths = Paths(config=home, state=home, cache=home / "cache")
    values = Settings(**{"market": "http://127.0.0.1:9", **settings})
    return Buyer(values, paths, key, **options)
