"""One job as its seller keeps it."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from computeswarm.core.jobs import JobSpec, Payment, Phases
from computeswarm.core.quotes import Quote
from computeswarm.core.states import JobState

PAYMENTS_HELD = 20
"""Of a job with very many slices only the newest are looked at; the sums count them all."""


@dataclass(frozen=True, slots=True)
class Job:
    """One job as it is on disk. Money in atoms."""

    job_id: str
    authorization: str
    """``payer:nonce`` of the payment that bought it."""
    state: JobState
    spec: JobSpec
    quote: Quote
    buyer: str
    key_hash: str
    phases: Phases
    reason: str = ""
    exit_code: int | None = None
    metered_ms: int = 0
    cost: int = 0
    refund: int = 0
    refund_filed: bool = False
    outputs: str = ""
    """The list of outputs, as JSON; empty while there is none."""
    outputs_until: int | None = None
    bare: bool = False
    """Bought without a quote of ours: a channel that paid it is left open for more of that."""
    channel: str = ""
    """The id of the payment channel that pays it; empty where slices are settled one by one."""
    deposit: int = 0
    """What was put into that channel with the first slice, by the transaction ``deposit_tx``."""
    deposit_tx: str = ""
    slices_paid: int = 0
    paid: int = 0
    """Atoms settled so far, or vouched for on a channel."""
    payments: tuple[Payment, ...] = ()
    """The newest ``PAYMENTS_HELD`` settled slices; the ticks of a channel are only counted."""

    def opened_by(self, access_key: str) -> bool:
        """Whether this is the key that the buyer was given."""
        return hmac.compare_digest(key_digest(access_key), self.key_hash)


def key_digest(access_key: str) -> str:
    """What is kept of an access key."""
    return hashlib.sha256(access_key.encode("utf-8", "replace")).hexdigest()
