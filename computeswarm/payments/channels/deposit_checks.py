"""What is asked of a deposit before anything is sent for it, and the name of what is wrong."""

from __future__ import annotations

import asyncio
import logging

from computeswarm.chain.batch_settlement import BatchSettlement, deposit_calldata
from computeswarm.chain.errors import RpcError
from computeswarm.chain.sender import TxSender
from computeswarm.chain.usdc import Usdc
from computeswarm.core.channels import DEPOSIT_COLLECTOR, receive_authorization_digest
from computeswarm.core.clock import Clock
from computeswarm.core.errors import PaymentRequired, Unavailable
from computeswarm.core.x402 import Reason
from computeswarm.payments.channels.present import DepositGiven, PresentedChannel
from computeswarm.payments.channels.reasons import ChannelReason
from computeswarm.payments.policy import GasPolicy
from computeswarm.payments.present import SETTLEMENT_MARGIN_SECONDS, refused

_log = logging.getLogger(__name__)

DEPOSIT_GAS = 400_000
"""The gas limit of every deposit: twice what one takes, the rest for a contract wallet's check of
its signature, whose code is a stranger's and runs at our expense."""


_USUAL_GAS = 300_000
"""What a channel costs us in all: its deposit, and the claim and refund that close it."""
_MOST_REVERTS, _REVERTS_SECONDS = 3, 3_600


class Reverts:
    """Whose deposits were mined of late, at our expense, and brought nothing: a contract wallet may
    say one thing to a simulation and another on the chain. Forgotten at the next start."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: list[tuple[float, str]] = []

    def note(self, payer: str) -> None:
        """One more."""
        self._seen.append((self._clock.now(), payer.lower()))

    def check(self, payer: str) -> None:
        """Raises PaymentRequired: too many within an hour."""
        since = self._clock.now() - _REVERTS_SECONDS
        self._seen = [(at, who) for at, who in self._seen if at > since]
        if sum(who == payer.lower() for _, who in self._seen) >= _MOST_REVERTS:
            raise refused(
                ChannelReason.DEPOSIT_FAILED,
                f"{_MOST_REVERTS} deposits of this wallet failed on the chain within an hour;"
                " pay from another wallet, or later.",
            )


class DepositChecks:
    """Asks one chain.

    Args:
        sender: the account that will submit the deposit.
        gas: what that may cost; None where gas costs nothing.
    """

    def __init__(
        self,
        contract: BatchSettlement,
        usdc: Usdc,
        sender: TxSender,
        clock: Clock,
        reverts: Reverts,
        gas: GasPolicy | None,
    ) -> None:
        self._contract = contract
        self._usdc = usdc
        self._sender = sender
        self._clock = clock
        self._reverts = reverts
        self._gas = gas

    async def check_cost(self, payer: str, amount: int) -> None:
        """Whether we pay for the gas of a deposit of ``amount`` atoms.

        Raises:
            PaymentRequired: too many of this payer's came to nothing.
            Unavailable: it is too small for what it costs now.
            RpcUnavailable: the chain doesn't say.
        """
        self._reverts.check(payer)
        if self._gas is None:
            return
        if self._gas.too_dear(_USUAL_GAS * await self._sender.gas_price(), amount):
            raise Unavailable(
                "Opening this channel would cost the seller more in network fees than he gives for"
                " it; deposit more, or try again when fees are lower."
            )

    def check_terms(self, given: DepositGiven, min_deposit: int, *, known: bool) -> None:
        """Sum and window, which need no chain.

        Args:
            known: it was presented before, so that it may be on the chain although its window is
                over.

        Raises:
            PaymentRequired: with the standard's reason.
        """
        if given.amount < min_deposit:
            raise refused(
                ChannelReason.DEPOSIT_BELOW_MINIMUM, f"Deposit at least {min_deposit} atoms."
            )
        if given.valid_after >= int(self._clock.now()):
            raise refused(
                ChannelReason.VALID_AFTER, "The deposit is not valid yet; check your clock."
            )
        if not known and self._is_late(given):
            raise _late()

    def _is_late(self, given: DepositGiven) -> bool:
        return given.valid_before < int(self._clock.now()) + SETTLEMENT_MARGIN_SECONDS

    async def failure(
        self, payment: PresentedChannel, given: DepositGiven
    ) -> PaymentRequired | None:
        """Why submitting it now would not pay; None where it would.

        One simulated call covers signature, balance, nonce, window, pause and blacklist, by the
        contracts' own rules; only where it fails are they asked one by one, for the reason.

        Raises:
            RpcUnavailable: the chain doesn't say.
        """
        if not self._is_late(given):
            try:
                await self._contract.simulate(
                    calldata(payment, given), sender=self._sender.address, gas=DEPOSIT_GAS
                )
            except RpcError as error:
                _log.info("a deposit would fail: %s", error.message)
            else:
                return None
        return await self._explain(payment, given)

    async def _explain(self, payment: PresentedChannel, given: DepositGiven) -> PaymentRequired:
        digest = receive_authorization_digest(
            self._usdc.chain,
            from_=payment.payer,
            to=DEPOSIT_COLLECTOR,
            value=given.amount,
            valid_after=given.valid_after,
            valid_before=given.valid_before,
            nonce=given.nonce,
        )
        signed, used, balance = await asyncio.gather(
            self._usdc.is_valid_signature(payment.payer, digest, given.signature),
            self._usdc.authorization_state(payment.payer, given.nonce),
            self._usdc.balance_of(payment.payer),
        )
        if not signed:
            return refused(
                ChannelReason.RECEIVE_SIGNATURE, "The deposit's signature is not the payer's."
            )
        if used:
            return refused(Reason.NONCE_USED, "The deposit was used or cancelled already.")
        if self._is_late(given):
            return _late()
        if balance < given.amount:
            return refused(
                ChannelReason.INSUFFICIENT_BALANCE,
                f"The wallet {payment.payer} has too little USDC; top it up and try again.",
            )
        return refused(
            ChannelReason.DEPOSIT_SIMULATION_FAILED, "The contract would refuse this deposit."
        )


def calldata(payment: PresentedChannel, given: DepositGiven) -> bytes:
    """The call that brings a deposit."""
    return deposit_calldata(
        payment.config,
        given.amount,
        valid_after=given.valid_after,
        valid_before=given.valid_before,
        salt=given.salt,
        signature=given.signature,
    )


def _late() -> PaymentRequired:
    return refused(ChannelReason.VALID_BEFORE, "The deposit is no longer valid; sign a new one.")
