"""Whether a wallet holds enough for all that it has signed and that is on its way to the chain.

Each of a hundred payments out of one balance would go through alone, so each passes its check; all
but one would then fail at our expense.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from computeswarm.chain.usdc import Usdc
from computeswarm.core.x402 import Reason
from computeswarm.payments.claims import Claim
from computeswarm.payments.present import refused

_UNASKED = 3
"""Payments of one wallet that may be on their way without its balance being looked at."""


class Cover:
    """The payments of each wallet that were verified and have no end yet."""

    def __init__(self, usdc: Usdc) -> None:
        self._usdc = usdc
        self._flying: dict[str, dict[int, int]] = {}

    @contextlib.contextmanager
    def holding(self, claim: Claim) -> Iterator[None]:
        """Count it as long as this lasts, or until it has ``landed``."""
        self._flying.setdefault(claim.payer.lower(), {})[claim.id] = claim.amount
        try:
            yield
        finally:
            self.landed(claim)

    def landed(self, claim: Claim) -> None:
        """Its sum has left the wallet."""
        payer = claim.payer.lower()
        flying = self._flying.get(payer, {})
        flying.pop(claim.id, None)
        if not flying:
            self._flying.pop(payer, None)

    async def check(self, claim: Claim) -> None:
        """Whether a claim that is held may be sent, beside the others.

        Raises:
            PaymentRequired: the wallet has too little for all of them.
            RpcUnavailable: the chain doesn't say.
        """
        flying = self._flying.get(claim.payer.lower(), {})
        if len(flying) <= _UNASKED:
            return
        owed = sum(flying.values())
        if await self._usdc.balance_of(claim.payer) < owed:
            raise refused(
                Reason.INSUFFICIENT_FUNDS,
                f"The wallet {claim.payer} has too little USDC for all the payments that it makes"
                " at once; top it up, or try again when the others are through.",
            )
