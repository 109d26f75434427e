"""A seller's line to the market: sessions, renewals, patience, revocation, and its own double."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from market_fixtures import CHAIN_ID, MarketClient, Seller, running_market
from seller_rig import open_rig

from computeswarm.chain.devnet import Devnet
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.clock import SystemClock
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import Conflict, Unauthorized
from computeswarm.core.ids import NodeId
from computeswarm.core.jobs import JobUpdate
from computeswarm.core.nodes import Heartbeat, NodeStatus
from computeswarm.core.sessions import Enrolment, PendingSession, enrol
from computeswarm.core.signing import Signed
from computeswarm.core.states import JobState
from computeswarm.market import open_market
from computeswarm.seller import connector
from computeswarm.seller.connector import MarketConnector
from computeswarm.seller.market_calls import patience
from computeswarm.seller.notices import Notices
from computeswarm.seller.revoking import find_node, revoke_node
from computeswarm.server.market_app import build_market_app
from computeswarm.server.serving import Server

KEY = PrivateKey(b"\x03" * 32)
SOON = 20.0


@dataclass
class Clock(SystemClock):
    """The real time; a test moves the one that sessions age by."""

    ahead: float = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


@dataclass
class Line:
    """One seller's connector, with a real signer behind it."""

    url: str
    clock: Clock
    name: str = "rig"
    enrolments: list[Enrolment] = field(default_factory=list)
    last: int = 0
    connector: MarketConnector = field(init=False)
    notices: Notices = field(init=False)

    def __post_init__(self) -> None:
        self.seller = Seller(MarketClient(None, self.url), self.name, KEY)  # type: ignore[arg-type]
        self.notices = Notices(self.clock)
        self.connector = MarketConnector(
            self.url,
            self.seller.node_id,
            enrol=self.sign,
            pulse=lambda: Heartbeat(status=NodeStatus.IDLE),
            clock=self.clock,
            notices=self.notices,
        )

    def sign(
        self, market: str, *, above: int = 0, number: int | None = None
    ) -> tuple[Enrolment, PendingSession]:
        now = self.clock.now()
        if number is None:
            number = self.last = max(int(now * 1000), self.last + 1, above + 1)
        record = self.seller.signed(seq=number, issued_at=int(now))
        made = enrol(KEY, record, market, now)
        self.enrolments.append(made[0])
        return made

    def told(self, words: str) -> int:
        return sum(words in event.text for event in self.notices.recent())

    async def until(self, true: Callable[[], object]) -> None:
        async with asyncio.timeout(SOON):
            while not true():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def turn(self) -> None:
        """Let it speak to the market once more."""
        before = self.connector.link.last_ok
        self.connector.refresh()
        await self.until(lambda: self.connector.link.last_ok != before)


@asynccontextmanager
async def started(url: str, clock: Clock | None = None, **more: Any) -> AsyncIterator[Line]:
    line = Line(url, clock or Clock(), **more)
    line.connector.start()
    try:
        async with asyncio.timeout(SOON):
            await line.connector.first_try()
        yield line
    finally:
        await line.connector.close()


@pytest.fixture
async def market(tmp_path: Path) -> AsyncIterator[MarketClient]:
    async with running_market(tmp_path / "market.db", SystemClock()) as made:
        yield made


async def test_a_session_is_renewed_before_it_ends_with_a_key_of_its_own(
    market: MarketClient,
) -> None:
    clock = Clock()
    async with started(market.url, clock) as line:
        await line.turn()
        assert len(line.enrolments) == 1 and line.connector.link.connected
        clock.ahead = 86_400 * 0.66
        await line.turn()
        assert len(line.enrolments) == 1
        clock.ahead = 86_400 * 0.76
        await line.turn()
        keys = {one.session.document["session_key"] for one in line.enrolments}
        assert len(line.enrolments) == len(keys) == 2
        await line.turn()
        assert len(line.enrolments) == 2 and not line.connector.link.problem
        assert await market.ids() == [line.seller.node_id]


async def test_a_record_that_changed_is_signed_anew_and_one_of_meanwhile_is_not_forgotten(
    market: MarketClient,
) -> None:
    async with started(market.url) as line:
        line.seller.changes["price_per_hour"] = 500_000
        line.connector.refresh(record=True)
        await line.until(lambda: len(line.enrolments) == 2)
        await line.turn()
        node = (await market.get(f"/api/v1/nodes/{line.seller.node_id}")).json
        assert node["record"]["document"]["price_per_hour"] == 500_000


async def test_its_owners_revocation_is_said_and_not_fought(market: MarketClient) -> None:
    async with started(market.url) as line:
        node = NodeId(line.seller.node_id)
        signed = await revoke_node(KEY, node, market.url, BASE_SEPOLIA, line.clock)
        assert signed.signer() == KEY.address
        assert await market.ids("offline") == []
        # the price changes before any heartbeat could tell it of the revocation
        line.connector.refresh(record=True)
        await line.until(lambda: line.connector.link.problem)
        assert "revoked by its owner" in line.connector.link.problem
        assert "start the seller again" in line.connector.link.problem
        signed_so_far = len(line.enrolments)
        for _ in range(3):
            line.connector.refresh(record=True)
            await asyncio.sleep(0.02)
        assert len(line.enrolments) == signed_so_far and not line.connector.link.connected
        assert line.told("revoked by its owner") == 1
        await line.connector.settled()
        assert await market.ids("offline") == []
    async with started(market.url) as again:  # an explicit start
        assert again.connector.link.connected and again.told("listed it anew") == 1
        assert await market.ids() == [node]
        await again.turn()


async def test_a_revocation_is_heard_by_the_next_heartbeat(market: MarketClient) -> None:
    async with started(market.url) as line:
        node = NodeId(line.seller.node_id)
        await revoke_node(KEY, node, market.url, BASE_SEPOLIA, line.clock)
        line.connector.refresh()
        await line.until(lambda: line.connector.link.problem)
        assert "revoked by its owner" in line.connector.link.problem


async def test_a_revoked_node_asks_now_and_then_under_a_number_that_is_covered(
    market: MarketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector, "_REVOKED_PAUSE", 0.05)
    async with started(market.url) as line:
        node = NodeId(line.seller.node_id)
        await revoke_node(KEY, node, market.url, BASE_SEPOLIA, line.clock)
        line.connector.refresh()
        await line.until(lambda: len(line.enrolments) == 5)
        numbers = [made.record.document["seq"] for made in line.enrolments]
        assert numbers[1:] == [numbers[0] + 1] * 4
        assert await market.ids("offline") == [] and line.told("revoked by its owner") == 1


async def test_a_revocation_that_only_somebody_on_the_way_told_of_does_not_last(
    market: MarketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector, "_REVOKED_PAUSE", 0.3)
    lies = [problem(410, "node_revoked", seq=2**50) for _ in range(2)]
    liar = forwarding(market, lambda _: lies.pop() if lies else None, after=1)
    async with liar as url, started(url) as line:
        line.connector.refresh()
        await line.until(lambda: line.connector.link.problem)
        assert "revoked by its owner" in line.connector.link.problem
        await line.until(lambda: line.connector.link.connected)
        assert line.told("The market answers again") == 1
        assert await market.ids() == [line.seller.node_id]
        line.connector.report("job-" + "0" * 20, JobUpdate(state=JobState.RUNNING))
        assert line.connector._updates  # it speaks of its jobs again
        await line.turn()


async def test_only_his_own_node_and_only_so_far(market: MarketClient) -> None:
    async with started(market.url) as line:
        node = NodeId(line.seller.node_id)
        assert find_node(KEY.address, "rig") == find_node(KEY.address, node) == node
        thief = PrivateKey(b"\x07" * 32)
        with pytest.raises(Unauthorized):
            await revoke_node(thief, node, market.url, BASE_SEPOLIA, line.clock)
        assert await market.ids() == [node]
        # a record from the day after tomorrow's clock: the revocation goes up to it
        line.last = int(line.clock.now() * 1000) + 86_400_000
        line.connector.refresh(record=True)
        await line.until(lambda: len(line.enrolments) == 2)
        await line.turn()
        signed = await revoke_node(KEY, node, market.url, BASE_SEPOLIA, line.clock)
        assert signed.document["seq"] > line.last + 1000
        assert await market.ids() == []


async def test_a_start_numbers_above_what_the_market_knows(market: MarketClient) -> None:
    """After a clock that was ahead; but a market can't make it sign away all the numbers."""
    ahead = Clock()
    async with started(market.url, ahead) as line:
        line.last = int(ahead.now() * 1000) + 3_600_000
        line.connector.refresh(record=True)
        await line.until(lambda: len(line.enrolments) == 2)
        known = line.last
    async with started(market.url) as line:
        assert line.connector.link.connected
        assert line.last == known + 1
    refusing = scripted(lambda _: problem(409, "conflict", seq=2**52))
    async with refusing as (url, _), started(url) as line:
        assert line.connector.link.problem
        assert line.last < 2**45


async def test_another_seller_of_its_name_is_suspected(market: MarketClient) -> None:
    async with started(market.url) as one, started(market.url) as two:
        for _ in range(8):
            for line in (one, two):
                if line.connector.link.connected:
                    line.connector.refresh()
                    await asyncio.sleep(0.05)
        await one.until(lambda: one.told("Another seller") + two.told("Another seller"))


async def test_a_seller_that_runs_does_not_number_above_its_double(market: MarketClient) -> None:
    async with started(market.url) as one, started(market.url) as two:
        two.last = int(two.clock.now() * 1000) + 3_600_000
        two.connector.refresh(record=True)
        await two.until(lambda: len(two.enrolments) == 2)
        await two.turn()
        one.connector.refresh()
        await one.until(lambda: one.told("Another seller"))
        assert one.last < two.last and "seq" in one.connector.link.problem
        await two.turn()
        assert two.connector.link.connected and len(two.enrolments) == 2


# a market that a test plays


def problem(status: int, code: str, *, retry_after: int | None = None, **more: Any) -> web.Response:
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    body = {"code": code, "detail": "Not now.", **more}
    return web.json_response(body, status=status, headers=headers)


@asynccontextmanager
async def scripted(
    answer: Callable[[web.Request], web.Response],
) -> AsyncIterator[tuple[str, list[tuple[float, str]]]]:
    """What came, and when."""
    came: list[tuple[float, str]] = []

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        came.append((asyncio.get_running_loop().time(), request.path.rpartition("/")[2]))
        return answer(request)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handle)
    async with Server(app) as server:
        yield await server.start("127.0.0.1", 0), came


@asynccontextmanager
async def forwarding(
    market: MarketClient, answer: Callable[[web.Request], web.Response | None], *, after: int = 0
) -> AsyncIterator[str]:
    """A market's address at which somebody sits who answers for it when he likes."""
    seen = itertools.count()

    async def handle(request: web.Request) -> web.Response:
        body = await request.read()
        if next(seen) >= after and (own := answer(request)) is not None:
            return own
        async with market.session.request(
            request.method, market.url + request.path, data=body, headers=dict(request.headers)
        ) as reply:
            return web.Response(
                status=reply.status, body=await reply.read(), content_type=reply.content_type
            )

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handle)
    async with Server(app) as server:
        yield await server.start("127.0.0.1", 0)


@pytest.mark.parametrize(("status", "code"), [(429, "too_many_requests"), (503, "unavailable")])
async def test_it_waits_as_long_as_the_market_asks(status: int, code: str) -> None:
    asking = scripted(lambda _: problem(status, code, retry_after=1))
    async with asking as (url, came), started(url) as line:
        for _ in range(20):  # neither a change nor an impatient owner shortens it
            line.connector.refresh(record=True)
            await asyncio.sleep(0.01)
        await line.until(lambda: len(came) >= 2)
    assert came[1][0] - came[0][0] >= 0.99


@pytest.mark.parametrize(
    ("asked", "waits"),
    [(5, 5.0), ("5", 5.0), (10**9, 900.0), (-1, 0.0), ("nan", 0.0), ("soon", 0.0), ([], 0.0)],
)
def test_patience_has_its_limits(asked: object, waits: float) -> None:
    assert patience(Conflict("x", retry_after=asked)) == waits


async def test_it_stays_listed_by_heartbeats_while_no_record_is_taken(
    market: MarketClient,
) -> None:
    """As a market is whose database is away: it takes heartbeats and nothing else."""
    away = False

    def answer(request: web.Request) -> web.Response | None:
        registers = request.path.endswith("/register")
        return problem(503, "unavailable", retry_after=600) if away and registers else None

    async with forwarding(market, answer) as url, started(url) as line:
        away = True
        line.connector.refresh(record=True)
        await line.until(lambda: line.told("takes no new record yet"))
        for _ in range(3):
            await line.turn()
        assert len(line.enrolments) == 2 and line.connector.link.connected
        assert await market.ids() == [line.seller.node_id]
        away = False
        line.clock.ahead += 601
        await line.turn()
        assert len(line.enrolments) == 3


async def test_it_beats_as_often_as_the_market_says(tmp_path: Path) -> None:
    market = open_market(tmp_path / "market.db", heartbeat_seconds=1)
    async with (
        Server(build_market_app(market)) as server,
        started(await server.start("127.0.0.1", 0)) as line,
    ):
        await line.until(lambda: market.heartbeats >= 3)
        assert len(line.enrolments) == 1


async def test_each_reply_names_the_next_interval(market: MarketClient) -> None:
    beats = []

    def answer(request: web.Request) -> web.Response | None:
        if not request.path.endswith("/heartbeat"):
            return None
        beats.append(request)
        return web.json_response({"heartbeat_seconds": 1, "lease_seconds": 3})

    async with forwarding(market, answer) as url, started(url) as line:
        line.connector.refresh()  # at the registration it was told of 30 s
        await line.until(lambda: len(beats) >= 3)


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: web.Response(status=201, body=b"{}"),
        lambda _: web.Response(status=201, body=b"[" * 50_000),
        lambda _: web.Response(status=201, body=b"x" * 2_000_000),
        lambda _: problem(401, "unauthorized"),
        lambda _: problem(404, "node_not_found"),
        lambda _: problem(410, "gone"),
        lambda _: web.Response(status=500),
    ],
)
async def test_a_market_that_babbles_is_a_problem_and_no_end(
    answer: Callable[[web.Request], web.Response],
) -> None:
    async with scripted(answer) as (url, came), started(url) as line:
        assert line.connector.link.problem and not line.connector.link.connected
        await line.until(lambda: len(came) >= 2)


# the whole seller


async def test_no_key_of_a_session_touches_a_disk(devnet: Devnet, tmp_path: Path) -> None:
    async with open_rig(devnet, tmp_path) as r:
        session = r.agent.market._session
        assert session.live
        made, pending = r.agent.offers.enrol(r.market_url, above=10**15)
        assert made.record.document["seq"] > 10**15
        assert Signed.model_validate(made.session.model_dump()).signer() == r.agent.wallet
        secrets = (session._key, pending._secret.secret)
        for path in r.paths.state.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                for found in secrets:
                    assert found not in content and found.hex().encode() not in content
    assert made.record.chain_id == CHAIN_ID
