"""Single calls to the market, and what its refusals mean."""

from __future__ import annotations

import json
from typing import Any

import httpx

from computeswarm.core.errors import (
    ComputeSwarmError,
    Conflict,
    MarketUnavailable,
    NotFound,
    TooManyRequests,
    Unauthorized,
    from_problem,
)
from computeswarm.core.text import clean_line

_TIMEOUT_SECONDS = 10.0
_REPLY_BYTES = 1024 * 1024
_LONGEST_WAIT = 900.0
_KINDS: dict[int, type[ComputeSwarmError]] = {
    401: Unauthorized,
    404: NotFound,
    409: Conflict,
    429: TooManyRequests,
}


class MarketCalls:
    """One market, over connections that stay open."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, trust_env=False)

    async def call(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> bytes:
        """The body of a good answer.

        Raises:
            MarketUnavailable: no answer, or one that is too large.
            ComputeSwarmError: the market's refusal, as the error it names; ``extra`` has
                ``retry_after`` in seconds where it asked for patience.
        """
        sent = {"Content-Type": "application/json", **(headers or {})}
        try:
            async with self._http.stream(
                method, self.url + path, content=body, headers=sent
            ) as reply:
                content = b""
                async for chunk in reply.aiter_bytes():
                    content += chunk
                    if len(content) > _REPLY_BYTES:
                        raise MarketUnavailable("The market's answer is too large.")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise MarketUnavailable(
                f"The market at {self.url} does not answer ({type(error).__name__})."
            ) from None
        if reply.status_code < 400:
            return content
        raise _refusal(content, reply.status_code, reply.headers.get("Retry-After", ""))

    async def close(self) -> None:
        await self._http.aclose()


def patience(error: ComputeSwarmError) -> float:
    """Seconds that the market wants us to wait, within reason; 0 where it does not say."""
    try:
        wanted = float(error.extra.get("retry_after", 0))
    except (TypeError, ValueError):
        return 0.0
    return min(wanted, _LONGEST_WAIT) if wanted > 0 else 0.0  # NaN is not above 0


def _refusal(content: bytes, status: int, retry_after: str) -> ComputeSwarmError:
    """The market's no, as an error of the right kind."""
    document: Any
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    fallback = _KINDS.get(status, MarketUnavailable if status >= 500 else ComputeSwarmError)
    error = from_problem(document, status=status, fallback=fallback)
    error.detail = clean_line(error.detail, limit=300)
    if retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 10:
        error.extra["retry_after"] = int(retry_after)
    elif status not in (429, 503):
        error.extra.pop("retry_after", None)
    return error
