"""The market as a buyer uses it. Nothing it says of a node counts unless the node's wallet did."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from computeswarm.buyer.http.base import Peer
from computeswarm.buyer.http.changes import Broken, Opened, follow_changes
from computeswarm.core.changes import Change, Topic
from computeswarm.core.errors import (
    BadRequest,
    ComputeSwarmError,
    MarketUnavailable,
    NodeNotFound,
    NotFound,
)
from computeswarm.core.jobs import JobPage, MarketJob
from computeswarm.core.nodes import ComputeNode
from computeswarm.core.pages import Facets
from computeswarm.core.prices import PriceHistory
from computeswarm.core.sessions import PERMIT_HEADER
from computeswarm.core.signing import Signed, parse, parse_json

_SUBMIT_SECONDS = 5.0
_MAX_PAGE = 500
_PAGE = 100
_MAX_CURSOR = 2_000
_REMEMBERED = 2_000
"""Checking a signature takes 0.2 ms, and whoever watches a list gets the same ones again."""


@dataclass(frozen=True, slots=True)
class NodePage:
    """One page of a search."""

    nodes: list[ComputeNode]
    next: str | None
    total: int
    rejected: int
    """How many the market listed whose record is not signed by the wallet it names."""
    exact: bool = True
    """Whether ``total`` was counted to the end; otherwise there are at least so many."""


class MarketClient:
    """One market.

    Args:
        url: its address.
        chain_id: the chain we pay on; records for another one are rejected.
    """

    def __init__(self, url: str, *, chain_id: int) -> None:
        self._peer = Peer(url, who="The market", unavailable=MarketUnavailable)
        self._chain_id = chain_id
        self._known: OrderedDict[str, ComputeNode] = OrderedDict()
        """The last nodes whose records were checked."""

    async def close(self) -> None:
        """Close the connections."""
        await self._peer.close()

    async def nodes(
        self, query: str = "", *, sort: str = "price", cursor: str | None = None, limit: int = 50
    ) -> NodePage:
        """Search nodes.

        Raises:
            InvalidQuery: a word of the query can't be read.
            MarketUnavailable: no usable answer.
        """
        params: dict[str, str | int] = {"sort": sort, "limit": limit}
        if query:
            params["q"] = query
        if cursor:
            params["cursor"] = cursor
        answer = (await self._peer.request("GET", "/api/v1/nodes", params=params)).json()
        listed = answer.get("nodes") if isinstance(answer, dict) else None
        if not isinstance(listed, list):
            raise MarketUnavailable("The market's list of nodes can't be read; try another market.")
        checked = [self._checked(item) for item in listed[:_MAX_PAGE]]
        nodes = [node for node in checked if node is not None]
        following, total = answer.get("next"), answer.get("total")
        return NodePage(
            nodes=nodes,
            next=following if _is_cursor(following) else None,
            total=total if isinstance(total, int) and 0 <= total < 2**53 else len(nodes),
            rejected=len(checked) - len(nodes),
            exact=answer.get("total_exact") is not False,
        )

    async def find_all(
        self, query: str = "", *, sort: str = "price", most: int | None = None
    ) -> AsyncIterator[NodePage]:
        """All nodes that match, page by page, each once; at most ``most``, where that is given.

        A page's cursor says after which node the next one begins, so nodes that come and go
        meanwhile shift nothing.

        Raises:
            InvalidQuery, MarketUnavailable.
        """
        seen: set[str] = set()
        cursor: str | None = None
        left = most
        while True:
            size = _PAGE if left is None else min(_PAGE, left)
            page = await self.nodes(query, sort=sort, cursor=cursor, limit=size)
            # one whose price rose meanwhile stands further down once more
            fresh = [node for node in page.nodes if node.node_id not in seen]
            seen.update(node.node_id for node in fresh)
            yield replace(page, nodes=fresh)
            if left is not None:
                left -= max(len(page.nodes) + page.rejected, 1)
            if page.next is None or (left is not None and left <= 0):
                return
            if page.next == cursor or (not page.nodes and not page.rejected):
                raise MarketUnavailable("The market's list has no end; try another market.")
            cursor = page.next

    async def facets(self, query: str = "") -> Facets:
        """How many nodes match, and how many of them have each model, region and so on.

        Raises:
            InvalidQuery: a word of the query can't be read.
            MarketUnavailable: no usable answer, or a market that doesn't count.
        """
        try:
            answer = await self._peer.request(
                "GET", "/api/v1/nodes/facets", params={"q": query} if query else None
            )
            return parse_json(Facets, answer.body)
        except NodeNotFound:
            raise MarketUnavailable(
                "This market doesn't count its nodes; list them instead."
            ) from None

    async def node(self, node_id: str) -> ComputeNode:
        """One node, its record's signature checked.

        Raises:
            NodeNotFound: the market doesn't know it.
            Unauthorized: its record is not signed by its wallet.
        """
        answer = await self._peer.request("GET", f"/api/v1/nodes/{node_id}")
        node = self._checked(answer.json())
        if node is None or node.node_id != node_id:
            raise BadRequest(f"The market's record of {node_id} is not its owner's; don't use it.")
        return node

    async def stats(self) -> dict[str, Any]:
        """The market's figures, as it states them."""
        value = (await self._peer.request("GET", "/api/v1/stats")).json()
        if not isinstance(value, dict):
            raise MarketUnavailable("The market's figures can't be read.")
        return value

    async def prices(
        self,
        gpu: str = "",
        *,
        since: int | None = None,
        until: int | None = None,
        step: int | None = None,
    ) -> PriceHistory:
        """What sellers asked over time, for charts; a day of it unless told otherwise.

        Args:
            gpu: part of a model's name, several parted by ``|``; empty for the commonest models.
            since, until: unix seconds.
            step: seconds between points at least.

        Raises:
            MarketUnavailable: no usable answer, or a market that keeps no history.
        """
        asked = {"gpu": gpu or None, "since": since, "until": until, "step": step}
        params = {name: value for name, value in asked.items() if value is not None}
        try:
            answer = await self._peer.request("GET", "/api/v1/stats/prices", params=params)
            return parse_json(PriceHistory, answer.body)
        except NotFound:
            raise MarketUnavailable("This market keeps no history of its prices.") from None

    async def submit(self, submission: Signed) -> MarketJob:
        """Tell the market of a job; the same submission again is the same job."""
        answer = await self._peer.request(
            "POST",
            "/api/v1/jobs/submit",
            body=submission.model_dump_json().encode(),
            headers={"Content-Type": "application/json"},
            seconds=_SUBMIT_SECONDS,
        )
        return parse_json(MarketJob, answer.body)

    async def job(self, job_id: str) -> MarketJob:
        """A job as the market keeps it."""
        return parse_json(
            MarketJob, (await self._peer.request("GET", f"/api/v1/jobs/{job_id}")).body
        )

    async def history(
        self, wallet: str, permit: str, *, cursor: str | None = None, limit: int = 50
    ) -> JobPage:
        """Jobs that a wallet bought and sold here, newest first.

        Args:
            permit: the wallet's, see ``core.sessions.make_permit``.

        Raises:
            Unauthorized: the permit is not the wallet's, or has run out.
            MarketUnavailable: no usable answer, or a market that keeps no history.
        """
        params: dict[str, str | int] = {"wallet": wallet, "limit": limit}
        if cursor:
            params["cursor"] = cursor
        try:
            answer = await self._peer.request(
                "GET", "/api/v1/jobs", params=params, headers={PERMIT_HEADER: permit}
            )
        except NotFound:
            raise MarketUnavailable("This market tells nobody what jobs he had.") from None
        return parse_json(JobPage, answer.body)

    def changes(
        self,
        topics: Iterable[Topic],
        query: str = "",
        *,
        permit: Callable[[], str] | None = None,
    ) -> AsyncGenerator[Change | Opened | Broken, None]:
        """What changes, as it comes; see ``follow_changes``."""
        return follow_changes(
            self._peer,
            check=self._holds,
            topics=frozenset(topics),
            query=query,
            permit=permit,
        )

    def _checked(self, item: Any) -> ComputeNode | None:
        try:
            node = parse(ComputeNode, item)
        except ComputeSwarmError:
            return None
        return node if self._holds(node) else None

    def _holds(self, node: ComputeNode) -> bool:
        """Whether its wallet has signed it, for our chain."""
        try:
            known = self._known.get(node.node_id)
            if known is not None and known.record == node.record:
                node.__dict__["info"] = known.info  # the same signature over the same words
            _ = node.info  # checks the signature, and keeps the record it read
        except ComputeSwarmError:
            return False
        if node.record.chain_id != self._chain_id:
            return False
        self._known[node.node_id] = node
        self._known.move_to_end(node.node_id)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return True


def _is_cursor(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= _MAX_CURSOR
