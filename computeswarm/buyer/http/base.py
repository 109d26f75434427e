"""HTTP to strangers: every answer bounded in size and time, no redirects, no proxies from outside.

What a peer can do wrong ends in one of two ways: a problem document becomes the error it names,
and everything else (no answer, half an answer, a redirect, a server error) is *unavailable*,
which leaves open whether the request was carried out.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx

from computeswarm.core.errors import BadRequest, ComputeSwarmError, Unavailable, from_problem
from computeswarm.core.text import clean_line

MAX_ANSWER = 4 * 1024 * 1024
MAX_PROBLEM = 64 * 1024
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
_READ_SECONDS = 20.0
_NAME = "computeswarm"


@cache
def tls() -> ssl.SSLContext:
    """One context for all connections: loading the certificates takes tens of milliseconds."""
    return ssl.create_default_context()


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            BadRequest: it is none.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise BadRequest("The answer can't be read as JSON.") from None


class Peer:
    """One server: its address, and the error that says it can't be reached.

    Args:
        url: its address, without a slash at the end.
        who: what it is called in sentences, such as ``The market``.
        unavailable: the error for everything that leaves the outcome open.
    """

    def __init__(self, url: str, *, who: str, unavailable: type[Unavailable]) -> None:
        self.url = url.rstrip("/")
        self._who = who
        self._unavailable = unavailable
        secure = self.url.startswith("https:")
        self._client = httpx.AsyncClient(
            # a context is built even for plain http unless verification is off, and never used
            verify=tls() if secure else False,
            follow_redirects=False,
            trust_env=False,
            timeout=httpx.Timeout(_READ_SECONDS, connect=CONNECT_SECONDS),
            headers={"User-Agent": _NAME, "Accept-Encoding": "identity"},
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str | int] | None = None,
        limit: int = MAX_ANSWER,
        seconds: float | None = ANSWER_SECONDS,
        accept: tuple[int, ...] = (),
    ) -> Answer:
        """One request and its whole answer of at most ``limit`` bytes within ``seconds``.

        Answers of 400 and above raise unless their status is in ``accept``.

        Raises:
            Unavailable: no usable answer; what was asked may or may not have been done.
            ComputeSwarmError: what the problem document names.
        """
        async with self._open(method, path, body, headers, params, seconds) as response:
            answer = await self._whole(response, limit)
        if answer.status >= 400 and answer.status not in accept:
            raise self.problem(answer)
        if 300 <= answer.status < 400:
            raise self._unavailable(f"{self._who} at {self.url} sends us elsewhere; not followed.")
        return answer

    @asynccontextmanager
    async def stream(
        self,
        path: str,
        *,
        params: Mapping[str, str | int],
        headers: Mapping[str, str],
        silent_seconds: float,
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """An answer without an end, in chunks as they come.

        Args:
            silent_seconds: without a byte for so long it counts as broken.

        Raises:
            Unavailable: no usable answer, or it broke off.
            ComputeSwarmError: what the problem document names.
        """
        timeout = httpx.Timeout(silent_seconds, connect=CONNECT_SECONDS)
        async with self._open("GET", path, None, headers, params, None, timeout) as response:
            if response.status_code != 200:
                raise self.problem(await self._whole(response, MAX_PROBLEM))
            yield response.aiter_raw()

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        body: bytes | AsyncIterator[bytes] | None,
        headers: Mapping[str, str] | None,
        params: Mapping[str, str | int] | None,
        seconds: float | None,
        timeout: httpx.Timeout | None = None,
    ) -> AsyncIterator[httpx.Response]:
        try:
            async with (
                asyncio.timeout(seconds),
                self._client.stream(
                    method,
                    self.url + path,
                    content=body,
                    headers=headers,
                    params=params,
                    timeout=timeout or self._client.timeout,
                ) as response,
            ):
                yield response
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, TimeoutError) as error:
            raise self.silent(error) from None

    def silent(self, error: Exception) -> Unavailable:
        """The error for no answer, or half of one."""
        return self._unavailable(
            f"{self._who} at {clean_line(self.url)} does not answer "
            f"({clean_line(str(error) or 'time is up', limit=80)}); try again in a while."
        )

    async def _whole(self, response: httpx.Response, limit: int) -> Answer:
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > limit:
                raise self._unavailable(
                    f"{self._who} at {clean_line(self.url)} answers with more than {limit} bytes."
                )
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, headers, bytes(body))

    def problem(self, answer: Answer) -> ComputeSwarmError:
        """The error that an answer names; its text is clean."""
        try:
            document = answer.json() if len(answer.body) <= MAX_PROBLEM else None
        except BadRequest:
            document = None
        fallback = self._unavailable if answer.status >= 500 else ComputeSwarmError
        error = from_problem(document, status=answer.status, fallback=fallback)
        error.detail = clean_line(error.detail, limit=500)
        if not isinstance(document, dict):
            error.detail = f"{self._who} at {clean_line(self.url)} answers {answer.status}."
        return error
