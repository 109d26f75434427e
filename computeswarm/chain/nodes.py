"""The nodes through which one chain is seen: whom to ask, and whom to pass over.

A node is passed over while it is dead, slow, on another chain, or behind the others. Which of them
answered last is asked first the next time.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import aiohttp

from computeswarm.chain.errors import RpcError, RpcUnavailable
from computeswarm.chain.wire import Block, parse_block, parse_quantity, parse_reply
from computeswarm.core.chains import chain_title

MAX_RESPONSE_BYTES = 16 * 1024 * 1024
_READ_BYTES = 256 * 1024
_HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}
_IMPATIENT_SECONDS = 3.0  # for one answer, where another node may be asked instead
_STUCK_SECONDS = 60  # an older head makes us look at the others'
_BEHIND_SECONDS = 150  # a head so much older than the freshest that was seen is of no use
_FUTURE_SECONDS = 60  # what claims to be further ahead of our clock does not count as fresh
_RETRY_SECONDS = 30.0  # a node that was passed over is given a rest

_Answer = TypeVar("_Answer")


class _NotReached(RpcUnavailable):
    """There was no connection, so the node knows nothing of the request."""


class Nodes:
    """Several nodes of one chain, in order of preference, on one keep-alive aiohttp session.

    With a single node nothing is checked beforehand; there is nobody to ask instead.
    """

    def __init__(self, urls: Sequence[str], *, timeout: float) -> None:
        self.urls = tuple(urls)
        self.chain_id: int | None = None  # None takes the first node's word for it
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None
        self._ids = itertools.count(1)
        self._preferred = 0
        self._admitted: set[int] = set()
        self._resting: dict[int, float] = {}
        self._freshest = 0  # unix seconds, as the chain counts them

    async def close(self) -> None:
        """Close the connections; new ones are opened when they are needed."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(
        self, body: bytes, read: Callable[[bytes], _Answer], *, acts: bool = False
    ) -> _Answer:
        """Post one document to a node, to the next one where none of it can be used.

        Args:
            read: makes sense of a node's reply; RpcUnavailable where there is none in it.
            acts: a node that took it and said nothing may have done it, so that another's refusal
                proves nothing.

        Raises:
            RpcUnavailable: no node gave a usable answer; the first one's reason.
        """
        first: RpcUnavailable | None = None
        may_have_acted = False
        for index, patience in self._attempts():
            posted = False
            try:
                await self._admit(index, patience)
                posted = True
                answer = read(await self._post(index, body, patience))
            except RpcError as error:
                if acts and may_have_acted:
                    raise RpcUnavailable(
                        "One RPC did not answer and another refused, so what became of the"
                        f" transaction is unknown: {error.message[:200]}."
                    ) from None
                raise
            except RpcUnavailable as error:
                may_have_acted |= posted and not isinstance(error, _NotReached)
                self._pass_over(index)
                first = first or error
                continue
            self._preferred = index
            self._resting.pop(index, None)
            return answer
        assert first is not None
        raise first

    async def call(self, method: str, params: Sequence[Any]) -> Any:
        """One JSON-RPC request; the ``result`` as parsed JSON."""
        body, read = self._request(method, params)
        return await self.ask(body, read, acts=method == "eth_sendRawTransaction")

    async def fresher(self, head: Block) -> Block:
        """A node's ``latest`` block, or another node's where this one stands still."""
        self._see(head)
        if len(self.urls) == 1 or head.timestamp > time.time() - _STUCK_SECONDS:
            return head
        for index in self._order()[1:]:
            try:
                await self._admit(index, _IMPATIENT_SECONDS)
                found = await self._head_of(index, _IMPATIENT_SECONDS)
            except RpcUnavailable:
                self._pass_over(index)
                continue
            if found.timestamp > head.timestamp + _STUCK_SECONDS:
                self._pass_over(self._preferred)
                self._preferred = index
                return found
        return head

    def _see(self, head: Block) -> None:
        if head.timestamp <= time.time() + _FUTURE_SECONDS:
            self._freshest = max(self._freshest, head.timestamp)

    def expect(self, chain_id: int) -> None:
        """All nodes have to serve this chain, also those that were heard before."""
        if self.chain_id != chain_id:
            self.chain_id = chain_id
            self._admitted.clear()

    def _attempts(self) -> list[tuple[int, float]]:
        """(node, seconds for it): each is waited for briefly first, the best one longer at last."""
        order = self._order()
        if len(order) == 1:
            return [(order[0], self._timeout)]
        brief = min(_IMPATIENT_SECONDS, self._timeout)
        return [*((index, brief) for index in order), (order[0], self._timeout)]

    def _order(self) -> list[int]:
        """The one that answered last, then the others; those at rest at the very end."""
        now = time.monotonic()
        count = len(self.urls)
        ring = [(self._preferred + step) % count for step in range(count)]
        return sorted(ring, key=lambda index: self._resting.get(index, 0.0) > now)

    def _pass_over(self, index: int) -> None:
        self._admitted.discard(index)
        self._resting[index] = time.monotonic() + _RETRY_SECONDS

    async def _admit(self, index: int, patience: float) -> None:
        """See that a node serves our chain, and as much of it as the others, before it is heard.

        Raises:
            RpcUnavailable: it doesn't.
        """
        if len(self.urls) == 1 or index in self._admitted:
            return
        try:
            chain = parse_quantity(await self._call_at(index, "eth_chainId", [], patience))
        except RpcError as error:
            raise RpcUnavailable(f"An RPC does not say which chain it serves: {error}") from None
        if self.chain_id is not None and chain != self.chain_id:
            raise RpcUnavailable(
                f"An RPC serves {chain_title(chain)}, not {chain_title(self.chain_id)};"
                " give --rpc another address."
            )
        head = await self._head_of(index, patience)
        behind = self._freshest - head.timestamp
        if behind > _BEHIND_SECONDS:
            raise RpcUnavailable(f"An RPC is {behind} s behind the chain; try again later.")
        self._see(head)
        self.chain_id = chain
        self._admitted.add(index)

    async def _head_of(self, index: int, patience: float) -> Block:
        try:
            found = parse_block(
                await self._call_at(index, "eth_getBlockByNumber", ["latest", False], patience)
            )
        except RpcError as error:
            raise RpcUnavailable(f"An RPC does not name its latest block: {error}") from None
        if found is None:
            raise RpcUnavailable("An RPC has no latest block; try again later.")
        return found

    async def _call_at(self, index: int, method: str, params: list[Any], patience: float) -> Any:
        body, read = self._request(method, params)
        return read(await self._post(index, body, patience))

    def _request(self, method: str, params: Sequence[Any]) -> tuple[bytes, Callable[[bytes], Any]]:
        number = next(self._ids)
        body = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        return json.dumps(body).encode(), lambda reply: parse_reply(reply, number)

    async def _post(self, index: int, body: bytes, patience: float) -> bytes:
        session = self._session
        if session is None:
            session = self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=64, keepalive_timeout=60),
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("User-Agent", "Accept-Encoding"),
                headers=_HEADERS,
                read_bufsize=_READ_BYTES,
            )
        try:
            async with session.post(
                self.urls[index],
                data=body,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=patience),
            ) as response:
                chunks, size = [], 0
                while chunk := await response.content.readany():
                    size += len(chunk)
                    if size > MAX_RESPONSE_BYTES:
                        raise RpcUnavailable("The chain's answer is too large; use another RPC.")
                    chunks.append(chunk)
                if response.status >= 500 or response.status == 429:
                    raise RpcUnavailable(
                        f"The chain's RPC answered HTTP {response.status}; try again later."
                    )
                return b"".join(chunks)
        except TimeoutError:
            raise RpcUnavailable(
                "The chain's RPC did not answer in time; try again or give --rpc another address."
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            reached = not isinstance(error, aiohttp.ClientConnectorError)
            raise (RpcUnavailable if reached else _NotReached)(
                f"The chain's RPC can't be reached ({type(error).__name__});"
                " check that it runs, or give --rpc another address."
            ) from None
