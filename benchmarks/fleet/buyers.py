"""Made-up buyers: they search as people and programs do, and now and then buy."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.fleet.agent import Agent, Settings
from benchmarks.fleet.line import Line
from benchmarks.fleet.model import Fleet
from computeswarm.core.ids import JobId
from computeswarm.core.jobs import SUBMISSION_KIND, JobSubmission
from computeswarm.core.signing import Signed

QUERIES: Sequence[tuple[str, str]] = (
    ("gpu:4090", "price"),
    ("gpu:4090|3090 idle", "price"),
    ("vram>=24 price<1", "price"),
    ("vram>=80 isolation>=container", "cost"),
    ("gpu:h100 region:us", "price"),
    ("region:eu online", "-rel"),
    ("", "price"),
    ("cpu cores>=16", "price"),
    ("a100 rel>=0.95", "cost"),
    ("rtx idle price<0.5", "-vram"),
)
_BUYING = 0.2
"""Of the searches."""


class Buyer:
    """One buyer; ``agents`` by node id are the sellers that he can really buy from."""

    def __init__(
        self,
        fleet: Fleet,
        number: int,
        line: Line,
        settings: Settings,
        agents: Mapping[str, Agent],
        *,
        pause: float,
    ) -> None:
        self._line, self._settings, self._agents, self._pause = line, settings, agents, pause
        self._dice: random.Random = fleet.random("buyer", number)
        self._key = fleet.key(-1 - number)

    async def live(self) -> None:
        """Search, page on, buy; until cancelled."""
        while True:
            await asyncio.sleep(self._dice.expovariate(1 / self._pause))
            query, sort = self._dice.choice(QUERIES)
            listed = await self._search(query, sort)
            if self._dice.random() < _BUYING:
                known = [node for node in listed if node["node_id"] in self._agents]
                if known:
                    await self._buy(self._dice.choice(known))

    async def _search(self, query: str, sort: str) -> list[dict[str, Any]]:
        params = {"q": query, "sort": sort, "limit": "50"}
        listed: list[dict[str, Any]] = []
        for _ in range(1 + (self._dice.random() < 0.2)):  # some look at a second page
            reply = await self._line.call("search", "GET", "/api/v1/nodes", params=params)
            if not reply.good:
                await asyncio.sleep(reply.wait)
                break
            page = json.loads(reply.body)
            listed += page["nodes"]
            if not page["next"]:
                break
            params["cursor"] = page["next"]
        return listed

    async def _buy(self, node: dict[str, Any]) -> None:
        agent = self._agents.get(node["node_id"])
        if agent is None or not agent.idle:
            return
        price = int(node["record"]["document"]["price_per_hour"])
        job = JobSubmission(
            job_id=JobId(f"job-{self._dice.getrandbits(80):020x}"),
            node_id=node["node_id"],
            buyer=self._key.address,
            spec_hash=f"0x{self._dice.getrandbits(256):064x}",
            price_per_hour=price,
            max_seconds=3_600,
            issued_at=int(time.time()),
        )
        signed = Signed.make(self._key, SUBMISSION_KIND, self._settings.chain_id, job)
        body = signed.model_dump_json().encode()
        reply = await self._line.patient("submit", "POST", "/api/v1/jobs/submit", body)
        if reply.good:
            self._line.report.events["jobs submitted"] += 1
            agent.take(job.job_id, price // 6)
