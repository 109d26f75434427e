"""Whether the seller can do its work just now, and if not why: for who watches over it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from computeswarm.core.errors import ComputeSwarmError
from computeswarm.core.logs import get_logger

if TYPE_CHECKING:
    from computeswarm.seller.agent import SellerAgent

Reason = Literal[
    "starting",
    "stopping",
    "chain_unreachable",
    "no_gas",
    "market_unreachable",
    "executor_broken",
]
_EVERY_SECONDS = 60.0
_AGAIN_SECONDS = 5.0
"""While something is broken."""
_PATIENCE_SECONDS = 30.0
_log = get_logger("seller.health")


class Health:
    """Looks at the sandbox once a minute; the rest is known already."""

    def __init__(self, agent: SellerAgent) -> None:
        self._agent = agent
        self._task: asyncio.Task[None] | None = None
        self.executor_problem = ""
        """In a sentence; empty while jobs can be run."""

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._look_often(), name="seller-health")

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def reasons(self) -> list[Reason]:
        """Why it can't take and finish jobs now; empty when it can. That its owner paused it is
        none: he wants it so."""
        agent = self._agent
        if agent.stopping:
            return ["stopping"]
        if not agent.ready:
            return ["starting"]
        found: list[Reason] = []
        if agent.chain_problem:
            found.append("chain_unreachable")
        if agent.gas_wei == 0:
            found.append("no_gas")
        if not agent.market.link.connected:
            found.append("market_unreachable")
        if self.executor_problem:
            found.append("executor_broken")
        return found

    async def look(self) -> None:
        """See whether the sandbox still works."""
        before, self.executor_problem = self.executor_problem, await self._problem()
        if self.executor_problem and not before:
            self._agent.notices.tell(f"Jobs can't be run: {self.executor_problem}", "error")
        elif before and not self.executor_problem:
            self._agent.notices.tell("Jobs can be run again.", "good")

    async def _problem(self) -> str:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return " ".join(str(problem) for problem in await self._agent.executor.check())
        except TimeoutError:
            return f"the sandbox does not answer within {_PATIENCE_SECONDS:.0f} s."
        except (ComputeSwarmError, OSError) as error:
            return str(error)

    async def _look_often(self) -> None:
        while True:
            try:
                await self.look()
            except Exception as error:  # the watch outlives what it watches
                _log.error("health_check_failed", exc=error)
            await asyncio.sleep(_AGAIN_SECONDS if self.executor_problem else _EVERY_SECONDS)
