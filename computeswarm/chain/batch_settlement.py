"""The settlement contract of x402's payment channels: its state, its calls, and their proofs.

Interface and events are those of ``x402BatchSettlement``. Calls are encoded by hand (see ``abi``).
All amounts are atoms, all times Unix seconds, channels go by their ids (``core.channels``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from computeswarm.chain.abi import (
    WORD,
    address_word,
    array_tail,
    bytes32_word,
    bytes_tail,
    read_bytes_array,
    read_uint,
    selector,
    topic,
    topic_address,
    uint_word,
)
from computeswarm.chain.errors import RpcUnavailable
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.usdc import Usdc
from computeswarm.chain.wire import Log, Receipt
from computeswarm.core.chains import ChainInfo
from computeswarm.core.channels import BATCH_SETTLEMENT, DEPOSIT_COLLECTOR, ChannelConfig
from computeswarm.core.crypto import same_address

_CONFIG = "(address,address,address,address,address,uint40,bytes32)"
_CLAIMS = f"(({_CONFIG},uint128),bytes,uint128)[]"
_DEPOSIT = selector(f"deposit({_CONFIG},uint128,address,bytes)")
_CLAIM = selector(f"claim({_CLAIMS})")
_CLAIM_WITH_SIGNATURE = selector(f"claimWithSignature({_CLAIMS},bytes)")
_SETTLE = selector("settle(address,address)")
_REFUND = selector(f"refund({_CONFIG},uint128)")
_REFUND_WITH_SIGNATURE = selector(f"refundWithSignature({_CONFIG},uint128,uint256,bytes)")
_INITIATE_WITHDRAW = selector(f"initiateWithdraw({_CONFIG},uint128)")
_FINALIZE_WITHDRAW = selector(f"finalizeWithdraw({_CONFIG})")
_MULTICALL = selector("multicall(bytes[])")
_CHANNELS = selector("channels(bytes32)")
_PENDING_WITHDRAWALS = selector("pendingWithdrawals(bytes32)")
_REFUND_NONCE = selector("refundNonce(bytes32)")
_RECEIVERS = selector("receivers(address,address)")
_GETTERS = (_CHANNELS, _PENDING_WITHDRAWALS, _REFUND_NONCE)

# In a claim, a deposit and a signed refund alike, ten words with this offset precede the tail.
_TAIL = uint_word(10 * WORD)

_DEPOSITED = topic("Deposited(bytes32,address,uint128,uint128)")
_CLAIMED = topic("Claimed(bytes32,address,uint128,uint128)")
_SETTLED = topic("Settled(address,address,address,uint128)")
_REFUNDED = topic("Refunded(bytes32,address,uint128)")
_WITHDRAW_INITIATED = topic("WithdrawInitiated(bytes32,uint128,uint40)")
_WITHDRAW_FINALIZED = topic("WithdrawFinalized(bytes32,address,uint128)")


@dataclass(frozen=True, slots=True)
class ChannelState:
    """A channel as the chain has it: ``balance`` is all that was deposited less what went back.

    ``refund_nonce`` is the next one a signed refund needs; ``withdraw_requested_at`` is 0 where the
    payer asked for nothing.
    """

    balance: int
    total_claimed: int
    withdraw_amount: int
    withdraw_requested_at: int
    refund_nonce: int

    @property
    def available(self) -> int:
        """What may still be claimed, refunded or withdrawn."""
        return self.balance - self.total_claimed


@dataclass(frozen=True, slots=True)
class VoucherClaim:
    """One row of a claim: a payer's voucher, and how much of it (``total_claimed``, cumulative)."""

    config: ChannelConfig
    max_claimable: int
    signature: bytes
    total_claimed: int


class BatchSettlement:
    """The settlement contract of one chain, at its canonical address."""

    address = BATCH_SETTLEMENT

    def __init__(self, rpc: RpcClient, chain: ChainInfo) -> None:
        self._rpc = rpc
        self.chain = chain

    async def deployed(self) -> bool:
        """Whether this chain has the contract and the collector of deposits at all."""
        return bool(await self._rpc.code(self.address) and await self._rpc.code(DEPOSIT_COLLECTOR))

    async def state(self, channel: str, *, block: str = "latest") -> ChannelState:
        """One channel; all zeros where nothing was ever deposited."""
        return (await self.states([channel], block=block))[0]

    async def states(self, channels: Sequence[str], *, block: str = "latest") -> list[ChannelState]:
        """Many channels as of one block, in one question.

        Raises:
            RpcUnavailable: no answer, or no such contract there.
        """
        calls = [getter + bytes32_word(name) for name in channels for getter in _GETTERS]
        answer = await self._rpc.eth_call(self.address, multicall_calldata(calls), block=block)
        try:
            words = b"".join(read_bytes_array(answer))
        except ValueError:
            words = b""
        if len(words) != len(channels) * 5 * WORD:
            raise self._absent()
        return [
            ChannelState(*(read_uint(words, 5 * row + column) for column in range(5)))
            for row in range(len(channels))
        ]

    async def receiver_totals(self, receiver: str, token: str) -> tuple[int, int]:
        """(claimed, settled) for a receiver, over all channels and times."""
        data = _RECEIVERS + address_word(receiver) + address_word(token)
        answer = await self._rpc.eth_call(self.address, data)
        try:
            return read_uint(answer), read_uint(answer, 1)
        except ValueError:
            raise self._absent() from None

    async def deposited(self, payer: str, nonce: str) -> bool:
        """Whether a deposit's authorization was used; its nonce ties it to one channel."""
        return await Usdc(self._rpc, self.chain).authorization_state(payer, nonce)

    async def simulate(self, data: bytes, *, sender: str, gas: int | None = None) -> None:
        """Run a call of the contract without a transaction, with ``gas`` units at most.

        Raises:
            RpcError: it would revert; ``reason`` says why.
        """
        await self._rpc.eth_call(self.address, data, sender=sender, gas=gas)

    def _absent(self) -> RpcUnavailable:
        return RpcUnavailable(
            f"There are no payment channels on {self.chain.title} by this RPC; pay by slices,"
            " or give --rpc another address."
        )


def deposit_calldata(
    config: ChannelConfig,
    amount: int,
    *,
    valid_after: int,
    valid_before: int,
    salt: int,
    signature: bytes,
) -> bytes:
    """``deposit`` by the EIP-3009 collector; ``signature`` is over ``channels.deposit_digest``."""
    collector_data = (
        uint_word(valid_after)
        + uint_word(valid_before)
        + uint_word(salt)
        + uint_word(4 * WORD)
        + bytes_tail(signature)
    )
    return (
        _DEPOSIT
        + _config_words(config)
        + uint_word(amount)
        + address_word(DEPOSIT_COLLECTOR)
        + _TAIL
        + bytes_tail(collector_data)
    )


def claim_calldata(claims: Sequence[VoucherClaim]) -> bytes:
    """``claim``, for the receiver's or the receiver authorizer's own transaction."""
    return _CLAIM + uint_word(WORD) + array_tail([_claim_row(claim) for claim in claims])


def claim_with_signature_calldata(claims: Sequence[VoucherClaim], signature: bytes) -> bytes:
    """``claimWithSignature``, for anybody's transaction; see ``channels.claim_batch_digest``."""
    rows = array_tail([_claim_row(claim) for claim in claims])
    offsets = uint_word(2 * WORD) + uint_word(2 * WORD + len(rows))
    return _CLAIM_WITH_SIGNATURE + offsets + rows + bytes_tail(signature)


def settle_calldata(receiver: str, token: str) -> bytes:
    """``settle``: all that was claimed for a receiver goes to him."""
    return _SETTLE + address_word(receiver) + address_word(token)


def refund_calldata(config: ChannelConfig, amount: int) -> bytes:
    """``refund`` of at most ``amount``, for the receiver's or his authorizer's own transaction."""
    return _REFUND + _config_words(config) + uint_word(amount)


def refund_with_signature_calldata(
    config: ChannelConfig, amount: int, nonce: int, signature: bytes
) -> bytes:
    """``refundWithSignature``, for anybody's transaction; see ``channels.refund_digest``."""
    head = _config_words(config) + uint_word(amount) + uint_word(nonce) + _TAIL
    return _REFUND_WITH_SIGNATURE + head + bytes_tail(signature)


def initiate_withdraw_calldata(config: ChannelConfig, amount: int) -> bytes:
    """``initiateWithdraw``, for the payer's own transaction: the channel's delay begins."""
    return _INITIATE_WITHDRAW + _config_words(config) + uint_word(amount)


def finalize_withdraw_calldata(config: ChannelConfig) -> bytes:
    """``finalizeWithdraw``, for the payer's own transaction after the channel's delay."""
    return _FINALIZE_WITHDRAW + _config_words(config)


def multicall_calldata(calls: Sequence[bytes]) -> bytes:
    """``multicall``: the contract's calls one after the other, all of one sender, or none."""
    return _MULTICALL + uint_word(WORD) + array_tail([bytes_tail(call) for call in calls])


def _config_words(config: ChannelConfig) -> bytes:
    return (
        address_word(config.payer)
        + address_word(config.payer_authorizer)
        + address_word(config.receiver)
        + address_word(config.receiver_authorizer)
        + address_word(config.token)
        + uint_word(config.withdraw_delay)
        + bytes32_word(config.salt)
    )


def _claim_row(claim: VoucherClaim) -> bytes:
    return (
        _config_words(claim.config)
        + uint_word(claim.max_claimable)
        + _TAIL
        + uint_word(claim.total_claimed)
        + bytes_tail(claim.signature)
    )


def deposit_proof(receipt: Receipt, channel: str, amount: int) -> bool:
    """Whether a transaction put exactly ``amount`` into a channel."""
    return any(read_uint(log.data) == amount for log in _events(receipt, _DEPOSITED, channel))


def claimed(receipt: Receipt, channel: str) -> int | None:
    """A channel's total claimed after a transaction; None where that added nothing to it."""
    totals = [read_uint(log.data, 1) for log in _events(receipt, _CLAIMED, channel)]
    return max(totals, default=None)


def settled_amount(receipt: Receipt, receiver: str, token: str) -> int:
    """What a transaction sent to a receiver of what was claimed for him; 0 for nothing."""
    return sum(
        read_uint(log.data)
        for log in _logs(receipt, _SETTLED, topics=4, words=1)
        if same_address(topic_address(log.topics[1]), receiver)
        and same_address(topic_address(log.topics[2]), token)
    )


def refund_proof(receipt: Receipt, channel: str) -> int | None:
    """What a transaction gave back to a channel's payer by refunds; None for nothing."""
    amounts = [read_uint(log.data) for log in _events(receipt, _REFUNDED, channel, words=1)]
    return sum(amounts) if amounts else None


def withdrawal_initiated(receipt: Receipt, channel: str) -> tuple[int, int] | None:
    """(amount, when it may be finalized) of the withdrawal that a transaction began."""
    for log in _events(receipt, _WITHDRAW_INITIATED, channel, topics=2):
        return read_uint(log.data), read_uint(log.data, 1)
    return None


def withdrawal_proof(receipt: Receipt, channel: str) -> int | None:
    """What a finalized withdrawal paid to the channel's payer, which may be 0; None without one."""
    for log in _events(receipt, _WITHDRAW_FINALIZED, channel, words=1):
        return read_uint(log.data)
    return None


def _events(
    receipt: Receipt, kind: str, channel: str, *, topics: int = 3, words: int = 2
) -> Iterator[Log]:
    wanted = channel.lower()
    return (log for log in _logs(receipt, kind, topics, words) if log.topics[1] == wanted)


def _logs(receipt: Receipt, kind: str, topics: int, words: int) -> Iterator[Log]:
    """The pinned contract's events of one kind, and only where the transaction succeeded."""
    return (
        log
        for log in receipt.logs
        if receipt.succeeded
        and same_address(log.address, BATCH_SETTLEMENT)
        and len(log.topics) == topics
        and log.topics[0] == kind
        and len(log.data) == words * WORD
    )
