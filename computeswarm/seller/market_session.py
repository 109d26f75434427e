"""One node's session with the market: how it begins, is used, renewed and lost."""

from __future__ import annotations

import asyncio
import random
from typing import Protocol

from computeswarm.core.clock import Clock
from computeswarm.core.errors import Conflict, NodeRevoked, Unauthorized
from computeswarm.core.market_auth import headers
from computeswarm.core.nodes import Registration
from computeswarm.core.sessions import Enrolment, PendingSession
from computeswarm.core.signing import parse_json
from computeswarm.seller.market_calls import MarketCalls

_RENEW_AT = 0.75
"""Of a session's time: early enough that a market which is down for hours costs nothing."""
_JITTER = 0.1
_AHEAD_MS = 86_400_000
"""How far above our clock (in milliseconds, as ``seq`` is) a market may ask us to number."""


class Sign(Protocol):
    """Signs a record and a session for the market of that address.

    They are numbered by the clock, and above ``above``; or ``number`` is given.
    """

    def __call__(
        self, market: str, *, above: int = 0, number: int | None = None
    ) -> tuple[Enrolment, PendingSession]: ...


class MarketSession:
    """Calls under a key that the market and we agreed on. It never touches a disk.

    Args:
        sign: see ``Sign``.
    """

    def __init__(
        self,
        url: str,
        node_id: str,
        sign: Sign,
        clock: Clock,
    ) -> None:
        self._calls = MarketCalls(url)
        self._node_id = node_id
        self._sign = sign
        self._clock = clock
        self._key = b""
        self._counter = 0
        self._renew_at = 0.0
        self._seq = 0
        self._lock = asyncio.Lock()
        self.listed = False
        """The market took the node since we started."""
        self.came_back = False
        """Our start listed anew what its owner had revoked."""
        self.number = 0
        """Rises with each session."""

    @property
    def url(self) -> str:
        return self._calls.url

    @property
    def live(self) -> bool:
        """There is a key, as far as we know."""
        return bool(self._key)

    @property
    def ageing(self) -> bool:
        """It is time for a new one."""
        return self._clock.monotonic() >= self._renew_at

    def drop(self) -> None:
        """Forget the key."""
        self._key = b""

    async def begin(self) -> Registration:
        """Enrol with a fresh key pair; the session before, if any, ends with it.

        Only before its first success a seller numbers above what the market knows already: so an
        explicit start lists a revoked node anew, while a seller that runs fights neither its
        owner's word nor another seller of its name.

        Raises:
            NodeRevoked: the owner revoked it while we ran.
            ComputeSwarmError: the market refuses, or does not answer.
        """
        try:
            return await self._enrol()
        except (Conflict, NodeRevoked) as error:
            known = error.extra.get("seq")
            most = int(self._clock.now() * 1000) + _AHEAD_MS
            if self.listed or type(known) is not int or not 0 <= known <= most:
                raise
            registration = await self._enrol(above=known)
            self.came_back = isinstance(error, NodeRevoked)
            return registration

    async def ask_again(self) -> Registration:
        """Enrol under the next number, which the owner's revocation covers, if there is one.

        So his word holds, while what only somebody on the way said does no lasting harm. Raises as
        ``begin`` does.
        """
        if not self.listed:
            return await self.begin()
        return await self._enrol(number=self._seq + 1)

    async def _enrol(self, *, above: int = 0, number: int | None = None) -> Registration:
        enrolment, pending = self._sign(self.url, above=above, number=number)
        body = enrolment.model_dump_json().encode()
        async with self._lock:  # no call is on its way under the old key
            reply = parse_json(
                Registration, await self._calls.call("POST", "/api/v1/nodes/register", body)
            )
            self._key, self._counter = pending.mac_key(reply.market_key), 0
        lasts = pending.session.expires_at - pending.session.issued_at
        share = _RENEW_AT * random.uniform(1 - _JITTER, 1)  # noqa: S311 - spreads the load
        self._renew_at = self._clock.monotonic() + lasts * share
        self.number, self._seq = self.number + 1, pending.session.seq
        self.listed = True
        return reply

    async def call(self, method: str, path: str, body: bytes = b"") -> bytes:
        """A call under the session's key; the body of the good answer.

        Raises:
            Unauthorized: there is no session, or it has ended.
            ComputeSwarmError: the market's refusal, or none at all.
        """
        async with self._lock:  # the counter has to arrive in order
            if not self._key:
                raise Unauthorized("There is no session with the market at present.")
            self._counter += 1
            signed = headers(
                self._node_id,
                self._key,
                method=method,
                path=path,
                counter=self._counter,
                body=body,
            )
            return await self._calls.call(method, path, body, signed)

    async def close(self) -> None:
        await self._calls.close()
