"""Any server's HTTP, for a buyer of whatever it sells: no redirects, bodies in chunks."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

import httpx

from computeswarm.buyer.http.base import CONNECT_SECONDS, tls
from computeswarm.core.errors import TooLarge, Unavailable, UsageError
from computeswarm.core.text import clean_line
from computeswarm.core.urls import host_of
from computeswarm.core.x402 import HEADER_PAYMENT_V1, HEADER_PAYMENT_V2

MAX_BODY = 1024 * 1024 * 1024
MAX_REQUEST = 64 * 1024 * 1024
_READ_SECONDS = 120.0
"""A server may answer only once the payment is on the chain, and then has to work for it."""
_METHOD = re.compile(r"[A-Z]{1,16}")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_OURS = {
    *(HEADER_PAYMENT_V1.lower(), HEADER_PAYMENT_V2.lower()),
    *("host", "content-length", "transfer-encoding", "connection", "accept-encoding"),
}


@dataclass(frozen=True, slots=True)
class WebRequest:
    """One request to any server; always sent with the same bytes.

    Raises:
        UsageError: an address, method or header that can't be sent.
    """

    url: str
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def __post_init__(self) -> None:
        host = host_of(self.url)
        if host is None or urlsplit(self.url).fragment:
            raise UsageError("The address is no plain http(s) address; write https://host/path.")
        secure = self.url.lower().startswith("https:")
        if not secure and not _is_loopback(host):
            raise UsageError("Payments go over https only, but on this machine; write https://…")
        if not _METHOD.fullmatch(self.method):
            raise UsageError(f"There is no method {clean_line(self.method, limit=20)!r}.")
        if len(self.body) > MAX_REQUEST:
            raise UsageError(f"More than {MAX_REQUEST} bytes can't be sent; send less.")
        for name, value in self.headers:
            if not _NAME.fullmatch(name) or name.lower() in _OURS:
                raise UsageError(f"The header {clean_line(name, limit=60)!r} can't be set.")
            if not value.isascii() or any(ord(c) < 32 or ord(c) == 127 for c in value):
                raise UsageError(f"The header {name} has characters that can't be sent.")


@dataclass(frozen=True, slots=True)
class WebAnswer:
    """The head of an answer, and its body as it comes. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]

    async def whole(self, limit: int) -> bytes:
        """The whole body.

        Raises:
            TooLarge: it has more than ``limit`` bytes.
            Unavailable: it broke off.
        """
        body = bytearray()
        async for chunk in self.chunks:
            body += chunk
            if len(body) > limit:
                raise TooLarge(f"The answer has more than {limit} bytes; nothing of it was used.")
        return bytes(body)


class Web:
    """Connections to any server."""

    def __init__(self) -> None:
        self._client: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        self._client = httpx.AsyncClient(
            verify=tls(),
            follow_redirects=False,
            trust_env=False,
            timeout=httpx.Timeout(_READ_SECONDS, connect=CONNECT_SECONDS),
            headers={"User-Agent": "computeswarm", "Accept-Encoding": "identity", "Accept": "*/*"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await self._client.aclose()

    @asynccontextmanager
    async def open(
        self, request: WebRequest, payment: Mapping[str, str] | None = None
    ) -> AsyncIterator[WebAnswer]:
        """Send it, with a payment's header or without.

        Raises:
            Unavailable: no usable answer; what was asked may or may not have been done.
        """
        assert self._client is not None
        headers = [*request.headers, *(payment or {}).items()]
        try:
            async with self._client.stream(
                request.method, request.url, content=request.body or None, headers=headers
            ) as response:
                found = {name.lower(): value for name, value in response.headers.items()}
                yield WebAnswer(response.status_code, found, response.aiter_raw())
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            why = clean_line(str(error) or "time is up", limit=80)
            raise Unavailable(
                f"{clean_line(host_of(request.url) or '')} does not answer ({why}); "
                "try again in a while."
            ) from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
