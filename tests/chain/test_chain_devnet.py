"""The devnet is a chain like any other, and keeps out of the traps of local chains."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from chain_engines import ENGINES
from eth_account import Account

from computeswarm.chain.abi import revert_reason
from computeswarm.chain.devnet import Devnet, find_anvil, start_devnet
from computeswarm.chain.errors import RpcError
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.usdc import Usdc, transfer_calldata
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import ChainUnavailable, ConfigError, PortInUse

_GAS = 80_000
_CHAIN_ID = 84532
# TIMESTAMP PUSH0 MSTORE PUSH1 32 PUSH0 RETURN, run as creation code: returns the block's time
_TELL_TIME = "0x425f5260205ff3"
# an endless loop: JUMPDEST PUSH0 JUMP
_LOOP = "0x5b5f56"


async def test_time_receipts_and_events_stay_right_and_fast_after_400_blocks(
    chain: Devnet, rpc: RpcClient, sender: TxSender
) -> None:
    first = await rpc.block_number()
    payee = PrivateKey.generate().address
    for _ in range(400):
        tx = await sender.prepare(chain.usdc, transfer_calldata(payee, 1), gas=_GAS)
        await sender.broadcast(tx)
        receipt = await sender.wait_receipt(tx.hash)
        assert receipt.succeeded
    head = await rpc.head()
    assert head.number >= first + 400
    assert abs(head.timestamp - time.time()) < 2
    started = time.perf_counter()
    wanted = {"fromBlock": hex(first), "toBlock": "latest", "address": chain.usdc}
    topics = [None, None, "0x" + payee[2:].lower().rjust(64, "0")]
    logs = await rpc.call("eth_getLogs", [{**wanted, "topics": topics}])
    logs_took = time.perf_counter() - started
    assert len(logs) == 400
    started = time.perf_counter()
    again = await rpc.receipt(tx.hash)
    receipt_took = time.perf_counter() - started
    assert again == receipt
    # measured 5 ms and 0.5 ms; a scan of the history took 29 s
    assert logs_took < 2
    assert receipt_took < 0.5


async def test_a_call_on_an_idle_chain_sees_the_present(rpc: RpcClient) -> None:
    started = time.time()
    first = await rpc.block_number()
    while time.time() < started + 5:
        answer = await rpc.call("eth_call", [{"data": _TELL_TIME}, "latest"])
        assert abs(int(answer, 16) - time.time()) < 4, "block time and a slow machine"
        await asyncio.sleep(0.5)
    assert await rpc.block_number() > first


async def test_reverts_carry_their_data(chain: Devnet, rpc: RpcClient) -> None:
    data = transfer_calldata(chain.keys[1].address, 10**30)
    call = {"from": chain.keys[0].address, "to": chain.usdc, "data": "0x" + data.hex()}
    for method, params in (("eth_call", [call, "latest"]), ("eth_estimateGas", [call])):
        reply = await _post(
            chain.url, {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
        )
        assert reply["id"] == 7
        error = reply["error"]
        assert error["code"] == 3
        assert error["message"] == "execution reverted: ERC20: transfer amount exceeds balance"
        assert revert_reason(bytes.fromhex(error["data"][2:])) == (
            "ERC20: transfer amount exceeds balance"
        )


async def test_code_that_breaks_down_is_an_error_without_data(rpc: RpcClient) -> None:
    with pytest.raises(RpcError) as caught:
        await rpc.call("eth_call", [{"data": _LOOP, "gas": hex(200_000)}, "latest"])
    assert caught.value.data is None
    assert caught.value.rpc_code != 3


async def test_an_estimate_is_enough_gas_and_not_much_more(
    chain: Devnet, rpc: RpcClient, sender: TxSender
) -> None:
    data = transfer_calldata(PrivateKey.generate().address, 1)
    estimate = await rpc.estimate_gas(chain.usdc, data, sender=sender.address)
    tx = await sender.prepare(chain.usdc, data, gas=estimate)
    await sender.broadcast(tx)
    receipt = await sender.wait_receipt(tx.hash)
    assert receipt.succeeded
    assert receipt.gas_used <= estimate <= receipt.gas_used * 1.1


async def test_legacy_access_list_and_delegation_transactions(
    chain: Devnet, rpc: RpcClient
) -> None:
    account = Account.from_key(chain.keys[3].secret)
    nonce = await rpc.nonce(account.address)
    to = PrivateKey.generate().address
    base = {"chainId": _CHAIN_ID, "to": to, "value": 5, "gas": 60_000, "data": b""}
    price = {"gasPrice": 2 * 10**9}
    fees = {"maxFeePerGas": 3 * 10**9, "maxPriorityFeePerGas": 10**9}
    access = {"accessList": [{"address": to, "storageKeys": ["0x" + "00" * 32]}]}
    delegate = account.sign_authorization(
        {"chainId": _CHAIN_ID, "address": chain.usdc, "nonce": nonce + 4}
    )
    for index, (kind, extra) in enumerate(
        (
            ("0x0", price),
            ("0x1", price | access),
            ("0x2", fees | access),
            ("0x4", fees | {"authorizationList": [delegate]}),
        )
    ):
        signed = account.sign_transaction({**base, **extra, "nonce": nonce + index})
        tx_hash = await rpc.send_raw(signed.raw_transaction)
        receipt = await _receipt(rpc, tx_hash)
        assert receipt["status"] == "0x1"
        assert receipt["type"] == kind
        found = await rpc.call("eth_getTransactionByHash", [tx_hash])
        assert found["type"] == kind
        assert int(found["nonce"], 16) == nonce + index
        assert found["from"].lower() == account.address.lower()
    assert await rpc.native_balance(to) == 20
    assert await rpc.code(account.address) == bytes.fromhex("ef0100" + chain.usdc[2:])


async def test_a_contract_is_created_where_the_receipt_says(chain: Devnet, rpc: RpcClient) -> None:
    account = Account.from_key(chain.keys[3].secret)
    runtime = "5f5ff3"
    fields = {
        "chainId": _CHAIN_ID,
        "nonce": await rpc.nonce(account.address),
        "data": "0x62" + runtime + "5f5260036029f3".replace("6029", "601d"),
        "value": 0,
        "gas": 100_000,
        "maxFeePerGas": 3 * 10**9,
        "maxPriorityFeePerGas": 10**9,
    }
    tx_hash = await rpc.send_raw(account.sign_transaction(fields).raw_transaction)
    receipt = await _receipt(rpc, tx_hash)
    assert receipt["to"] is None
    assert await rpc.code(receipt["contractAddress"]) == bytes.fromhex(runtime)


async def test_what_a_pool_refuses(chain: Devnet, rpc: RpcClient, sender: TxSender) -> None:
    data = transfer_calldata(chain.keys[1].address, 1)
    tx = await sender.prepare(chain.usdc, data, gas=_GAS)
    await sender.broadcast(tx)
    await sender.wait_receipt(tx.hash)
    assert await rpc.send_raw(tx.raw) == tx.hash, "known bytes are accepted again"
    pauper = TxSender(rpc, PrivateKey.generate(), chain.chain_id)
    poor = await pauper.prepare(chain.usdc, data, gas=_GAS)
    elsewhere = await TxSender(rpc, chain.keys[0], 1).prepare(chain.usdc, data, gas=_GAS)
    for raw, words in (
        (poor.raw, "funds"),
        (elsewhere.raw, "chain id"),
        (tx.raw[:-1], ""),
        (b"\x02\xff", ""),
    ):
        with pytest.raises(RpcError) as caught:
            await rpc.send_raw(raw)
        assert words in caught.value.message.lower()


async def test_a_nonce_that_came_too_early_waits_and_is_found_meanwhile(
    chain: Devnet, rpc: RpcClient, sender: TxSender
) -> None:
    data = transfer_calldata(chain.keys[1].address, 1)
    first = await sender.prepare(chain.usdc, data, gas=_GAS)
    second = await sender.prepare(chain.usdc, data, gas=_GAS)
    await sender.broadcast(second)
    waiting = await rpc.call("eth_getTransactionByHash", [second.hash])
    assert waiting["blockNumber"] is None
    assert await rpc.receipt(second.hash) is None
    await sender.broadcast(second)
    await sender.broadcast(first)
    assert (await sender.wait_receipt(second.hash)).succeeded
    assert await rpc.nonce(sender.address) == second.nonce + 1


async def test_blocks_by_tag_number_and_hash(
    chain: Devnet, rpc: RpcClient, sender: TxSender
) -> None:
    before = await rpc.block_number()
    owned = int(await rpc.call("eth_getBalance", [sender.address, hex(before)]), 16)
    tx = await sender.prepare(chain.keys[1].address, value=10**18, gas=21_000)
    await sender.broadcast(tx)
    receipt = await sender.wait_receipt(tx.hash)
    block = await rpc.call("eth_getBlockByHash", [receipt.block_hash, True])
    assert block["transactions"][0]["hash"] == tx.hash
    number = hex(receipt.block_number)
    assert (await rpc.call("eth_getBlockByNumber", [number, False]))["transactions"] == [tx.hash]
    assert (await rpc.call("eth_getBlockReceipts", [number]))[0]["transactionHash"] == tx.hash
    assert await rpc.call("eth_getBlockByNumber", ["0xffffff", False]) is None
    pending = await rpc.call("eth_getBlockByNumber", ["pending", False])
    assert int(pending["number"], 16) > receipt.block_number
    assert (await rpc.head("earliest")).number == 0
    # the past stays readable
    assert int(await rpc.call("eth_getBalance", [sender.address, hex(before)]), 16) == owned
    assert await rpc.native_balance(sender.address) < owned - 10**18
    deadline = time.monotonic() + 60
    while (await rpc.head("safe")).number < receipt.block_number:
        assert time.monotonic() < deadline, "the safe block follows within a few block times"
        await asyncio.sleep(0.2)
    assert (await rpc.head("finalized")).number <= (await rpc.head("safe")).number


async def test_fees_and_the_rest_of_the_standard(chain: Devnet, rpc: RpcClient) -> None:
    assert await rpc.chain_id() == _CHAIN_ID
    assert await rpc.call("net_version") == str(_CHAIN_ID)
    assert chain.engine in await rpc.call("web3_clientVersion")
    max_fee, priority = await rpc.fees()
    assert max_fee >= priority > 0
    assert int(await rpc.call("eth_gasPrice"), 16) > 0
    history = await rpc.call("eth_feeHistory", ["0x2", "latest", [50]])
    assert len(history["baseFeePerGas"]) == 3
    assert len(history["reward"]) == 2
    assert len(history["gasUsedRatio"]) == 2
    assert len(await rpc.code(chain.usdc)) > 1000
    assert int(await rpc.call("eth_getStorageAt", [chain.usdc, "0x2", "latest"]), 16) > 0
    assert await rpc.call("eth_syncing") is False


async def test_batches_and_malformed_requests(chain: Devnet) -> None:
    asked = [
        {"jsonrpc": "2.0", "id": "a", "method": "eth_chainId", "params": []},
        {"jsonrpc": "2.0", "id": 2, "method": "no_such_method"},
        {"jsonrpc": "2.0", "id": 3, "method": "eth_getBalance", "params": ["0x12", "latest"]},
        {"id": 4},
    ]
    replies = {reply["id"]: reply for reply in await _post(chain.url, asked)}
    assert int(replies["a"]["result"], 16) == _CHAIN_ID
    assert replies[2]["error"]["code"] == -32601
    assert replies[3]["error"]["code"] == -32602
    assert replies[4]["error"]["code"] == -32600
    for body in (b"{", b"\xff\xfe", b"[" * 900_000, b"[]", b"5"):
        reply = await _post(chain.url, body)
        assert reply["error"]["code"] in (-32700, -32600), body[:10]


async def test_a_huge_body_is_refused(chain: Devnet) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            chain.url, data=b"[" + b" " * 4_000_000, headers={"Content-Type": "application/json"}
        ) as response,
    ):
        assert response.status == 413 or "error" in json.loads(await response.read())


async def test_funding_gives_exactly_that(chain: Devnet, rpc: RpcClient, usdc: Usdc) -> None:
    address = PrivateKey.generate().address
    await chain.fund(address, wei=7, usdc_atoms=11)
    await chain.fund(address, usdc_atoms=1)
    assert await rpc.native_balance(address) == 7
    assert await usdc.balance_of(address) == 12
    for key in chain.keys[4:]:
        assert await usdc.balance_of(key.address) >= 1000 * 10**6
        assert await rpc.native_balance(key.address) >= 10**18


@pytest.mark.parametrize("engine", ENGINES)
async def test_its_clock_can_be_moved_and_more_accounts_funded(engine: Any) -> None:
    friend = PrivateKey.generate().address
    async with (
        await start_devnet(engine=engine, accounts=[friend]) as devnet,
        RpcClient(devnet.url) as rpc,
    ):
        assert await rpc.native_balance(friend) > 0
        await devnet.advance_time(100_000)
        assert abs((await rpc.head()).timestamp - 100_000 - time.time()) < 4


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_taken_port_and_a_public_address_are_refused(chain: Devnet, engine: Any) -> None:
    port = int(chain.url.rpartition(":")[2])
    with pytest.raises(PortInUse, match=str(port)) as caught:
        await start_devnet(engine=engine, port=port)
    assert caught.value.exit_code == 125
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1"):
        await start_devnet(engine=engine, host="0.0.0.0")


_PARENT = """
import sys, uvloop, asyncio
from computeswarm.chain.devnet import start_devnet
async def main():
    devnet = await start_devnet(engine=sys.argv[1])
    print(devnet.pid, flush=True)
    await asyncio.sleep(600)
uvloop.run(main())
"""


@pytest.mark.parametrize("engine", ENGINES)
async def test_no_engine_survives_a_parent_that_was_killed(engine: str) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PARENT, engine, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    child = int(await asyncio.wait_for(parent.stdout.readline(), 60))
    assert _alive(child)
    assert os.getpgid(child) != os.getpgid(parent.pid), "a Ctrl+C must not reach the chain"
    parent.send_signal(signal.SIGKILL)
    await parent.wait()
    deadline = time.monotonic() + 30
    while _alive(child):
        assert time.monotonic() < deadline, "the engine is an orphan"
        await asyncio.sleep(0.05)


def _alive(pid: int) -> bool:
    """Whether a process runs; a zombie waiting for its reaper does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def _post(url: str, document: Any) -> Any:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=body, headers={"Content-Type": "application/json"}) as response,
    ):
        return json.loads(await response.read())


async def _receipt(rpc: RpcClient, tx_hash: str) -> Any:
    deadline = time.monotonic() + 30
    while (found := await rpc.call("eth_getTransactionReceipt", [tx_hash])) is None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)
    return found


def test_anvil_is_a_binary_and_never_npms_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, binary = tmp_path / "script/anvil", tmp_path / "binary/anvil"
    for path, content in ((script, b"#!/usr/bin/env node\n"), (binary, b"\x7fELF")):
        path.parent.mkdir()
        path.write_bytes(content)
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent))
    assert find_anvil() != script
    monkeypatch.setenv("PATH", str(binary.parent))
    assert find_anvil() == binary
    monkeypatch.setenv("COMPUTESWARM_ANVIL", str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="COMPUTESWARM_ANVIL"):
        find_anvil()


async def test_an_engine_that_ends_at_once_is_said_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "anvil"
    broken.write_bytes(Path("/bin/false").read_bytes())
    broken.chmod(0o755)
    monkeypatch.setenv("COMPUTESWARM_ANVIL", str(broken))
    with pytest.raises(ChainUnavailable, match="ended at once"):
        await start_devnet(engine="anvil")


async def test_a_snapshot_takes_back_what_followed_and_the_same_bytes_are_mined_again(
    chain: Devnet, rpc: RpcClient, sender: TxSender
) -> None:
    usdc, payee = Usdc(rpc, BASE_SEPOLIA), PrivateKey.generate().address
    kept = await sender.prepare(chain.usdc, transfer_calldata(payee, 1), gas=_GAS)
    await sender.broadcast(kept)
    await sender.wait_receipt(kept.hash)
    head = await rpc.block_number()
    snapshot = await rpc.call("evm_snapshot")
    lost = await sender.prepare(chain.usdc, transfer_calldata(payee, 2), gas=_GAS)
    await sender.broadcast(lost)
    await sender.wait_receipt(lost.hash)
    assert await rpc.call("evm_revert", [snapshot]) is True
    assert await rpc.call("evm_revert", [snapshot]) is False
    assert await usdc.balance_of(payee) == 1
    assert await rpc.receipt(lost.hash) is None and await rpc.receipt(kept.hash) is not None
    assert await rpc.nonce(sender.address) == lost.nonce
    wanted = {"fromBlock": hex(head), "toBlock": "latest", "address": chain.usdc}
    assert len(await rpc.call("eth_getLogs", [wanted])) == 1
    await rpc.send_raw(lost.raw)
    await sender.wait_receipt(lost.hash)
    assert await usdc.balance_of(payee) == 3
    assert len(await rpc.call("eth_getLogs", [wanted])) == 2
