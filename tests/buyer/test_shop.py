"""Any server on the internet: what it may get from our buyer, and what never."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from buyer_fakes import make_buyer

from computeswarm.buyer.client import Buyer
from computeswarm.buyer.http.web import WebRequest
from computeswarm.buyer.shop import PriceTag
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import (
    BadRequest,
    PaymentPending,
    PaymentRequired,
    PolicyRefused,
    TooLarge,
    UsageError,
)
from computeswarm.core.x402 import HEADER_PAYMENT_V1, HEADER_PAYMENT_V2, Reason, encode_header
from computeswarm.payments.extensions.offer_receipt import (
    signed_offers,
    signed_receipt,
    with_receipt,
)
from computeswarm.payments.terms import OFFER_RECEIPT, Terms, payment_required, response_headers

BUYER, PAYEE = PrivateKey(b"\x31" * 32), PrivateKey(b"\x32" * 32)
PRICE, TX = 5_000, "0x" + "ab" * 32
Answerer = Callable[[web.Request], web.StreamResponse | None]


@dataclass
class AnyServer:
    """Asks 5,000 atoms of whoever comes without a payment; what comes with one is scripted."""

    url: str = ""
    version: int = 2
    payee: str = PAYEE.address
    price: int = PRICE
    signer: PrivateKey = PAYEE
    answers: list[Answerer] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    @property
    def terms(self) -> Terms:
        return Terms(BASE_SEPOLIA, self.payee, self.price, f"{self.url}/thing", "\x1b[2Ja thing")

    async def serve(self, request: web.Request) -> web.StreamResponse:
        name = HEADER_PAYMENT_V2 if self.version == 2 else HEADER_PAYMENT_V1
        payment = request.headers.get(name)
        if payment is None:
            return self.ask()
        self.seen.append(payment)
        if self.answers and (answer := self.answers.pop(0)(request)) is not None:
            return answer
        return web.Response(body=b"goods " + await request.read(), headers=self.receipt())

    def ask(self, reason: str | None = None) -> web.Response:
        ways = [self.terms.requirements_v2()]
        offers = signed_offers(self.signer, self.terms.resource_url, ways, issued_at=2**33)
        headers, body = payment_required(
            self.terms, error="Pay.", reason=reason, extensions={OFFER_RECEIPT: offers}
        )
        if self.version == 1:
            headers = {k: v for k, v in headers.items() if k.startswith("X-")}
        return web.json_response(body, status=402, headers=headers)

    def receipt(self) -> dict[str, str]:
        headers = response_headers(
            BASE_SEPOLIA, success=True, payer=BUYER.address, transaction=TX, amount=self.price
        )
        made = signed_receipt(
            self.signer,
            network=BASE_SEPOLIA.caip2,
            resource_url=self.terms.resource_url,
            payer=BUYER.address,
            transaction=TX,
            issued_at=1,
        )
        return with_receipt(headers, made)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[AnyServer]:
    made = AnyServer()
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", made.serve)
    async with TestServer(app) as running:
        made.url = str(running.make_url("")).rstrip("/")
        yield made


@pytest_asyncio.fixture
async def buyer(tmp_path: Path) -> AsyncIterator[Buyer]:
    async with make_buyer(tmp_path, BUYER) as made:
        yield made


@dataclass
class Person:
    """Agrees, or not, and remembers what to."""

    agrees: bool = True
    tags: list[PriceTag] = field(default_factory=list)

    def __call__(self, tag: PriceTag) -> bool:
        self.tags.append(tag)
        return self.agrees


async def buy(
    buyer: Buyer, server: AnyServer, person: Person | None = None, **request: Any
) -> tuple[Any, bytes]:
    asked = WebRequest(f"{server.url}/thing", **request)
    async with buyer.fetch(asked, most=PRICE, agree=person or Person()) as bought:
        return bought, await bought.read(1_000)


@pytest.mark.parametrize("version", [1, 2])
async def test_a_thing_is_bought_and_its_papers_are_kept(
    buyer: Buyer, server: AnyServer, version: int
) -> None:
    server.version, person = version, Person()
    bought, body = await buy(buyer, server, person, method="POST", body=b"please")
    assert body == b"goods please"
    (tag,) = person.tags
    assert (tag.amount, tag.pay_to, tag.version) == (PRICE, PAYEE.address, version)
    assert (tag.description, tag.signed) == ("a thing", True)  # cleaned; the payee's own offer
    assert bought.receipt.transaction == TX
    assert bought.signed_receipt["payload"]["transaction"] == TX
    (kept,) = buyer._payments.of_job(bought.payment.job_id)
    assert (kept.amount, kept.pay_to, kept.transaction) == (PRICE, PAYEE.address, TX)
    assert buyer.spent_today() == PRICE
    again, _ = await buy(buyer, server, method="POST", body=b"please")
    assert again.payment.nonce != kept.nonce and buyer.spent_today() == 2 * PRICE


async def test_papers_by_another_hand_are_not_believed(buyer: Buyer, server: AnyServer) -> None:
    server.signer, person = PrivateKey.generate(), Person()
    bought, _ = await buy(buyer, server, person)
    assert person.tags[0].signed is False
    assert bought.signed_receipt is None


async def test_nothing_is_signed_that_nobody_agreed_to(buyer: Buyer, server: AnyServer) -> None:
    with pytest.raises(PolicyRefused) as caught:
        await buy(buyer, server, Person(agrees=False))
    assert caught.value.extra["rule"] == "confirm"
    server.price, person = PRICE + 1, Person()
    with pytest.raises(PolicyRefused) as caught:
        await buy(buyer, server, person)
    assert (caught.value.extra["rule"], person.tags) == ("max", [])
    assert (server.seen, buyer.spent_today()) == ([], 0)


async def test_allow_lists_and_caps_hold_here_too(tmp_path: Path, server: AnyServer) -> None:
    for rule, settings in {
        "allow_payees": {"allow_payees": BUYER.address},
        "allow_hosts": {"allow_hosts": "example.org"},
        "max_payment": {"max_payment": "0.004"},
        "max_day": {"max_day": "0.004"},
    }.items():
        person = Person()
        async with make_buyer(tmp_path / rule, BUYER, **settings) as buyer:
            with pytest.raises(PolicyRefused) as caught:
                await buy(buyer, server, person)
        assert caught.value.extra["rule"] == rule
        assert person.tags == []  # nobody is asked what would be refused anyway
    assert server.seen == []


def drop(request: web.Request) -> web.StreamResponse | None:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def test_a_lost_reply_never_costs_a_second_payment(tmp_path: Path, server: AnyServer) -> None:
    broken = [drop, lambda _: web.Response(status=503), lambda _: server.ask("settlement_pending")]
    server.answers = list(broken)
    async with make_buyer(tmp_path, BUYER) as buyer:
        _, body = await buy(buyer, server)
        assert body == b"goods "
        assert len(server.seen) == 4 and len(set(server.seen)) == 1
    server.seen.clear()
    server.answers = [drop] * 1_000
    async with make_buyer(tmp_path, BUYER, present_seconds=0.3) as buyer:
        with pytest.raises(PaymentPending):
            await buy(buyer, server)
    server.answers, person = [], Person()
    async with make_buyer(tmp_path, BUYER) as buyer:  # another process, another day
        _, body = await buy(buyer, server, person)
        assert (body, person.tags) == (b"goods ", [])
        assert len(set(server.seen)) == 1
        assert buyer.spent_today() == 2 * PRICE


async def test_a_refused_payment_is_presented_again_not_signed_anew(
    buyer: Buyer, server: AnyServer
) -> None:
    server.answers = [lambda _: server.ask(Reason.VALUE_MISMATCH)]
    with pytest.raises(PaymentRequired) as caught:
        await buy(buyer, server)
    assert caught.value.extra["reason"] == Reason.VALUE_MISMATCH
    person = Person()
    await buy(buyer, server, person)
    assert (len(set(server.seen)), person.tags) == (1, [])


async def test_redirects_are_not_followed(buyer: Buyer, server: AnyServer) -> None:
    elsewhere = {"Location": f"{server.url}/elsewhere"}
    server.answers = [lambda _: web.Response(status=302, headers=elsewhere)]
    bought, _ = await buy(buyer, server)
    assert (bought.status, len(server.seen)) == (302, 1)
    (kept,) = buyer._payments.of_job(bought.payment.job_id)
    assert kept.state == "open"  # it said nothing of the money
    for url in ("http://example.org/", "ftp://example.org/", "https://u@example.org/", "x"):
        with pytest.raises(UsageError):
            WebRequest(url)
    for headers in ((("X-PAYMENT", "x"),), (("Host", "x"),), (("A", "b\r\nC: d"),), (("", "x"),)):
        with pytest.raises(UsageError):
            WebRequest("https://example.org/", headers=headers)


async def test_hostile_answers_are_bounded(buyer: Buyer, server: AnyServer) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse(status=402 if "402" in request.path else 200)
        await reply.prepare(request)
        try:
            for _ in range(1_000):
                await reply.write(b"x" * 65_536)
        except ConnectionError:
            pass
        return reply

    app = web.Application()
    app.router.add_get("/{any}", endless)
    async with TestServer(app) as hostile:
        for path in ("200", "402"):
            with pytest.raises(TooLarge):
                url = str(hostile.make_url(f"/{path}"))
                async with buyer.fetch(WebRequest(url), most=PRICE, agree=Person()) as bought:
                    await bought.read(100_000)
    server.ask = lambda _=None: web.json_response({"pay": "me"}, status=402)  # type: ignore[method-assign]
    with pytest.raises(BadRequest):
        await buy(buyer, server)
    assert buyer.spent_today() == 0


async def test_two_at_once_pay_twice_only_if_they_ask_twice(
    buyer: Buyer, server: AnyServer
) -> None:
    both = await asyncio.gather(*(buy(buyer, server, body=b"a%d" % n) for n in range(2)))
    assert len({bought.payment.nonce for bought, _ in both}) == 2
    assert len(set(server.seen)) == 2


async def test_nothing_is_signed_but_the_price_that_was_agreed_to(
    buyer: Buyer, server: AnyServer
) -> None:
    """The cheap way to pay is one that the guard passes over: the dear one must not go unseen."""
    dear = server.terms.requirements_v2()
    bait = replace(server.terms, amount=1).requirements_v2()
    bait = bait.model_copy(update={"extra": {**bait.extra, "assetTransferMethod": "permit2"}})
    document = {
        "x402Version": 2,
        "error": "Pay.",
        "resource": {"url": server.terms.resource_url},
        "accepts": [bait.wire(), dear.wire()],
    }
    headers = {"PAYMENT-REQUIRED": encode_header(document)}
    server.ask = lambda *_: web.json_response({}, status=402, headers=headers)  # type: ignore[method-assign]
    person = Person()
    bought, _ = await buy(buyer, server, person)
    assert [tag.amount for tag in person.tags] == [bought.payment.amount] == [PRICE]
