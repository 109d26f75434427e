"""The market over HTTP: a thin skin, one function a route."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from aiohttp import web
from pydantic import Field

import computeswarm
from computeswarm.core.errors import BadRequest, JobNotFound
from computeswarm.core.ids import JOB_ID_PATTERN
from computeswarm.core.jobs import JobUpdate, MarketJob
from computeswarm.core.market_auth import COUNTER_HEADER, MAC_HEADER, NODE_HEADER
from computeswarm.core.nodes import ComputeNode, Heartbeat, HeartbeatReply, Registration
from computeswarm.core.query import squeeze
from computeswarm.core.sessions import Enrolment
from computeswarm.core.signing import Document, Signed
from computeswarm.core.stats import MarketStats
from computeswarm.market.identity import Call
from computeswarm.market.manifest import MAX_PAGE as DISCOVERY_PAGE
from computeswarm.market.manifest import Wanted, manifest, resources
from computeswarm.market.market import Market
from computeswarm.market.search import MAX_PAGE
from computeswarm.market.stats import prometheus
from computeswarm.server.logs import get_logger
from computeswarm.server.openapi import Route, build_app
from computeswarm.server.web import (
    JSON_CONTENT_TYPE,
    bytes_reply,
    json_reply,
    read_body,
    read_model,
)

DEFAULT_PAGE = 50
_JOB_ID = re.compile(JOB_ID_PATTERN)
_NUMBER = re.compile(r"\$?[0-9]{1,12}(\.[0-9]{1,6})?\Z", re.ASCII)
_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_log = get_logger("market")
_AUTH = {
    NODE_HEADER: "the node's id",
    COUNTER_HEADER: "higher than in every call before under this session",
    MAC_HEADER: "HMAC-SHA256 in hex under the session's key: method, path, counter, body",
}
MAX_OFFSET = 10**8
_DISCOVERY = {
    "type": "http, or anything else for nothing",
    "payTo": "the wallet that is paid",
    "scheme": "exact",
    "network": "as in eip155:84532",
    "limit": f"at most so many (20; up to {DISCOVERY_PAGE})",
    "offset": "how many to leave out",
}
_SEARCH = {
    "q": "a query, such as gpu:4090 vram>=24 price<2",
    "sort": "price, cost, vram, gpus, cores, ram, rel, queue, name or region; - turns it round",
    "cursor": "`next` of the page before",
    "limit": f"nodes a page, 1 to {MAX_PAGE}",
    "gpu_type": "part of the GPU's name",
    "min_vram_gb": "least GiB of one GPU",
    "max_price": "most USDC per GPU and hour",
    "available": "true shows idle nodes only",
}


class NodeList(Document):
    """A page of nodes."""

    nodes: tuple[ComputeNode, ...]
    next: str | None = Field(description="cursor of the next page")
    total: int = Field(description="nodes that match, on all pages")


def build_market_app(market: Market) -> web.Application:
    """The market's application. Starting it starts the market, and cleaning it up closes it."""
    handlers = _Handlers(market)
    app = build_app(
        handlers.routes(),
        title="ComputeSwarm market",
        description="Finds compute nodes and keeps jobs' metadata. Never touches money or scripts.",
    )

    async def life(_: web.Application) -> AsyncIterator[None]:
        market.start()
        yield
        await market.close()

    app.cleanup_ctx.append(life)
    return app


def _call(request: web.Request, body: bytes) -> Call:
    headers = request.headers
    return Call(
        headers.get(NODE_HEADER, ""),
        headers.get(COUNTER_HEADER, ""),
        headers.get(MAC_HEADER, ""),
        request.method,
        request.path,
        body,
    )


class _Handlers:
    def __init__(self, market: Market) -> None:
        self._market = market

    def routes(self) -> list[Route]:
        """The route table; the busiest comes first, since routes are tried in order."""
        node, job = "/api/v1/nodes/{node_id}", "/api/v1/jobs/{job_id}"
        document = {200: JSON_CONTENT_TYPE}
        created = {201: MarketJob, 200: MarketJob}
        return [
            Route(
                "POST",
                f"{node}/heartbeat",
                self.heartbeat,
                "A sign of life",
                body=Heartbeat,
                replies={200: HeartbeatReply},
                headers=_AUTH,
            ),
            Route("GET", "/", self.root, "What this is", replies=dict(document)),
            Route("GET", "/health", self.health, "Whether it works", replies=dict(document)),
            Route("GET", "/x402.json", self.x402, "x402 manifest", replies=dict(document)),
            Route(
                "GET",
                "/discovery/resources",
                self.resources,
                "What x402 clients can buy, a page of it",
                replies=dict(document),
                query=_DISCOVERY,
            ),
            Route("GET", "/metrics", self.metrics, "Prometheus metrics", replies={200: _TEXT}),
            Route(
                "POST",
                "/api/v1/nodes/register",
                self.register,
                "Register a node: its record and a session, both signed by its wallet",
                body=Enrolment,
                replies={201: Registration},
            ),
            Route(
                "GET",
                "/api/v1/nodes",
                self.nodes,
                "Find nodes",
                replies={200: NodeList, 304: None},
                query=_SEARCH,
            ),
            Route("GET", node, self.node, "One node", replies={200: ComputeNode}),
            Route(
                "POST",
                f"{node}/revoke",
                self.revoke,
                "Revoke a node by its wallet's signature",
                body=Signed,
                replies={204: None},
            ),
            Route("DELETE", node, self.leave, "Leave", replies={204: None}, headers=_AUTH),
            Route(
                "POST",
                "/api/v1/jobs/submit",
                self.submit,
                "Submit a job's signed metadata",
                body=Signed,
                replies=dict(created),
            ),
            Route("GET", job, self.job, "One job", replies={200: MarketJob}),
            Route(
                "PATCH",
                job,
                self.update,
                "How a job goes, by its seller",
                body=JobUpdate,
                replies={200: MarketJob},
                headers=_AUTH,
            ),
            Route("GET", "/api/v1/stats", self.stats, "Statistics", replies={200: MarketStats}),
        ]

    async def root(self, _: web.Request) -> web.StreamResponse:
        chain = self._market.chain
        return json_reply(
            {
                "name": "ComputeSwarm market",
                "version": computeswarm.__version__,
                "chain_id": chain.chain_id,
                "openapi": "/openapi.json",
                "nodes": "/api/v1/nodes",
                "x402": "/x402.json",
            }
        )

    async def health(self, _: web.Request) -> web.StreamResponse:
        return json_reply({"status": "ok", "version": computeswarm.__version__})

    async def x402(self, _: web.Request) -> web.StreamResponse:
        market = self._market
        document = manifest(market.live_nodes(), market.chain, market.clock.now())
        return json_reply(document, headers={"Cache-Control": "public, max-age=30"})

    async def resources(self, request: web.Request) -> web.StreamResponse:
        market, given = self._market, request.query
        wanted = Wanted(
            *(given.get(name, "")[:100] for name in ("type", "payTo", "scheme", "network"))
        )
        document = resources(
            market.live_nodes(),
            market.chain,
            market.clock.now(),
            wanted,
            limit=_count(given.get("limit", "20"), 1, DISCOVERY_PAGE, "limit"),
            offset=_count(given.get("offset", "0"), 0, MAX_OFFSET, "offset"),
        )
        return json_reply(document, headers={"Cache-Control": "public, max-age=30"})

    async def metrics(self, _: web.Request) -> web.StreamResponse:
        market = self._market
        text = prometheus(
            market.stats(), heartbeats=market.heartbeats, refused=market.refused_calls
        )
        return bytes_reply(text.encode(), content_type=_TEXT)

    async def register(self, request: web.Request) -> web.StreamResponse:
        registration = await self._market.register(await read_model(request, Enrolment))
        _log.info("node_registered", node_id=registration.node.node_id)
        return json_reply(registration, status=201, headers={"Cache-Control": "no-store"})

    async def nodes(self, request: web.Request) -> web.StreamResponse:
        key = request.rel_url.raw_query_string
        page = self._market.cached_page(key)
        if page is None:
            given = request.query
            page = self._market.page(
                key,
                _words(request),
                sort=given.get("sort", ""),
                cursor=given.get("cursor", ""),
                limit=_limit(given.get("limit", "")),
            )
        headers = {"ETag": page.etag, "Cache-Control": "public, max-age=1"}
        if page.etag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        return bytes_reply(page.body, headers=headers)

    async def node(self, request: web.Request) -> web.StreamResponse:
        return json_reply(self._market.node(request.match_info["node_id"]))

    async def heartbeat(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request)
        return bytes_reply(
            self._market.heartbeat(request.match_info["node_id"], _call(request, body))
        )

    async def leave(self, request: web.Request) -> web.StreamResponse:
        node_id = request.match_info["node_id"]
        await self._market.unregister(node_id, _call(request, await read_body(request)))
        _log.info("node_left", node_id=node_id)
        return web.Response(status=204)

    async def revoke(self, request: web.Request) -> web.StreamResponse:
        node_id = request.match_info["node_id"]
        await self._market.revoke(node_id, await read_model(request, Signed))
        _log.info("node_revoked", node_id=node_id)
        return web.Response(status=204)

    async def submit(self, request: web.Request) -> web.StreamResponse:
        job, new = await self._market.submit(await read_model(request, Signed))
        if new:
            _log.info("job_submitted", job_id=job.job_id, node_id=job.node_id)
        return json_reply(job, status=201 if new else 200)

    async def job(self, request: web.Request) -> web.StreamResponse:
        return json_reply(self._market.jobs.get(_job_id(request)))

    async def update(self, request: web.Request) -> web.StreamResponse:
        job_id = _job_id(request)
        job = await self._market.update_job(job_id, _call(request, await read_body(request)))
        if job.state.terminal:
            _log.info("job_ended", job_id=job_id, state=str(job.state), metered_ms=job.metered_ms)
        return json_reply(job)

    async def stats(self, _: web.Request) -> web.StreamResponse:
        return json_reply(self._market.stats(), headers={"Cache-Control": "public, max-age=1"})


def _job_id(request: web.Request) -> str:
    job_id = request.match_info["job_id"]
    if not _JOB_ID.fullmatch(job_id):
        raise JobNotFound("That is no job's id; it looks like job- and 20 hex digits.")
    return job_id


def _words(request: web.Request) -> str:
    """The query, with the original protocol's plain parameters as further words behind it."""
    given = request.query
    words = [given.get("q", "")]
    if gpu := squeeze(given.get("gpu_type", "")):
        words.append(f"gpu:{gpu}")
    for name, prefix in (("min_vram_gb", "vram>="), ("max_price", "price<=")):
        if name in given:
            if not _NUMBER.match(given[name]):
                raise BadRequest(f"{name} is a number such as 24.")
            words.append(prefix + given[name])
    if given.get("available", "").lower() in ("1", "true", "yes"):
        words.append("available")
    return " ".join(words)


def _limit(text: str) -> int:
    if not text:
        return DEFAULT_PAGE
    if not re.fullmatch(r"[0-9]{1,6}", text, re.ASCII):
        raise BadRequest(f"limit is a number from 1 to {MAX_PAGE}.")
    return int(text)


def _count(text: str, least: int, most: int, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise BadRequest(f"{name} is a whole number from {least} to {most}.")
    return int(text)
