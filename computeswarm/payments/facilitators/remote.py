"""Settling through somebody's facilitator, by the standard's HTTP interface.

It gets our gas bill, not our trust. What it says of a payment that it was handed is only a hint
where to look; whether the payment was made is read from the chain, until its window is over.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from computeswarm.chain.errors import RpcUnavailable
from computeswarm.core.chains import ChainInfo
from computeswarm.core.errors import ConfigError, Unavailable
from computeswarm.core.text import clean_line
from computeswarm.core.urls import origin
from computeswarm.core.x402 import (
    Authorization,
    ExactPayload,
    PaymentV1,
    PaymentV2,
    Reason,
    ResourceInfo,
    SettleResponse,
)
from computeswarm.payments.claims import Claim, ClaimStore
from computeswarm.payments.present import Presented, refused, signed_by_payer
from computeswarm.payments.terms import Terms
from computeswarm.payments.verify import Verifier

if TYPE_CHECKING:
    import aiohttp

_log = logging.getLogger(__name__)

_ANSWER_BYTES = 256 * 1024
_ASK_SECONDS = 10.0
_SETTLE_SECONDS = 30.0
_START_SECONDS = 5.0
_HASH = re.compile(r"0x[0-9a-fA-F]{64}\Z")
_REASON = re.compile(r"[a-z0-9_]{1,80}\Z")


class _Reply(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class _Kind(_Reply):
    version: int = Field(alias="x402Version")
    scheme: str = Field(max_length=60)
    network: str = Field(max_length=60)


class _Supported(_Reply):
    kinds: tuple[_Kind, ...] = Field(max_length=1_000, strict=False)


class _Verified(_Reply):
    valid: bool = Field(alias="isValid")
    reason: str | None = Field(default=None, alias="invalidReason", max_length=2_000)


class HttpFacilitator:
    """The facilitator at ``url``. See ``Facilitator`` for what each method promises."""

    external = True

    def __init__(self, url: str, chain: ChainInfo, store: ClaimStore, verifier: Verifier) -> None:
        self._url = url.rstrip("/")
        self._chain = chain
        self._store = store
        self._verifier = verifier
        self._version: Literal[1, 2] = 2
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Ask what it supports; where it doesn't answer, payments will show."""
        try:
            answer = await self._ask("GET", "/supported", None, _START_SECONDS)
        except RpcUnavailable as error:
            _log.warning("starting without the facilitator: %s", error.detail)
            return
        try:
            kinds = _Supported.model_validate(answer).kinds
        except ValidationError:
            raise ConfigError(
                f"What answers at {origin(self._url)} is no x402 facilitator; correct the setting"
                " facilitator, or leave it empty to settle with your own key."
            ) from None
        found = {(kind.version, kind.network) for kind in kinds if kind.scheme == "exact"}
        if (2, self._chain.caip2) in found or (2, "eip155:*") in found:
            self._version = 2
        elif (1, self._chain.slug) in found:
            self._version = 1
        else:
            raise ConfigError(
                f"The facilitator at {origin(self._url)} does not settle 'exact' payments on"
                f" {self._chain.title}; choose another, or leave the setting facilitator empty."
            )

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def verify(self, claim: Claim, payment: Presented, terms: Terms) -> None:
        """By the chain, as ever, and then by the facilitator's own rules."""
        own_key = signed_by_payer(payment, terms)
        await self._verifier.verify(claim.authorization, claim.signature, own_key=own_key)
        body = self._request(payment, terms)
        try:
            verified = _Verified.model_validate(await self._ask("POST", "/verify", body))
        except (RpcUnavailable, ValidationError):
            raise Unavailable(
                "The seller's facilitator does not answer; nothing was taken, try again later."
            ) from None
        if not verified.valid:
            reason = verified.reason or ""
            raise refused(
                reason if _REASON.match(reason) else Reason.UNEXPECTED_VERIFY,
                f"The facilitator refuses this payment: {clean_line(reason, limit=200)}.",
            )

    async def settle(self, claim: Claim, payment: Presented, terms: Terms) -> str:
        """Hand it over. From then on only the chain knows."""
        request = self._request(payment, terms)
        self._store.hand_over(claim, request)
        return await self._post(request)

    async def again(self, claim: Claim) -> None:
        """Hand the same payment over once more."""
        if claim.request is not None:
            await self._post(claim.request)

    async def anew(self, claim: Claim) -> None:
        """The same: which transaction brings it is the facilitator's affair."""
        await self.again(claim)

    async def _post(self, request: bytes) -> str:
        try:
            answer = await self._ask("POST", "/settle", request, _SETTLE_SECONDS)
            settled = SettleResponse.model_validate(answer)
        except (RpcUnavailable, ValidationError) as error:
            _log.warning("the facilitator gave no answer to a payment: %s", error)
            return ""
        if not settled.success:
            reason = clean_line(settled.error_reason or "no reason", limit=200)
            _log.warning("the facilitator says it did not settle: %s", reason)
        return settled.transaction.lower() if _HASH.match(settled.transaction) else ""

    def _request(self, payment: Presented, terms: Terms) -> bytes:
        given = payment.authorization
        payload = ExactPayload(
            signature="0x" + payment.signature.hex(),
            authorization=Authorization(
                from_=given.from_,
                to=given.to,
                value=str(given.value),
                valid_after=str(given.valid_after),
                valid_before=str(given.valid_before),
                nonce=given.nonce,
            ),
        )
        wire: PaymentV1 | PaymentV2
        if self._version == 1:
            wanted = terms.requirements_v1().wire()
            wire = PaymentV1(
                x402_version=1, scheme="exact", network=self._chain.slug, payload=payload
            )
        else:
            required = terms.requirements_v2()
            wanted = required.wire()
            wire = PaymentV2(
                x402_version=2,
                payload=payload,
                accepted=required,
                resource=ResourceInfo(url=terms.resource_url, description=terms.description),
            )
        document = {
            "x402Version": self._version,
            "paymentPayload": wire.wire(),
            "paymentRequirements": wanted,
        }
        return json.dumps(document, separators=(",", ":")).encode()

    async def _ask(
        self, method: str, path: str, body: bytes | None, seconds: float = _ASK_SECONDS
    ) -> Any:
        """The JSON of its answer.

        Raises:
            RpcUnavailable: there is none; whether it acted is unknown.
        """
        import aiohttp  # 0.3 s, and few sellers use a facilitator

        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        try:
            async with asyncio.timeout(seconds):
                async with self._session.request(
                    method,
                    self._url + path,
                    data=body,
                    headers={"Content-Type": "application/json", "Accept": "application/json"},
                    allow_redirects=False,
                ) as response:
                    # refusals come as 4xx too, and say so in the standard's form
                    if response.status >= 500:
                        raise RpcUnavailable(f"The facilitator answered HTTP {response.status}.")
                    content = await _read(response)
            return from_json(content)  # bounds the depth, which json leaves to the stack
        except TimeoutError:
            raise RpcUnavailable("The facilitator did not answer in time.") from None
        except aiohttp.ClientConnectionError as error:
            raise RpcUnavailable(
                f"The facilitator can't be reached ({type(error).__name__})."
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise RpcUnavailable(
                f"The facilitator can't be understood ({type(error).__name__})."
            ) from None


async def _read(response: aiohttp.ClientResponse) -> bytes:
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > _ANSWER_BYTES:
            raise ValueError("too long")
        chunks.append(chunk)
    return b"".join(chunks)
