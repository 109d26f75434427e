"""The JSON-RPC methods: each takes the node and its parameters and returns JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from computeswarm.chain.devnet.pyevm import params
from computeswarm.chain.devnet.pyevm.evm import Failed, Rejected
from computeswarm.chain.devnet.pyevm.node import BASE_FEE, PRIORITY_FEE, Node, StoredLog
from computeswarm.chain.devnet.pyevm.render import (
    block_json,
    log_json,
    receipt_json,
    to_hex,
    tx_json,
)

Method = Callable[..., Any]

CLIENT_VERSION = "computeswarm-devnet/py-evm"
_MAX_FEE_BLOCKS = 1024
_MAX_LOGS = 20_000
_REASON = bytes.fromhex("08c379a0")


def chain_id(node: Node) -> str:
    return hex(node.machine.chain_id)


def net_version(node: Node) -> str:
    return str(node.machine.chain_id)


def client_version(_node: Node) -> str:
    return CLIENT_VERSION


def block_number(node: Node) -> str:
    return hex(node.head.header.block_number)


def gas_price(_node: Node) -> str:
    return hex(BASE_FEE + PRIORITY_FEE)


def priority_fee(_node: Node) -> str:
    return hex(PRIORITY_FEE)


def fee_history(
    node: Node, count: Any, newest: Any = "latest", percentiles: Any = None
) -> dict[str, Any]:
    last = params.header(node, newest).block_number
    wanted = min(params.quantity(count), _MAX_FEE_BLOCKS, last + 1)
    first = last + 1 - wanted
    history: dict[str, Any] = {
        "oldestBlock": hex(first),
        "baseFeePerGas": [hex(BASE_FEE)] * (wanted + 1),
        "gasUsedRatio": [
            block.header.gas_used / block.header.gas_limit
            for block in node.blocks[first : last + 1]
        ],
    }
    if percentiles is not None:
        if not isinstance(percentiles, list) or len(percentiles) > 100:
            raise params.invalid("expected at most 100 percentiles")
        history["reward"] = [[hex(PRIORITY_FEE)] * len(percentiles)] * wanted
    return history


def get_balance(node: Node, address: Any, block: Any = "latest") -> str:
    state = node.state_at(params.header(node, block))
    return hex(state.get_balance(params.address(address)))


def get_code(node: Node, address: Any, block: Any = "latest") -> str:
    return to_hex(node.state_at(params.header(node, block)).get_code(params.address(address)))


def get_storage(node: Node, address: Any, slot: Any, block: Any = "latest") -> str:
    state = node.state_at(params.header(node, block))
    return f"{state.get_storage(params.address(address), params.quantity(slot)):#066x}"


def transaction_count(node: Node, address: Any, block: Any = "latest") -> str:
    return hex(node.state_at(params.header(node, block)).get_nonce(params.address(address)))


def eth_call(node: Node, call: Any, block: Any = "latest", overrides: Any = None) -> str:
    if overrides:
        raise params.invalid("state overrides are not supported")
    wanted = params.call(call)
    output, _ = _run(lambda: node.machine.run(_free_state(node, block), wanted))
    return to_hex(output)


def estimate_gas(node: Node, call: Any, block: Any = "pending") -> str:
    wanted = params.call(call)
    return hex(_run(lambda: node.machine.estimate(_free_state(node, block), wanted)))


def send_raw(node: Node, raw: Any) -> str:
    try:
        return to_hex(node.send_raw(params.data(raw)))
    except Rejected as error:
        raise params.Fault(params.SERVER_ERROR, str(error)) from None


def transaction_by_hash(node: Node, tx_hash: Any) -> dict[str, Any] | None:
    wanted = params.tx_hash(tx_hash)
    number = node.block_of_tx.get(wanted)
    if number is not None:
        block = node.blocks[number]
        assert block.mined is not None
        return tx_json(block.mined.tx, block)
    pooled = node.pooled.get(wanted)
    return None if pooled is None else tx_json(pooled, None)


def transaction_receipt(node: Node, tx_hash: Any) -> dict[str, Any] | None:
    number = node.block_of_tx.get(params.tx_hash(tx_hash))
    if number is None:
        return None
    block = node.blocks[number]
    assert block.mined is not None
    return receipt_json(node, block, block.mined)


def block_receipts(node: Node, block: Any) -> list[dict[str, Any]] | None:
    found = params.block(node, block)
    if found is None:
        return None
    return [receipt_json(node, found, found.mined)] if found.mined else []


def block_by_number(node: Node, block: Any, full: Any = False) -> dict[str, Any] | None:
    found = params.block(node, block)
    return None if found is None else block_json(found, full=bool(full))


def block_by_hash(node: Node, block_hash: Any, full: Any = False) -> dict[str, Any] | None:
    return block_by_number(node, {"blockHash": block_hash}, full)


def get_logs(node: Node, wanted: Any) -> list[dict[str, Any]]:
    if not isinstance(wanted, dict):
        raise params.invalid("expected a filter object")
    if "blockHash" in wanted:
        first = last = params.header(node, {"blockHash": wanted["blockHash"]}).block_number
    else:
        first = _log_bound(node, wanted.get("fromBlock"))
        last = _log_bound(node, wanted.get("toBlock"))
    addresses = {params.address(one) for one in _as_list(wanted.get("address"))}
    topics = [
        {params.tx_hash(one) for one in _as_list(position)}
        for position in _as_list(wanted.get("topics"))
    ]
    found = [log for log in node.logs_between(first, last) if _matches(log, addresses, topics)]
    if len(found) > _MAX_LOGS:
        raise params.Fault(-32005, f"more than {_MAX_LOGS} results; ask for fewer blocks")
    return [log_json(node, log) for log in found]


def increase_time(node: Node, seconds: Any) -> str:
    return hex(node.increase_time(params.quantity(seconds, bits=40)))


def mine(node: Node, *_: Any) -> str:
    node.mine_empty()
    return "0x0"


def snapshot(node: Node) -> str:
    return hex(node.snapshot())


def revert(node: Node, number: Any) -> bool:
    return node.revert(params.quantity(number, bits=40))


def set_code(node: Node, address: Any, code: Any) -> None:
    node.set_state(params.address(address), code=params.data(code))


def set_balance(node: Node, address: Any, balance: Any) -> None:
    node.set_state(params.address(address), balance=params.quantity(balance))


def set_storage(node: Node, address: Any, slot: Any, value: Any) -> bool:
    change = (params.quantity(slot), params.quantity(value))
    node.set_state(params.address(address), slot=change)
    return True


METHODS: dict[str, Method] = {
    "web3_clientVersion": client_version,
    "net_version": net_version,
    "net_listening": lambda _node: True,
    "eth_syncing": lambda _node: False,
    "eth_accounts": lambda _node: [],
    "eth_chainId": chain_id,
    "eth_blockNumber": block_number,
    "eth_gasPrice": gas_price,
    "eth_maxPriorityFeePerGas": priority_fee,
    "eth_feeHistory": fee_history,
    "eth_getBalance": get_balance,
    "eth_getCode": get_code,
    "eth_getStorageAt": get_storage,
    "eth_getTransactionCount": transaction_count,
    "eth_call": eth_call,
    "eth_estimateGas": estimate_gas,
    "eth_sendRawTransaction": send_raw,
    "eth_getTransactionByHash": transaction_by_hash,
    "eth_getTransactionReceipt": transaction_receipt,
    "eth_getBlockReceipts": block_receipts,
    "eth_getBlockByNumber": block_by_number,
    "eth_getBlockByHash": block_by_hash,
    "eth_getLogs": get_logs,
    # anvil's names for what a developer does to his own chain
    "evm_increaseTime": increase_time,
    "evm_mine": mine,
    "evm_snapshot": snapshot,
    "evm_revert": revert,
    "anvil_setCode": set_code,
    "anvil_setBalance": set_balance,
    "anvil_setStorageAt": set_storage,
}


def _free_state(node: Node, block: Any) -> Any:
    """The state a call runs on: without a base fee, since a call offers none."""
    return node.state_at(params.header(node, block).copy(base_fee_per_gas=0))


def _run(run: Callable[[], Any]) -> Any:
    try:
        return run()
    except Rejected as error:
        raise params.Fault(params.SERVER_ERROR, str(error)) from None
    except Failed as error:
        if error.output is None:
            raise params.Fault(params.SERVER_ERROR, str(error)) from None
        message = "execution reverted"
        if error.output[:4] == _REASON and len(error.output) >= 68:
            size = int.from_bytes(error.output[36:68])
            message += ": " + error.output[68 : 68 + size].decode("utf-8", "replace")
        raise params.Fault(params.EXECUTION_REVERTED, message, to_hex(error.output)) from None


def _log_bound(node: Node, value: Any) -> int:
    if isinstance(value, str) and value.startswith("0x"):
        return params.quantity(value)
    return int(params.header(node, value).block_number)


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _matches(log: StoredLog, addresses: set[bytes], topics: list[set[bytes]]) -> bool:
    """EIP-1474: an empty set at a position accepts anything there."""
    if addresses and log.address not in addresses:
        return False
    if len(topics) > len(log.topics):
        return False
    return all(
        not accepted or topic in accepted
        for accepted, topic in zip(topics, log.topics, strict=False)
    )
