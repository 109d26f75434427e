"""One chain through several nodes, some of which are of no use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from chain_nodes import Answer, FakeNode, by_method, free_port, never, plain

from computeswarm.chain import nodes as nodes_module
from computeswarm.chain.devnet import Devnet
from computeswarm.chain.errors import RpcError, RpcUnavailable
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.usdc import Usdc, transfer_calldata
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import ConfigError

CHAIN_ID = BASE_SEPOLIA.chain_id


class Relay:
    """A node in front of the devnet, which can be told to answer otherwise, and counts."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.asked: list[str] = []
        self.instead: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
        self.results: dict[str, Any] = {}
        self.errors: dict[str, dict[str, Any]] = {}
        self.delay = 0.0  # seconds before each answer

    async def answer(self, request: web.Request) -> web.StreamResponse:
        document = await request.json()
        self.asked.append(document["method"])
        await asyncio.sleep(self.delay)
        if self.instead is not None:
            return await self.instead(request)
        for member, answers in (("result", self.results), ("error", self.errors)):
            if document["method"] in answers:
                said = {member: answers[document["method"]]}
                return web.json_response({"jsonrpc": "2.0", "id": document["id"], **said})
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.upstream, json=document) as reply,
        ):
            return web.Response(body=await reply.read(), content_type="application/json")


@pytest.fixture
def relay(chain: Devnet) -> Relay:
    return Relay(chain.url)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow node is given up after a fraction of a second."""
    monkeypatch.setattr(nodes_module, "_IMPATIENT_SECONDS", 0.3)


async def _pay(chain: Devnet, urls: list[str]) -> None:
    """A transfer from start to end through these nodes."""
    payee = PrivateKey.generate().address
    async with RpcClient(urls, chain_id=CHAIN_ID) as rpc:
        sender = TxSender(rpc, chain.keys[4], CHAIN_ID)
        signed = await sender.prepare(chain.usdc, transfer_calldata(payee, 7))
        await sender.broadcast(signed)
        receipt = await sender.wait_receipt(signed.hash)
        usdc = Usdc(rpc, BASE_SEPOLIA)
        assert usdc.transfer_proof(receipt, chain.keys[4].address, payee, 7)
        assert await usdc.balance_of(payee) == 7


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("how", ["dead", "stalling", "overloaded", "no node", "another chain"])
async def test_a_payment_goes_through_beside_a_useless_node(
    chain: Devnet, fake_node: FakeNode, how: str
) -> None:
    useless: dict[str, Answer] = {
        "stalling": never,
        "overloaded": plain("", status=429),
        "no node": plain("<html>hello</html>"),
        "another chain": by_method(eth_chainId="0x2105"),
    }
    first = f"http://127.0.0.1:{free_port()}/" if how == "dead" else await fake_node(useless[how])
    began = time.monotonic()
    await _pay(chain, [first, chain.url])
    assert time.monotonic() - began < 10


async def test_the_useless_node_is_not_asked_again_for_a_while(
    chain: Devnet, fake_node: FakeNode, relay: Relay
) -> None:
    relay.instead = plain("", status=502)
    async with RpcClient([await fake_node(relay.answer), chain.url]) as rpc:
        for _ in range(3):
            assert await rpc.chain_id() == CHAIN_ID
    assert len(relay.asked) == 1


async def test_a_node_that_fails_later_is_left_then(
    chain: Devnet, fake_node: FakeNode, relay: Relay
) -> None:
    async with RpcClient([await fake_node(relay.answer), chain.url], chain_id=CHAIN_ID) as rpc:
        height = await rpc.block_number()
        assert relay.asked == ["eth_chainId", "eth_getBlockByNumber", "eth_blockNumber"]
        relay.instead = plain("", status=503)
        assert await rpc.block_number() >= height
        assert await rpc.block_number() >= height
    assert len(relay.asked) == 4


async def test_a_refusal_is_an_answer_and_nobody_else_is_asked(
    chain: Devnet, fake_node: FakeNode, relay: Relay
) -> None:
    relay.errors["eth_getBalance"] = {"code": -32000, "message": "nonce too low"}
    second = Relay(chain.url)
    urls = [await fake_node(relay.answer), await fake_node(second.answer)]
    async with RpcClient(urls) as rpc:
        with pytest.raises(RpcError, match="nonce too low"):
            await rpc.native_balance(chain.keys[0].address)
    assert second.asked == []


async def test_a_node_that_is_behind_is_passed_over(
    chain: Devnet, fake_node: FakeNode, relay: Relay
) -> None:
    """Its balances and nonces are of long ago."""
    block = await _latest(chain)
    second = Relay(chain.url)
    second.results["eth_getBlockByNumber"] = _aged(block, 600)
    urls = [await fake_node(relay.answer), await fake_node(second.answer)]
    async with RpcClient(urls) as rpc:
        assert await rpc.native_balance(chain.keys[0].address) > 0
        relay.instead = plain("", status=502)
        for _ in range(2):
            with pytest.raises(RpcUnavailable, match=r"502|behind"):
                await rpc.native_balance(chain.keys[0].address)
        assert "eth_getBalance" not in second.asked
        second.results["eth_getBlockByNumber"] = _aged(block, 100)
        assert await rpc.native_balance(chain.keys[0].address) > 0


async def test_a_node_that_claims_to_be_in_the_future_spoils_nobody(
    chain: Devnet, fake_node: FakeNode, relay: Relay
) -> None:
    second = Relay(chain.url)
    relay.results["eth_getBlockByNumber"] = _aged(await _latest(chain), -(10**9))
    urls = [await fake_node(relay.answer), await fake_node(second.answer)]
    async with RpcClient(urls) as rpc:
        await rpc.head()
        relay.instead = plain("", status=502)
        assert await rpc.native_balance(chain.keys[0].address) > 0


async def test_a_node_that_stands_still_is_left_for_one_that_goes_on(
    chain: Devnet, fake_node: FakeNode, relay: Relay
) -> None:
    block = await _latest(chain)
    old = _aged(block, 140)
    relay.results["eth_getBlockByNumber"] = old
    second = Relay(chain.url)
    urls = [await fake_node(relay.answer), await fake_node(second.answer)]
    async with RpcClient(urls) as rpc:
        assert (await rpc.head()).timestamp >= int(block["timestamp"], 16)
        asked = len(relay.asked)
        await rpc.chain_id()
        assert len(relay.asked) == asked
    # where all stand still, it is the chain that does
    second.results["eth_getBlockByNumber"] = old
    async with RpcClient(urls) as rpc:
        assert (await rpc.head()).timestamp == int(old["timestamp"], 16)


async def _latest(chain: Devnet) -> dict[str, Any]:
    async with RpcClient(chain.url) as rpc:
        block: dict[str, Any] = await rpc.call("eth_getBlockByNumber", ["latest", False])
    return block


def _aged(block: dict[str, Any], seconds: int) -> dict[str, Any]:
    return {**block, "timestamp": hex(int(time.time()) - seconds)}


async def test_another_chain_is_named_where_no_node_serves_ours(
    chain: Devnet, fake_node: FakeNode
) -> None:
    other = by_method(eth_chainId="0x2105")
    urls = [await fake_node(other), await fake_node(other)]
    async with RpcClient(urls, chain_id=CHAIN_ID) as rpc:
        with pytest.raises(RpcUnavailable, match="serves Base, not Base Sepolia"):
            await rpc.block_number()
    # verify_chain looks for one that does, and holds all others to it
    async with RpcClient([*urls, chain.url]) as rpc:
        await rpc.verify_chain(CHAIN_ID)
        assert await Usdc(rpc, BASE_SEPOLIA).balance_of(chain.keys[0].address) > 0
    async with RpcClient(urls[0]) as rpc:
        with pytest.raises(ConfigError, match="not Base Sepolia"):
            await rpc.verify_chain(CHAIN_ID)


async def test_a_slow_node_is_waited_for_where_nobody_is_faster(
    chain: Devnet, fake_node: FakeNode, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes_module, "_IMPATIENT_SECONDS", 0.05)

    relay.delay = 0.2
    dead = f"http://127.0.0.1:{free_port()}/"
    async with RpcClient([await fake_node(relay.answer), dead], timeout=20) as rpc:
        assert await rpc.chain_id() == CHAIN_ID


@pytest.mark.usefixtures("hurried")
async def test_a_refusal_after_anothers_silence_is_unknown(
    chain: Devnet, fake_node: FakeNode, relay: Relay
) -> None:
    """The node that said nothing may have passed the transaction on."""
    silent = Relay(chain.url)

    async def takes_and_says_nothing(request: web.Request) -> web.StreamResponse:
        document = await request.json()
        if document["method"] != "eth_sendRawTransaction":
            async with (
                aiohttp.ClientSession() as session,
                session.post(chain.url, json=document) as reply,
            ):
                return web.Response(body=await reply.read(), content_type="application/json")
        silent.asked.append("took")
        return web.Response(status=502)

    relay.errors["eth_sendRawTransaction"] = {"code": -32000, "message": "insufficient funds"}
    urls = [await fake_node(takes_and_says_nothing), await fake_node(relay.answer)]
    async with RpcClient(urls, chain_id=CHAIN_ID) as rpc:
        sender = TxSender(rpc, chain.keys[4], CHAIN_ID)
        signed = await sender.prepare(chain.usdc, transfer_calldata(chain.keys[4].address, 1))
        with pytest.raises(RpcUnavailable):
            await sender.broadcast(signed)
        assert silent.asked == ["took"]
        with pytest.raises(RpcError):  # and a dead one has surely not
            await rpc.send_raw(signed.raw)


async def test_what_a_node_holds_is_sent_whatever_it_says(
    chain: Devnet, fake_node: FakeNode, relay: Relay
) -> None:
    async with RpcClient(await fake_node(relay.answer), chain_id=CHAIN_ID) as rpc:
        sender = TxSender(rpc, chain.keys[4], CHAIN_ID)
        signed = await sender.prepare(chain.usdc, transfer_calldata(chain.keys[4].address, 1))
        await sender.broadcast(signed)
        await sender.wait_receipt(signed.hash)
        relay.errors["eth_sendRawTransaction"] = {"code": -32010, "message": "Bekannt"}
        assert await rpc.send_raw(signed.raw) == signed.hash


async def test_no_node_names_any_tip_it_likes(
    chain: Devnet, fake_node: FakeNode, relay: Relay
) -> None:
    """The base fee is the chain's, but a tip is paid in full."""
    relay.results["eth_maxPriorityFeePerGas"] = hex(10**15)
    async with RpcClient(await fake_node(relay.answer), chain_id=CHAIN_ID) as rpc:
        base = (await rpc.head()).base_fee
        assert (await rpc.fees())[1] <= max(base, 2 * 10**9)
