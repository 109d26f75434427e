"""What the settlement asks of a facilitator. None is believed: only the chain proves a payment."""

from __future__ import annotations

from typing import Protocol

from computeswarm.payments.claims import Claim
from computeswarm.payments.present import Presented
from computeswarm.payments.terms import Terms


class Facilitator(Protocol):
    """Verifies payments and submits them; ours (``own``) or a stranger's (``remote``)."""

    external: bool
    """Whether somebody else's key sends the transactions."""

    async def start(self) -> None:
        """See that it serves our chain and scheme.

        Raises:
            ConfigError: it surely doesn't.
        """

    async def close(self) -> None:
        """Let go of connections."""

    async def verify(self, claim: Claim, payment: Presented, terms: Terms) -> None:
        """Make sure that submitting the payment now would pay.

        Raises:
            PaymentRequired: it would not; ``extra['reason']`` is the standard's.
            Unavailable: it can't be settled now, or nobody says.
        """

    async def settle(self, claim: Claim, payment: Presented, terms: Terms) -> str:
        """Write down what is sent (the claim becomes BROADCAST), then send it.

        Returns the transaction that is said to bring it, '' where none is known; neither that nor
        a failure says anything about the payment's fate once the claim is BROADCAST.

        Raises:
            PaymentRequired, Unavailable: refused, surely; the claim is written down as failed.
        """

    async def again(self, claim: Claim) -> None:
        """Send what was written down once more; harmless where it has arrived already.

        Raises:
            RpcError, RpcUnavailable: it could not be sent.
        """

    async def anew(self, claim: Claim) -> None:
        """Submit the same authorization in another way, where the first can't be mined any more.

        Raises:
            RpcError, Unavailable: it could not be sent.
        """
