"""The client says which of the two happened: the node said no, or it said nothing of use."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from chain_nodes import Answer, FakeNode, free_port, plain, replying

from computeswarm.chain import nodes as nodes_module
from computeswarm.chain.abi import revert_reason, selector
from computeswarm.chain.devnet import Devnet
from computeswarm.chain.errors import RpcError, RpcUnavailable
from computeswarm.chain.rpc import RpcClient
from computeswarm.core.errors import ConfigError, ExitCode

_ADDRESS = "0x" + "11" * 20
_HASH = "0x" + "22" * 32


@pytest.mark.parametrize(
    "answer",
    [
        plain("<html>hello</html>"),
        plain("[" * 5_000),
        plain("[]"),
        plain('{"jsonrpc":"2.0","id":1,"result":"0x1"}', status=503),
        plain('{"jsonrpc":"2.0","id":1,"result":"0x1"}', status=429),
        plain("", status=307, Location="http://127.0.0.1:9/"),
        plain('{"jsonrpc":"2.0","id":77,"result":"0x1"}'),
        replying(),
        replying(result=None),
        replying(result="0x"),
        replying(result=1),
        replying(result="0x" + "f" * 65),
        replying(result={"a": 1}),
        replying(error="no"),
        replying(error={"code": -32603, "message": "database is locked"}),
        replying(error={"code": -32005, "message": "slow down"}),
    ],
)
async def test_no_usable_answer_is_unavailable(fake_node: FakeNode, answer: Answer) -> None:
    async with RpcClient(await fake_node(answer)) as rpc:
        with pytest.raises(RpcUnavailable) as caught:
            await rpc.chain_id()
    assert caught.value.exit_code == ExitCode.OWN_ERROR
    assert caught.value.status == 503


async def test_nobody_there_and_nobody_in_time_are_unavailable(fake_node: FakeNode) -> None:
    async with RpcClient(f"http://127.0.0.1:{free_port()}") as rpc:
        with pytest.raises(RpcUnavailable, match="can't be reached"):
            await rpc.chain_id()

    async def never(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        raise AssertionError

    async with RpcClient(await fake_node(never), timeout=0.1) as rpc:
        with pytest.raises(RpcUnavailable, match="in time"):
            await rpc.chain_id()


async def test_an_endless_answer_is_cut(
    fake_node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes_module, "MAX_RESPONSE_BYTES", 1_000_000)

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 100_000)

    async with RpcClient(await fake_node(endless)) as rpc:
        with pytest.raises(RpcUnavailable, match="too large"):
            await rpc.chain_id()


@pytest.mark.parametrize("wrapped", [False, True])
async def test_a_refusal_carries_the_reason(fake_node: FakeNode, wrapped: bool) -> None:
    text = "not today"
    data = "0x08c379a0" + f"{32:064x}{len(text):064x}" + text.encode().hex().ljust(64, "0")
    error = {
        "code": 3,
        "message": "execution reverted",
        "data": {"data": data} if wrapped else data,
    }
    async with RpcClient(await fake_node(replying(error=error))) as rpc:
        with pytest.raises(RpcError) as caught:
            await rpc.eth_call(_ADDRESS, b"")
    assert (caught.value.rpc_code, caught.value.reason) == (3, "not today")
    assert caught.value.reverted


async def test_a_refusal_without_a_contract_is_no_revert(fake_node: FakeNode) -> None:
    error = {"code": -32000, "message": "x" * 10_000, "data": "junk"}
    async with RpcClient(await fake_node(replying(error=error))) as rpc:
        with pytest.raises(RpcError) as caught:
            await rpc.block_number()
    assert not caught.value.reverted
    assert caught.value.reason is None
    assert len(caught.value.detail) < 600


async def test_another_chain_is_refused(chain: Devnet, rpc: RpcClient) -> None:
    await rpc.verify_chain(chain.chain_id)
    with pytest.raises(ConfigError, match="Base Sepolia, not Base"):
        await rpc.verify_chain(8453)


@pytest.mark.parametrize(
    "change",
    [
        {"status": "yes"},
        {"blockHash": "0x12"},
        {"logs": None},
        {"logs": [{"address": _ADDRESS, "topics": [_HASH] * 5, "data": "0x"}]},
        {"logs": [{"address": "0x1", "topics": [], "data": "0x"}]},
        {"logs": [{"address": _ADDRESS, "topics": [], "data": "0xzz"}]},
        {"transactionHash": "0x" + "33" * 32},
    ],
)
async def test_a_receipt_of_nonsense_is_no_receipt(
    fake_node: FakeNode, change: dict[str, Any]
) -> None:
    good = {
        "transactionHash": _HASH,
        "status": "0x1",
        "blockNumber": "0x5",
        "blockHash": _HASH,
        "gasUsed": "0x5208",
        "effectiveGasPrice": "0x1",
        "logs": [],
    }
    async with RpcClient(await fake_node(replying(result=good))) as rpc:
        assert (await rpc.receipt(_HASH)) is not None
    async with RpcClient(await fake_node(replying(result={**good, "blockNumber": None}))) as rpc:
        assert await rpc.receipt(_HASH) is None
    async with RpcClient(await fake_node(replying(result={**good, **change}))) as rpc:
        with pytest.raises(RpcUnavailable):
            await rpc.receipt(_HASH)


async def test_a_client_may_be_closed_and_used_again(chain: Devnet) -> None:
    rpc = RpcClient(chain.url)
    number = await rpc.block_number()
    await rpc.close()
    assert await rpc.block_number() >= number
    await rpc.close()


def test_revert_reasons() -> None:
    assert revert_reason(b"") is None
    assert revert_reason(selector("ERC3009InvalidSignature()")) == "ERC3009InvalidSignature"
    assert revert_reason(b"\x12\x34\x56\x78" + bytes(32)) == "custom error 0x12345678"
    panic = bytes.fromhex("4e487b71") + (0x11).to_bytes(32)
    assert revert_reason(panic) == "panic 0x11 (arithmetic overflow)"
    huge = bytes.fromhex("08c379a0") + (32).to_bytes(32) + (2**255).to_bytes(32) + b"\xff" * 500
    assert len(revert_reason(huge) or "") <= 300
    assert json.dumps(revert_reason(huge))
