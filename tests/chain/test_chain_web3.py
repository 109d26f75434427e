"""web3.py, unmodified, takes the devnet for any other node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from computeswarm.chain.artifacts import load_artifact
from computeswarm.chain.devnet import Devnet
from computeswarm.core.crypto import PrivateKey

if TYPE_CHECKING:
    from web3 import Web3


@pytest.fixture
def w3(chain: Devnet) -> Web3:
    from eth_account import Account
    from web3 import Web3
    from web3.middleware import SignAndSendRawMiddlewareBuilder

    account = Account.from_key(chain.keys[5].secret)
    client = Web3(Web3.HTTPProvider(chain.url))
    client.middleware_onion.inject(SignAndSendRawMiddlewareBuilder.build(account), layer=0)
    client.eth.default_account = account.address
    return client


@pytest.fixture
def token(chain: Devnet, w3: Web3) -> Any:
    return w3.eth.contract(address=chain.usdc, abi=load_artifact("TestUSDC")["abi"])


def test_a_contract_is_called_and_paid_and_its_events_found(
    chain: Devnet, w3: Web3, token: Any
) -> None:
    from web3.exceptions import ContractLogicError

    assert w3.is_connected()
    assert w3.eth.chain_id == 84532
    assert token.functions.name().call() == "USDC"
    payee = PrivateKey.generate().address
    tx_hash = token.functions.transfer(payee, 25).transact()
    receipt = w3.eth.wait_for_transaction_receipt(tx_hash, timeout=30, poll_latency=0.01)
    assert receipt["status"] == 1
    assert token.functions.balanceOf(payee).call() == 25
    (event,) = token.events.Transfer().process_receipt(receipt)
    found = token.events.Transfer().get_logs(
        from_block=receipt["blockNumber"], argument_filters={"to": payee}
    )
    assert [dict(log["args"]) for log in found] == [
        {"from": chain.keys[5].address, "to": payee, "value": 25}
    ]
    assert found[0]["transactionHash"] == event["transactionHash"] == tx_hash
    with pytest.raises(ContractLogicError, match="exceeds balance"):
        token.functions.transfer(payee, 10**30).call()


def test_ether_blocks_and_fees(chain: Devnet, w3: Web3) -> None:
    payee = PrivateKey.generate().address
    tx_hash = w3.eth.send_transaction({"to": payee, "value": 123})
    receipt = w3.eth.wait_for_transaction_receipt(tx_hash, timeout=30, poll_latency=0.01)
    assert w3.eth.get_balance(payee) == 123
    assert w3.eth.get_transaction(tx_hash)["blockNumber"] == receipt["blockNumber"]
    block = w3.eth.get_block(receipt["blockNumber"], full_transactions=True)
    assert block["transactions"][0]["hash"] == tx_hash
    assert w3.eth.fee_history(1, "latest", [10.0])["baseFeePerGas"]
    with w3.batch_requests() as batch:
        batch.add(w3.eth.get_block("latest"))
        batch.add(w3.eth.get_block("safe"))
        latest, safe = batch.execute()
    assert latest["number"] >= safe["number"]


async def test_the_asynchronous_client_works_too(chain: Devnet) -> None:
    from web3 import AsyncHTTPProvider, AsyncWeb3

    client = AsyncWeb3(AsyncHTTPProvider(chain.url))
    token = client.eth.contract(address=chain.usdc, abi=load_artifact("TestUSDC")["abi"])
    assert await token.functions.balanceOf(chain.keys[4].address).call() > 0
    await client.provider.disconnect()
