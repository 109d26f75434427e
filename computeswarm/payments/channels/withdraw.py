"""Getting a deposit back: what stands in which channel, and the timed withdrawal.

A seller who is there gives the rest back himself. One who has vanished can't keep it: the buyer
announces a withdrawal, waits for the channel's delay, and takes what was not claimed meanwhile. He
pays the gas of these two transactions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from computeswarm.chain.batch_settlement import (
    BatchSettlement,
    finalize_withdraw_calldata,
    initiate_withdraw_calldata,
    withdrawal_initiated,
    withdrawal_proof,
)
from computeswarm.chain.batch_settlement import ChannelState as OnChain
from computeswarm.chain.errors import RpcError
from computeswarm.chain.sender import TxSender
from computeswarm.chain.wire import Receipt
from computeswarm.core.clock import Clock
from computeswarm.core.durations import format_duration
from computeswarm.core.errors import Conflict, InsufficientFunds, NotFound, Unavailable, WalletError
from computeswarm.core.text import clean_line
from computeswarm.payments.channels.journal import BuyerChannel, ChannelJournal, OwnTransaction
from computeswarm.payments.journal import Fate

_RECEIPT_SECONDS = 60.0
_BATCH = 40


@dataclass(frozen=True, slots=True)
class OpenChannel:
    """A channel of the buyer's; sums in atoms, ``withdraw_at`` in unix seconds.

    ``vouched`` is all that the seller may still take up to, ``reclaimable`` what comes back at
    least, ``withdraw_at`` when a withdrawal that was announced may be finished (None: none was).
    """

    channel_id: str
    job_id: str
    receiver: str
    url: str
    deposited: int
    vouched: int
    claimed: int
    returned: int
    reclaimable: int
    withdraw_at: int | None
    withdraw_delay: int
    state: str


class Withdrawals:
    """The buyer's own transactions on his channels.

    Args:
        sender: the paying wallet's account; it needs some ETH for gas. None where the key is not
            there: then one can only look.
    """

    def __init__(
        self,
        contract: BatchSettlement,
        sender: TxSender | None,
        journal: ChannelJournal,
        clock: Clock,
    ) -> None:
        self._contract = contract
        self._sender = sender
        self._journal = journal
        self._clock = clock

    def known(self) -> list[OpenChannel]:
        """Every channel as it was seen last, newest first."""
        return known_channels(self._journal)

    async def refresh(self) -> list[OpenChannel]:
        """Every channel as the chain has it now; what has come back is free to be spent again.

        Raises:
            ChainUnavailable: the chain doesn't answer.
        """
        self._journal.drop_void()
        channels = [
            channel
            for channel in self._journal.open()
            if channel.chain_id == self._contract.chain.chain_id
        ]
        for start in range(0, len(channels), _BATCH):
            chunk = channels[start : start + _BATCH]
            states = await self._contract.states([channel.channel_id for channel in chunk])
            for channel, state in zip(chunk, states, strict=True):
                await self._sync(channel, state)
        return self.known()

    async def initiate(self, channel_id: str) -> str:
        """Announce that all that is not claimed is to come back; the transaction's hash.

        Called again after a crash, it sees the same transaction through.

        Raises:
            NotFound: not a channel of ours, or nothing is in it.
            Conflict: announced already.
            InsufficientFunds: no ETH for the gas.
            Unavailable: the chain doesn't answer, or refused; try again.
        """
        channel = self._channel(channel_id)
        if (sent := self._journal.sent(channel.channel_id, "initiate")) is None:
            state = await self._look(channel)
            if state.withdraw_amount:
                raise Conflict("A withdrawal of this channel is announced already; wait for it.")
            if state.available <= 0:
                raise NotFound("Nothing is left in this channel.")
            data = initiate_withdraw_calldata(channel.config, state.available)
            sent = await self._begin(channel, "initiate", data)
        return await self._see_through(
            channel,
            sent,
            lambda receipt: _amount(withdrawal_initiated(receipt, channel.channel_id)),
        )

    async def finalize(self, channel_id: str) -> str:
        """Take back what was announced, once the delay is over; the transaction's hash.

        Called again after a crash, it sees the same transaction through.

        Raises:
            NotFound: not a channel of ours.
            Conflict: nothing was announced, or it is too early; ``extra['withdraw_at']`` says when.
            InsufficientFunds: no ETH for the gas.
            Unavailable: the chain doesn't answer, or refused; try again.
        """
        channel = self._channel(channel_id)
        if (sent := self._journal.sent(channel.channel_id, "finalize")) is None:
            state = await self._look(channel)
            if not state.withdraw_amount:
                raise Conflict("No withdrawal of this channel is announced; announce one first.")
            ready = state.withdraw_requested_at + channel.config.withdraw_delay
            if self._clock.now() < ready:
                left = format_duration(int(ready - self._clock.now()) + 1)
                raise Conflict(
                    f"The deposit can be taken back in {left}; try again then.",
                    withdraw_at=ready,
                )
            sent = await self._begin(
                channel, "finalize", finalize_withdraw_calldata(channel.config)
            )
        return await self._see_through(
            channel, sent, lambda receipt: withdrawal_proof(receipt, channel.channel_id)
        )

    def _channel(self, channel_id: str) -> BuyerChannel:
        channel = self._journal.find(channel_id)
        if channel is None:
            raise NotFound("There is no such channel; `computeswarm channels` lists yours.")
        return channel

    async def _look(self, channel: BuyerChannel) -> OnChain:
        state = await self._contract.state(channel.channel_id)
        await self._sync(channel, state)
        return state

    async def _sync(self, channel: BuyerChannel, state: OnChain) -> None:
        """Keep what the chain says.

        Neither money in a channel, which anybody may put there, nor a seller's word proves that a
        deposit landed: that its authorization was used does. Only then may an empty channel be one
        from which all came back.
        """
        deposits = self._journal.deposits(channel.channel_id)
        empty = state.balance <= state.total_claimed
        asked = {
            nonce: fate
            for nonce, fate in deposits.items()
            if nonce != channel.channel_id  # one that was found in the channel itself
            and (empty or fate in (Fate.OPEN, Fate.REFUSED))
        }
        landed = bool(deposits)
        for nonce, fate in asked.items():
            if await self._contract.deposited(channel.config.payer, nonce):
                self._journal.landed(nonce, fate)
            else:
                landed = False
        if asked and empty and landed:
            state = await self._contract.state(channel.channel_id)
        self._journal.sync(channel, state, self._clock.now(), landed=landed)

    async def _begin(self, channel: BuyerChannel, kind: str, data: bytes) -> OwnTransaction:
        sender = self._account()
        try:
            signed = await sender.prepare(self._contract.address, data)
        except RpcError as error:
            raise _refused(error) from None
        try:
            return self._journal.begin(channel.channel_id, kind, signed, self._clock.now())
        except BaseException:
            await sender.release(signed)
            raise

    def _account(self) -> TxSender:
        if self._sender is None:
            raise WalletError("A withdrawal needs the wallet; make one with `computeswarm wallet`.")
        return self._sender

    async def _see_through(
        self,
        channel: BuyerChannel,
        sent: OwnTransaction,
        moved: Callable[[Receipt], int | None],
    ) -> str:
        """Send it (again) and wait for its receipt; unknown stays unknown."""
        try:
            await self._account().broadcast(sent.signed)
        except RpcError as error:
            self._journal.end(sent, done=False)
            raise _refused(error) from None
        receipt = await self._account().wait_receipt(sent.signed.hash, timeout=_RECEIPT_SECONDS)
        amount = moved(receipt)
        self._journal.end(sent, done=amount is not None, amount=amount or 0)
        if amount is None:
            raise Unavailable("The withdrawal did not go through; look at the channel, try again.")
        await self._look(channel)
        return sent.signed.hash


def _amount(initiated: tuple[int, int] | None) -> int | None:
    return None if initiated is None else initiated[0]


def _refused(error: RpcError) -> Unavailable | InsufficientFunds:
    if "insufficient funds" in error.message.lower():
        return InsufficientFunds(
            "The wallet has too little ETH to pay for the gas of a withdrawal; send it some."
        )
    why = clean_line(error.reason or error.message, limit=120)
    return Unavailable(f"The chain refused the withdrawal ({why}); look at the channel, try again.")


def known_channels(journal: ChannelJournal) -> list[OpenChannel]:
    """Every channel as it was seen last, newest first; asks nobody."""
    return [_shown(channel) for channel in journal.all()]


def _shown(channel: BuyerChannel) -> OpenChannel:
    held = max(channel.balance - max(channel.vouched, channel.claimed), 0)
    closed = channel.state == "closed"
    return OpenChannel(
        channel_id=channel.channel_id,
        job_id=channel.job_id,
        receiver=channel.config.receiver,
        url=channel.url,
        deposited=channel.deposited,
        vouched=channel.vouched,
        claimed=channel.claimed,
        returned=max(0, channel.deposited - channel.balance) if channel.balance or closed else 0,
        reclaimable=0 if closed else held,
        withdraw_at=channel.withdraw_at or None,
        withdraw_delay=channel.config.withdraw_delay,
        state=str(channel.state),
    )
