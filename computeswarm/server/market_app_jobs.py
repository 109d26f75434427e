"""Jobs' metadata over HTTP: submitted by buyers, updated by sellers, read back by either."""

from __future__ import annotations

import re

from aiohttp import web

from computeswarm.core.crypto import is_address
from computeswarm.core.errors import (
    BadRequest,
    Conflict,
    InvalidTransition,
    JobNotFound,
    NodeNotFound,
    NodeRevoked,
    Unauthorized,
    Unprocessable,
)
from computeswarm.core.ids import JOB_ID_PATTERN
from computeswarm.core.jobs import JobPage, JobUpdate, MarketJob
from computeswarm.core.sessions import PERMIT_HEADER
from computeswarm.core.signing import Signed
from computeswarm.market.identity import check_permit
from computeswarm.market.jobs import MAX_HISTORY
from computeswarm.market.market import Market
from computeswarm.server.logs import get_logger
from computeswarm.server.market_calls import call_of
from computeswarm.server.openapi import CALL
from computeswarm.server.routes import Parameter, Route, read_whole, whole
from computeswarm.server.web import json_reply, read_body, read_model

_JOB_ID = re.compile(JOB_ID_PATTERN)
_PRIVATE = {"Cache-Control": "private, no-store"}
_log = get_logger("market")
_ID = {"job_id": Parameter("The job's id.", {"type": "string", "pattern": f"^{JOB_ID_PATTERN}$"})}
_LIMIT = whole("Jobs a page.", 1, MAX_HISTORY, default=50)
_HISTORY: dict[str, str | Parameter] = {
    "wallet": Parameter(
        "Whose jobs, bought and sold.",
        {"type": "string", "pattern": "^0x[0-9a-fA-F]{40}$"},
        required=True,
    ),
    "cursor": "`next` of the page before",
    "limit": _LIMIT,
}


def job_routes(market: Market) -> list[Route]:
    """Of one job whoever knows its id, which can't be guessed; of all of a wallet's its owner."""
    handlers = _Handlers(market)
    job = "/api/v1/jobs/{job_id:(?!submit$)[^/]+}"
    return [
        Route(
            "POST",
            "/api/v1/jobs/submit",
            handlers.submit,
            "Submit a job's signed metadata",
            body=Signed,
            replies={201: MarketJob, 200: MarketJob},
            limit="submit",
            errors=(Unauthorized, NodeNotFound, Conflict, Unprocessable),
        ),
        Route(
            "GET",
            "/api/v1/jobs",
            handlers.history,
            "A wallet's jobs, newest first",
            replies={200: JobPage},
            query=_HISTORY,
            limit="read",
            security=("permit",),
            errors=(Unprocessable,),
        ),
        Route(
            "GET",
            job,
            handlers.job,
            "One job",
            replies={200: MarketJob},
            path_parameters=_ID,
            limit="read",
            errors=(JobNotFound,),
        ),
        Route(
            "PATCH",
            job,
            handlers.update,
            "How a job goes, by its seller",
            body=JobUpdate,
            replies={200: MarketJob},
            path_parameters=_ID,
            limit="auth",
            security=CALL,
            errors=(JobNotFound, NodeNotFound, NodeRevoked, InvalidTransition),
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

    async def history(self, request: web.Request) -> web.StreamResponse:
        market, given = self._market, request.query
        wallet = given.get("wallet", "")
        if not is_address(wallet):
            raise BadRequest("wallet is an address, 0x and 40 hex digits.")
        permit = check_permit(
            request.headers.get(PERMIT_HEADER, ""),
            wallet,
            chain=market.chain,
            names=market.names,
            now=market.clock.now(),
        )
        page = await market.jobs.of_wallet(
            permit.wallet,
            cursor=given.get("cursor", ""),
            limit=read_whole(given, "limit", _LIMIT),
        )
        return json_reply(page, headers=_PRIVATE)

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
