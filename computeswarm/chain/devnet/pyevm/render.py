"""Blocks, transactions, receipts and events as JSON-RPC spells them."""

from __future__ import annotations

from typing import Any

from eth.constants import EMPTY_UNCLE_HASH
from eth_bloom.bloom import BloomFilter

from computeswarm.chain.devnet.pyevm.node import BASE_FEE, Mined, Node, StoredBlock, StoredLog

Json = dict[str, Any]


def to_hex(data: bytes) -> str:
    """Bytes as 0x hex."""
    return "0x" + data.hex()


def block_json(block: StoredBlock, *, full: bool) -> Json:
    """A block, with whole transactions or their hashes."""
    header = block.header
    transactions: list[Any] = []
    if block.mined is not None:
        tx = block.mined.tx
        transactions = [tx_json(tx, block) if full else to_hex(tx.hash)]
    return {
        "number": hex(header.block_number),
        "hash": to_hex(header.hash),
        "parentHash": to_hex(header.parent_hash),
        "nonce": "0x0000000000000000",
        "sha3Uncles": to_hex(EMPTY_UNCLE_HASH),
        "logsBloom": f"{header.bloom:#0514x}",
        "transactionsRoot": to_hex(header.transaction_root),
        "stateRoot": to_hex(header.state_root),
        "receiptsRoot": to_hex(header.receipt_root),
        "miner": to_hex(header.coinbase),
        "difficulty": "0x0",
        "totalDifficulty": "0x0",
        "extraData": "0x",
        "mixHash": to_hex(header.mix_hash),
        "size": "0x400",
        "gasLimit": hex(header.gas_limit),
        "gasUsed": hex(header.gas_used),
        "timestamp": hex(header.timestamp),
        "baseFeePerGas": hex(header.base_fee_per_gas),
        "withdrawalsRoot": to_hex(header.withdrawals_root),
        "withdrawals": [],
        "blobGasUsed": "0x0",
        "excessBlobGas": "0x0",
        "parentBeaconBlockRoot": to_hex(header.parent_beacon_block_root),
        "requestsHash": to_hex(header.requests_hash),
        "transactions": transactions,
        "uncles": [],
    }


def tx_json(tx: Any, block: StoredBlock | None) -> Json:
    """A transaction; its block is None while it waits in the pool."""
    typed = tx.type_id is not None
    kind = tx.type_id or 0
    found: Json = {
        "hash": to_hex(tx.hash),
        "type": hex(kind),
        "chainId": hex(tx.chain_id),
        "nonce": hex(tx.nonce),
        "from": to_hex(tx.sender),
        "to": to_hex(tx.to) if tx.to else None,
        "value": hex(tx.value),
        "gas": hex(tx.gas),
        "input": to_hex(tx.data),
        "r": hex(tx.r),
        "s": hex(tx.s),
        "v": hex(tx.y_parity if typed else tx.v),
        "blockHash": to_hex(block.header.hash) if block else None,
        "blockNumber": hex(block.header.block_number) if block else None,
        "transactionIndex": "0x0" if block else None,
        "gasPrice": hex(min(tx.max_fee_per_gas, BASE_FEE + tx.max_priority_fee_per_gas)),
    }
    if typed:
        found["yParity"] = hex(tx.y_parity)
        found["accessList"] = [
            {"address": to_hex(address), "storageKeys": [f"{slot:#066x}" for slot in slots]}
            for address, slots in tx.access_list
        ]
    if kind >= 2:
        found["maxFeePerGas"] = hex(tx.max_fee_per_gas)
        found["maxPriorityFeePerGas"] = hex(tx.max_priority_fee_per_gas)
    if kind == 4:
        found["authorizationList"] = [
            {
                "chainId": hex(auth.chain_id),
                "address": to_hex(auth.address),
                "nonce": hex(auth.nonce),
                "yParity": hex(auth.y_parity),
                "r": hex(auth.r),
                "s": hex(auth.s),
            }
            for auth in tx.authorization_list
        ]
    return found


def receipt_json(node: Node, block: StoredBlock, mined: Mined) -> Json:
    """The receipt of a block's only transaction."""
    tx, outcome = mined.tx, mined.outcome
    logs = node.logs[mined.first_log : mined.first_log + len(outcome.logs)]
    bloom = block.header.bloom if logs else int(BloomFilter())
    return {
        "transactionHash": to_hex(tx.hash),
        "transactionIndex": "0x0",
        "blockHash": to_hex(block.header.hash),
        "blockNumber": hex(block.header.block_number),
        "from": to_hex(tx.sender),
        "to": to_hex(tx.to) if tx.to else None,
        "contractAddress": to_hex(outcome.contract) if outcome.contract else None,
        "type": hex(tx.type_id or 0),
        "status": "0x1" if outcome.succeeded else "0x0",
        "gasUsed": hex(outcome.gas_used),
        "cumulativeGasUsed": hex(outcome.gas_used),
        "effectiveGasPrice": hex(outcome.gas_price),
        "logsBloom": f"{bloom:#0514x}",
        "logs": [log_json(node, log) for log in logs],
    }


def log_json(node: Node, log: StoredLog) -> Json:
    """One event with its place in the chain."""
    block = node.blocks[log.block]
    assert block.mined is not None
    return {
        "address": to_hex(log.address),
        "topics": [to_hex(topic) for topic in log.topics],
        "data": to_hex(log.data),
        "blockNumber": hex(log.block),
        "blockHash": to_hex(block.header.hash),
        "blockTimestamp": hex(block.header.timestamp),
        "transactionHash": to_hex(block.mined.tx.hash),
        "transactionIndex": "0x0",
        "logIndex": hex(log.index),
        "removed": False,
    }
