"""Many questions at once: whole answers in order, or an error, with batches and without."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from computeswarm.chain import transfers
from computeswarm.chain.batch import BatchClient
from computeswarm.chain.errors import RpcError, RpcUnavailable
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.transfers import transfers_of
from computeswarm.chain.usdc import TRANSFER_TOPIC, Usdc
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.server.serving import Server

Reply = Callable[[Any], Any]
ME = "0x" + "aa" * 20


@asynccontextmanager
async def node(reply: Reply) -> AsyncIterator[RpcClient]:
    """A node that answers as the test says."""

    async def handle(request: web.Request) -> web.Response:
        return web.json_response(reply(json.loads(await request.read())))

    app = web.Application()
    app.router.add_post("/", handle)
    async with Server(app) as server, RpcClient(await server.start("127.0.0.1", 0)) as rpc:
        yield rpc


def answer(call: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": call["id"], "result": call["params"][0] * 2}


def refusal(code: int, request_id: Any = None) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": "no"}}


async def test_batches_keep_their_order_and_their_size() -> None:
    sizes = Counter[int]()

    def reply(asked: Any) -> Any:
        sizes[len(asked)] += 1
        return [answer(call) for call in reversed(asked)]

    async with node(reply) as rpc:
        got = await BatchClient(rpc, size=20).call("double", [[n] for n in range(50)])
    assert got == [2 * n for n in range(50)]
    assert sizes == {20: 2, 10: 1}


async def test_a_node_that_takes_no_batches_is_asked_one_by_one() -> None:
    def reply(asked: Any) -> Any:
        return refusal(-32600) if isinstance(asked, list) else answer(asked)

    async with node(reply) as rpc:
        got = await BatchClient(rpc, size=10).call("double", [[n] for n in range(35)])
    assert got == [2 * n for n in range(35)]


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (lambda asked: [answer(call) for call in asked[1:]], RpcUnavailable),
        (lambda asked: [answer(asked[0])] * len(asked), RpcUnavailable),
        (lambda asked: [refusal(-32000, call["id"]) for call in asked], RpcError),
        (lambda asked: "nonsense", RpcUnavailable),
    ],
)
async def test_half_an_answer_is_none(reply: Reply, error: type[Exception]) -> None:
    async with node(reply) as rpc:
        with pytest.raises(error):
            await BatchClient(rpc).call("double", [[1], [2], [3]])


def log(block: int, sender: str, to: str, **changes: Any) -> dict[str, Any]:
    def word(address: str) -> str:
        return "0x" + address[2:].rjust(64, "0")

    made = {
        "address": BASE_SEPOLIA.usdc.address,
        "topics": [TRANSFER_TOPIC, word(sender), word(to)],
        "data": "0x" + f"{block:064x}",
        "blockNumber": hex(block),
        "transactionHash": f"0x{block:064x}",
    }
    return made | changes


def chain_of(logs: list[dict[str, Any]], limit: int) -> Reply:
    """A node with these events, which allows so many blocks in a question."""

    def reply(asked: Any) -> Any:
        query = asked["params"][0]
        first, last = int(query["fromBlock"], 16), int(query["toBlock"], 16)
        if last - first >= limit:
            return refusal(-32005, asked["id"])
        found = [
            one
            for one in logs
            if first <= int(one["blockNumber"], 16) <= last
            and all(w in (None, h) for w, h in zip(query["topics"], one["topics"], strict=False))
        ]
        return {"jsonrpc": "2.0", "id": asked["id"], "result": found}

    return reply


@pytest.mark.parametrize("limit", [20, 100_000])
async def test_transfers_are_found_both_ways_in_ranges_that_the_node_allows(limit: int) -> None:
    other = "0x" + "bb" * 20
    logs = [log(3, ME, other), log(700, other, ME), log(900, ME, ME), log(1_000, other, other)]
    async with node(chain_of(logs, limit)) as rpc:
        found = await transfers_of(rpc, Usdc(rpc, BASE_SEPOLIA), ME, 0, 1_200)
    assert [(one.block, one.within(ME)) for one in found] == [(3, -3), (700, 700), (900, 0)]


@pytest.mark.parametrize(
    "changes",
    [
        {"address": "0x" + "cc" * 20},
        {"blockNumber": "0x9999"},
        {"topics": [TRANSFER_TOPIC]},
        {"data": "0x"},
        {"topics": [TRANSFER_TOPIC, "0x" + "11" * 32, "0x" + "22" * 32]},
    ],
)
async def test_events_that_were_not_asked_for_are_refused(changes: dict[str, Any]) -> None:
    def reply(asked: Any) -> Any:
        return {"jsonrpc": "2.0", "id": asked["id"], "result": [log(5, ME, ME) | changes]}

    async with node(reply) as rpc:
        with pytest.raises(RpcUnavailable):
            await transfers_of(rpc, Usdc(rpc, BASE_SEPOLIA), ME, 0, 10)


async def test_a_node_that_is_down_is_asked_a_few_times_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def reply(call: Any) -> Any:
        asked.append(call)
        return refusal(-32603, call["id"])

    monkeypatch.setattr(transfers, "RANGE_BLOCKS", 1_000)
    async with node(reply) as rpc:
        with pytest.raises(RpcUnavailable):
            await transfers_of(rpc, Usdc(rpc, BASE_SEPOLIA), ME, 0, 10**7)
    assert len(asked) < 20
