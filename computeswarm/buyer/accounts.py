"""The buyer's channels as the screens use them: what is locked where, and how it comes home."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from computeswarm.buyer.channels import (
    ChannelPurse,
    MoneyBack,
    check_refundable,
    find_channel,
    withdraw,
)
from computeswarm.buyer.funds import Funds
from computeswarm.buyer.http.seller import SellerClient
from computeswarm.buyer.journal import JobJournal
from computeswarm.buyer.purchase import access, check_view
from computeswarm.chain.sender import TxSender
from computeswarm.core.clock import Clock
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import ComputeSwarmError, ConfigError, Unavailable, WalletError
from computeswarm.core.states import JobState
from computeswarm.payments.channels.journal import ChannelJournal
from computeswarm.payments.channels.withdraw import OpenChannel, Withdrawals, known_channels
from computeswarm.payments.journal import PaymentJournal

_LOOK_SECONDS = 5.0
_WITHDRAWN = "The seller was gone; what he had not claimed of the deposit was taken back."


class ChannelAccounts:
    """Every channel of one wallet.

    Args:
        key: without it one can only look.
    """

    def __init__(
        self,
        payments: PaymentJournal,
        jobs: JobJournal,
        funds: Funds,
        key: PrivateKey | None,
        purse: ChannelPurse | None,
        seller: Callable[[str], SellerClient],
        clock: Clock,
    ) -> None:
        self._jobs = jobs
        self._purse = purse
        self._seller = seller
        self._withdrawals: Withdrawals | None = None
        self._journal = ChannelJournal(payments)
        if funds.rpc is not None and funds.channels is not None:
            sender = TxSender(funds.rpc, key, funds.chain.chain_id) if key else None
            self._withdrawals = Withdrawals(funds.channels, sender, self._journal, clock)

    async def look(self) -> list[OpenChannel]:
        """Every channel, newest first: as the chain has it, or was seen last where it is silent or
        not set."""
        chain = self._withdrawals
        if chain is None:
            return known_channels(self._journal)
        if self._journal.open():
            with suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    return await chain.refresh()
        return chain.known()

    async def sync(self) -> None:
        """Free what has come back for spending; if the chain is silent, later."""
        if self._withdrawals is not None:
            await self.look()

    def note_refund(self, channel_id: str, transaction: str) -> None:
        """Keep the transaction in which a seller says that he gave the rest back."""
        self._journal.note_refund(channel_id, transaction)

    async def refund(self, prefix: str) -> MoneyBack:
        """Have the seller give back the rest of a channel, by the start of its id or its job's.

        Raises:
            NotFound: none, or several.
            Conflict: its job runs, or nothing is left in it.
            SellerUnavailable, PaymentRequired: he doesn't; ``withdraw`` needs nobody.
        """
        if self._purse is None:
            raise WalletError("This needs the wallet; make one with `computeswarm wallet new`.")
        channel = find_channel(await self.look(), prefix)
        check_refundable(channel)
        record = self._jobs.get(channel.job_id)
        back = await self._purse.refund(channel, record, self._seller(record.endpoint))
        await self.sync()
        return back

    async def withdraw(self, prefix: str) -> MoneyBack:
        """Take back the rest of a channel without the seller: the first call announces it, and one
        after the channel's delay finishes it.

        Raises:
            NotFound: none, or several.
            Conflict: it is too early to finish it, or nothing is left in it.
            InsufficientFunds: no ETH for the gas.
            Unavailable: the chain doesn't answer, or refused.
        """
        channel = find_channel(await self.look(), prefix)
        check_refundable(channel)
        back = await withdraw(self._chain(), channel)
        if back.kind == "returned":
            await self._end_job(channel.job_id)
        return back

    async def _end_job(self, job_id: str) -> None:
        """A job without its deposit has ended: as its seller says, or lost where he is gone."""
        record = self._jobs.get(job_id)
        if record.view is None or record.state.terminal:
            return
        try:
            view = check_view(record, await self._seller(record.endpoint).job(access(record)))
        except ComputeSwarmError:
            lost = {"state": JobState.SELLER_LOST, "reason": _WITHDRAWN}
            view = record.view.model_copy(update=lost)
        self._jobs.see(view)

    def _chain(self) -> Withdrawals:
        if self._withdrawals is None:
            raise ConfigError("No chain is set; give --rpc or COMPUTESWARM_RPC its address.")
        return self._withdrawals
