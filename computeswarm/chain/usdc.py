"""USDC on one chain: balances, EIP-3009 calls, and what proves that it was paid.

Calls are encoded by hand (see ``abi``). Function and event names are those of Circle's
FiatTokenV2_2.
"""

from __future__ import annotations

from dataclasses import dataclass

from computeswarm.chain.abi import (
    WORD,
    address_word,
    bytes32_word,
    bytes_tail,
    read_uint,
    selector,
    topic,
    topic_address,
    uint_word,
)
from computeswarm.chain.errors import RpcError, RpcUnavailable
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.wire import Block, Log, Receipt
from computeswarm.core.chains import ChainInfo
from computeswarm.core.crypto import recover_address, same_address

_BALANCE_OF = selector("balanceOf(address)")
_TRANSFER = selector("transfer(address,uint256)")
_AUTHORIZATION_STATE = selector("authorizationState(address,bytes32)")
_TYPES = "address,address,uint256,uint256,uint256,bytes32"
_TRANSFER_VRS = selector(f"transferWithAuthorization({_TYPES},uint8,bytes32,bytes32)")
_TRANSFER_BYTES = selector(f"transferWithAuthorization({_TYPES},bytes)")
_BYTES_OFFSET = uint_word(7 * WORD)  # six words and the offset itself precede the tail

TRANSFER_TOPIC = topic("Transfer(address,address,uint256)")
AUTHORIZATION_USED_TOPIC = topic("AuthorizationUsed(address,bytes32)")

_IS_VALID_SIGNATURE = selector("isValidSignature(bytes32,bytes)")
_ERC1271_MAGIC = _IS_VALID_SIGNATURE + bytes(28)


@dataclass(frozen=True, slots=True)
class Authorization:
    """An EIP-3009 transfer: ``value`` in atoms, times in Unix seconds, ``nonce`` 32-byte hex.

    USDC accepts it strictly between ``valid_after`` and ``valid_before``.
    """

    from_: str
    to: str
    value: int
    valid_after: int
    valid_before: int
    nonce: str


class Usdc:
    """The chain's pinned USDC contract, and no other."""

    def __init__(self, rpc: RpcClient, chain: ChainInfo) -> None:
        self._rpc = rpc
        self.chain = chain
        self.address = chain.usdc.address

    async def balance_of(self, address: str, *, block: str = "latest") -> int:
        """Atoms held by an account."""
        data = _BALANCE_OF + address_word(address)
        return self._uint(await self._rpc.eth_call(self.address, data, block=block))

    async def authorization_state(
        self, authorizer: str, nonce: str, *, block: str = "latest"
    ) -> bool:
        """Whether a nonce was used *or cancelled*: it never proves a payment."""
        data = _AUTHORIZATION_STATE + address_word(authorizer) + bytes32_word(nonce)
        return self._uint(await self._rpc.eth_call(self.address, data, block=block)) != 0

    async def head(self) -> Block:
        """The chain's latest block, whose time is what decides over a window."""
        return await self._rpc.head()

    async def simulate(self, data: bytes, *, sender: str, gas: int | None = None) -> None:
        """Run a call of the contract without a transaction, with ``gas`` units at most.

        Raises:
            RpcError: it would revert; ``reason`` says why.
        """
        await self._rpc.eth_call(self.address, data, sender=sender, gas=gas)

    async def is_valid_signature(self, signer: str, digest: bytes, signature: bytes) -> bool:
        """Whether the contract would take this signature, by its own rule.

        An account with code is asked itself (ERC-1271), an EIP-7702 delegation counting as code;
        one without has to be the recovered signer.

        Raises:
            RpcUnavailable: the chain doesn't say.
        """
        if not await self._rpc.code(signer):
            found = recover_address(digest, signature)
            return found is not None and same_address(found, signer)
        data = _IS_VALID_SIGNATURE + digest + uint_word(2 * WORD) + bytes_tail(signature)
        try:
            answer = await self._rpc.eth_call(signer, data)
        except RpcError:
            return False
        return answer[:WORD] == _ERC1271_MAGIC

    def _uint(self, answer: bytes) -> int:
        try:
            return read_uint(answer)
        except ValueError:
            raise RpcUnavailable(
                f"There is no USDC at {self.address} on this RPC; give --rpc the right address."
            ) from None

    def payment_proof(self, receipt: Receipt, authorization: Authorization) -> bool:
        """Whether a receipt proves that this authorization paid: a successful transaction in which
        the pinned token used this nonce *and* moved this value from payer to payee.

        The two events have to follow each other, as USDC writes them: one transaction may carry
        several payments, and no transfer may vouch for two of them.
        """
        if not receipt.succeeded:
            return False
        nonce = authorization.nonce.lower()
        for used, moved in zip(receipt.logs, receipt.logs[1:], strict=False):
            if (
                same_address(used.address, self.address)
                and len(used.topics) == 3
                and used.topics[0] == AUTHORIZATION_USED_TOPIC
                and same_address(topic_address(used.topics[1]), authorization.from_)
                and used.topics[2] == nonce
            ):
                return self._is_transfer(
                    moved, authorization.from_, authorization.to, authorization.value
                )
        return False

    def transfer_proof(self, receipt: Receipt, from_: str, to: str, value: int) -> bool:
        """Whether a successful receipt moved exactly ``value`` atoms of the pinned token."""
        return receipt.succeeded and any(
            self._is_transfer(log, from_, to, value) for log in receipt.logs
        )

    def _is_transfer(self, log: Log, from_: str, to: str, value: int) -> bool:
        return (
            same_address(log.address, self.address)
            and len(log.topics) == 3
            and log.topics[0] == TRANSFER_TOPIC
            and same_address(topic_address(log.topics[1]), from_)
            and same_address(topic_address(log.topics[2]), to)
            and log.data == uint_word(value)
        )


def transfer_calldata(to: str, value: int) -> bytes:
    """``transfer(to, value)``; atoms."""
    return _TRANSFER + address_word(to) + uint_word(value)


def authorization_calldata(authorization: Authorization, signature: bytes) -> bytes:
    """``transferWithAuthorization`` with the overload that fits the signature.

    65 bytes go as v, r, s, which every EIP-3009 token has; anything else is a contract wallet's
    and goes as bytes.
    """
    head = (
        address_word(authorization.from_)
        + address_word(authorization.to)
        + uint_word(authorization.value)
        + uint_word(authorization.valid_after)
        + uint_word(authorization.valid_before)
        + bytes32_word(authorization.nonce)
    )
    if len(signature) == 65:
        return _TRANSFER_VRS + head + uint_word(signature[64]) + signature[:64]
    return _TRANSFER_BYTES + head + _BYTES_OFFSET + bytes_tail(signature)
