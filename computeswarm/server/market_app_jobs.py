"""Jobs' metadata over HTTP: submitted by buyers, updated by sellers."""

from __future__ import annotations

import re

from aiohttp import web

from computeswarm.core.errors import JobNotFound
from computeswarm.core.ids import JOB_ID_PATTERN
from computeswarm.core.jobs import JobUpdate, MarketJob
from computeswarm.core.signing import Signed
from computeswarm.market.market import Market
from computeswarm.server.logs import get_logger
from computeswarm.server.market_calls import AUTH, call_of
from computeswarm.server.openapi import Route
from computeswarm.server.web import json_reply, read_body, read_model

_JOB_ID = re.compile(JOB_ID_PATTERN)
_log = get_logger("market")


def job_routes(market: Market) -> list[Route]:
    handlers = _Handlers(market)
    job = "/api/v1/jobs/{job_id}"
    return [
        Route(
            "POST",
            "/api/v1/jobs/submit",
            handlers.submit,
            "Submit a job's signed metadata",
            body=Signed,
            replies={201: MarketJob, 200: MarketJob},
        ),
        Route("GET", job, handlers.job, "One job", replies={200: MarketJob}),
        Route(
            "PATCH",
            job,
            handlers.update,
            "How a job goes, by its seller",
            body=JobUpdate,
            replies={200: MarketJob},
            headers=AUTH,
        ),
    ]


class _Handlers:
    def __init__(self, market: Market) -> None:
        self._market = market

    async def submit(self, request: web.Request) -> web.StreamResponse:
        job, new = await self._market.submit(await read_model(request, Signed))
        if new:
            _log.info("job_submitted", job_id=job.job_id, node_id=job.node_id)
        return json_reply(job, status=201 if new else 200)

    async def job(self, request: web.Request) -> web.StreamResponse:
        return json_reply(await self._market.jobs.get(_job_id(request)))

    async def update(self, request: web.Request) -> web.StreamResponse:
        job_id = _job_id(request)
        job = await self._market.update_job(job_id, call_of(request, await read_body(request)))
        if job.state.terminal:
            _log.info("job_ended", job_id=job_id, state=str(job.state), metered_ms=job.metered_ms)
        return json_reply(job)


def _job_id(request: web.Request) -> str:
    job_id = request.match_info["job_id"]
    if not _JOB_ID.fullmatch(job_id):
        raise JobNotFound("That is no job's id; it looks like job- and 20 hex digits.")
    return job_id
