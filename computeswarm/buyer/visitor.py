"""A market as one wallet sees it: searching, following its changes, reading the own jobs there.

Nothing here pays.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import Any

from computeswarm.buyer.browse import candidates, find_node
from computeswarm.buyer.http.changes import Broken, Opened
from computeswarm.buyer.http.market import MarketClient, NodePage
from computeswarm.core.chains import ChainInfo
from computeswarm.core.changes import Change, Topic
from computeswarm.core.clock import Clock, SystemClock
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import PolicyRefused, WalletError
from computeswarm.core.jobs import JobPage
from computeswarm.core.nodes import ComputeNode
from computeswarm.core.pages import Facets
from computeswarm.core.prices import PriceHistory
from computeswarm.core.sessions import make_permit
from computeswarm.core.settings import Paths, Settings
from computeswarm.payments.guard import SpendingPolicy
from computeswarm.payments.wallet import wallet_address


class Visitor:
    """What a buyer does before it buys. Opened and closed by ``Buyer``.

    Args:
        key: the unlocked wallet, for what only its owner is told and what its policy allows.
    """

    def __init__(
        self,
        settings: Settings,
        paths: Paths,
        key: PrivateKey | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        self.settings = settings
        self.paths = paths
        self.chain: ChainInfo = settings.chain
        self._key = key
        self._clock = clock or SystemClock()

    def _enter(self) -> None:
        self._policy = SpendingPolicy.from_settings(self.settings)
        self._market = MarketClient(self.settings.market, chain_id=self.chain.chain_id)

    @property
    def address(self) -> str:
        """The wallet's address.

        Raises:
            WalletError: there is none.
        """
        return self._key.address if self._key else wallet_address(self.paths.wallet)

    async def nodes(
        self, query: str = "", *, sort: str = "price", cursor: str | None = None, limit: int = 50
    ) -> NodePage:
        """Search the market; nodes whose record its wallet didn't sign are left out and counted.

        Raises:
            InvalidQuery, MarketUnavailable.
        """
        return await self._market.nodes(query, sort=sort, cursor=cursor, limit=limit)

    def find_all(
        self, query: str = "", *, sort: str = "price", most: int | None = None
    ) -> AsyncIterator[NodePage]:
        """All nodes that match, page by page, each once; at most ``most``, where that is given.

        Raises:
            InvalidQuery, MarketUnavailable: while it is iterated.
        """
        return self._market.find_all(query, sort=sort, most=most)

    async def facets(self, query: str = "") -> Facets:
        """How many nodes match, and how many of them have each model, region and so on.

        Raises:
            InvalidQuery, MarketUnavailable.
        """
        return await self._market.facets(query)

    def changes(
        self, topics: Iterable[Topic], query: str = ""
    ) -> AsyncGenerator[Change | Opened | Broken, None]:
        """The market's changes as they come, connected again by itself.

        Args:
            topics: jobs are this wallet's own, and need its key.
            query: only nodes that a search for it finds.

        Raises:
            InvalidQuery, NotFound: the market won't tell.
            WalletError: jobs without a key.
        """
        wanted = frozenset(topics)
        permit = self._permit if Topic.JOBS in wanted else None
        return self._market.changes(wanted, query, permit=permit)

    async def history(self, *, cursor: str | None = None, limit: int = 50) -> JobPage:
        """This wallet's jobs as the market keeps them, bought and sold, newest first.

        Raises:
            WalletError: the wallet is locked.
            MarketUnavailable: no usable answer.
        """
        permit = self._permit()
        return await self._market.history(self.address, permit, cursor=cursor, limit=limit)

    def _permit(self) -> str:
        if self._key is None:
            raise WalletError("Unlock the wallet: only its owner is told of its jobs.")
        now = self._clock.now()
        return make_permit(self._key, self.chain.chain_id, self.settings.market, now)

    async def node(self, node_id: str) -> ComputeNode:
        """A node by its id or the unique beginning of it.

        Raises:
            NodeNotFound: none, or several.
        """
        return await find_node(self._market, node_id)

    async def candidates(
        self,
        query: str = "",
        *,
        image: str = "python",
        gpu_count: int = 0,
        max_seconds: int = 1,
        network: bool = False,
        secrets: bool = False,
    ) -> list[ComputeNode]:
        """Idle nodes that match and could take such a job, in the query's order: cheapest first,
        unless it has a ``sort:``.

        Args:
            network: only those that let jobs reach the internet.
            secrets: only those that secrets can be sealed for.

        Raises:
            InvalidQuery, MarketUnavailable.
            PolicyRefused: there are some, and the policy allows to pay none of them.
        """
        found = await candidates(
            self._market,
            query,
            image=image,
            gpu_count=gpu_count,
            max_seconds=max_seconds,
            network=network,
            secrets=secrets,
        )
        return found if self._key is None else self._payable(found)

    def _payable(self, nodes: list[ComputeNode]) -> list[ComputeNode]:
        allowed, refusal = [], None
        for node in nodes:
            try:
                self._policy.check_place(self.chain, node.info.endpoint, node.info.wallet)
            except PolicyRefused as error:
                refusal = refusal or error
            else:
                allowed.append(node)
        if refusal is not None and not allowed:
            raise refusal
        return allowed

    async def stats(self) -> dict[str, Any]:
        """The market's own figures."""
        return await self._market.stats()

    async def prices(
        self, gpu: str = "", *, since: int | None = None, step: int | None = None
    ) -> PriceHistory:
        """What sellers asked over time, see ``MarketClient.prices``."""
        return await self._market.prices(gpu, since=since, step=step)
