"""Large bodies to and from a seller, resumable at any byte.

aiohttp, because its parser is compiled: through httpx the same bytes take two to three times the
processor. The rules are those of ``base``: no redirects, no proxies, nothing unbounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from yarl import URL

from computeswarm.buyer.http.base import CONNECT_SECONDS, MAX_PROBLEM, Answer, Peer, tls

CONNECTIONS = 8
_IDLE_SECONDS = 30.0
_SLOWEST_HASH = 50 * 2**20
"""Bytes a second at which a seller surely takes the digest of what he has, before he answers."""
_READ_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class Body:
    """An answer whose body is still to come."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    chunks: AsyncIterator[bytes]


class Bulk:
    """Transfers with one peer; connections are made when they are first needed."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def put(
        self,
        path: str,
        chunks: AsyncGenerator[bytes, None],
        length: int,
        headers: Mapping[str, str],
        *,
        total: int,
    ) -> Answer:
        """Send ``length`` bytes, and return the answer.

        Args:
            total: bytes that the peer may have to look at before he answers.

        Raises:
            Unavailable: it broke off, or stood still for half a minute.
            ComputeSwarmError: what the problem document names, or what ``chunks`` raised.
        """
        loop = asyncio.get_running_loop()
        watch = asyncio.timeout(_IDLE_SECONDS + total / _SLOWEST_HASH)
        failed: list[Exception] = []

        async def body() -> AsyncGenerator[bytes, None]:
            try:
                async for chunk in chunks:
                    watch.reschedule(loop.time() + _IDLE_SECONDS + total / _SLOWEST_HASH)
                    yield chunk
            except Exception as error:
                failed.append(error)
                raise

        sent = {**headers, "Content-Length": str(length)}
        try:
            async with watch, self._open("PUT", path, sent, body() if length else b"") as response:
                answer = await _whole(response)
        except Exception:
            if failed:
                raise failed[0] from None
            raise
        if answer.status >= 300:
            raise self._peer.problem(answer)
        return answer

    @asynccontextmanager
    async def get(self, path: str, headers: Mapping[str, str]) -> AsyncIterator[Body]:
        """A body as it comes: 200, or 206 where a range was asked for.

        Raises:
            Unavailable: it broke off, or stood still for half a minute.
            ComputeSwarmError: what the problem document names.
        """
        async with self._open("GET", path, headers, None) as response:
            if response.status not in (200, 206):
                raise self._peer.problem(await _whole(response))
            yield Body(response.status, _names(response), response.content.iter_any())

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        data: AsyncGenerator[bytes, None] | bytes | None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        # yarl is not to spell the path anew: it comes quoted
        try:
            async with self._connected().request(
                method,
                URL(self._peer.url + path, encoded=True),
                headers=headers,
                data=data,
                allow_redirects=False,
            ) as response:
                yield response
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise self._peer.silent(error) from None

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            secure = self._peer.url.startswith("https:")
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=tls() if secure else False),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=CONNECT_SECONDS, sock_read=_IDLE_SECONDS
                ),
                headers={"User-Agent": "computeswarm", "Accept-Encoding": "identity"},
                auto_decompress=False,
                read_bufsize=_READ_BYTES,
            )
        return self._session


async def _whole(response: aiohttp.ClientResponse) -> Answer:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_PROBLEM:
            break
    return Answer(response.status, _names(response), bytes(body))


def _names(response: aiohttp.ClientResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}
