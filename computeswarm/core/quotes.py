"""The seller's signed offer for one job spec: price and terms, frozen for minutes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from computeswarm.core.errors import ConfigError
from computeswarm.core.ids import NodeIdText
from computeswarm.core.money import cost_atoms
from computeswarm.core.nodes import UNIX_SECONDS, Address, Atoms
from computeswarm.core.signing import Document, Signed

QUOTE_KIND = "quote"
QUOTE_SECONDS = 300
MAX_ASK_SECONDS = 3600
MIN_LEAD_SECONDS = 1.0
"""A tick needs an answer over the network before the one before it ends."""
MIN_GRACE_SECONDS = 4.0
"""A dropped connection or a slow disk must not end a job that pays by the second."""
Scheme = Literal["exact", "batch-settlement"]
"""How a job is paid: a transfer for each slice, or a voucher for each tick on one deposit."""
PAY_WORDS: dict[str, Scheme] = {"slices": "exact", "channel": "batch-settlement"}
"""What people call the schemes."""
SignedQuote = Annotated[Signed, Field(description="a statement of kind 'quote'")]


def scheme_of(word: str) -> Scheme:
    """The scheme that the setting ``pay`` (or ``--pay``) names.

    Raises:
        ConfigError: none of them.
    """
    try:
        return PAY_WORDS[word.strip().lower()]
    except KeyError:
        raise ConfigError(f"Jobs are paid by slices or by channel, not {word[:40]!r}.") from None


class Quote(Document):
    """Terms for the job spec with ``spec_hash``. All prices in atoms, for the whole job.

    The buyer sends the signed quote back with his job, so a seller who restarted still honours it.
    With the scheme ``batch-settlement`` a slice is a tick: seconds long, paid by a voucher.
    """

    quote_id: str = Field(pattern=r"^qt-[0-9a-f]{20}$")
    node_id: NodeIdText
    seller: Address
    spec_hash: str = Field(pattern=r"^0x[0-9a-f]{64}$")
    chain_id: int = Field(ge=1, lt=2**53)
    asset: Address
    pay_to: Address
    scheme: Scheme = "exact"
    price_per_hour: Atoms
    slice_seconds: int = Field(ge=1, le=3600)
    max_seconds: int = Field(ge=1, le=30 * 86400)
    issued_at: UNIX_SECONDS
    expires_at: UNIX_SECONDS
    keep_inputs_seconds: int = Field(default=0, ge=0, lt=2**53)
    """Uploaded inputs stay so long after their last use for further jobs of the same wallet, and
    then are removed; sooner where the seller needs the room."""
    keep_outputs_seconds: int = Field(default=0, ge=0, lt=2**53)
    """Outputs and log can be fetched so long after the end, and then are removed."""
    minimum_charge: Atoms = 0
    """What a job that was started costs at least, by whatever it ended but the seller's doing;
    never more than was paid."""
    priority_seconds: int = Field(default=0, ge=0, le=86400)
    """So much earlier than it came the job counts in the queue, for it pays more than is asked."""
    waiting: int = Field(default=0, ge=0, le=10**6)
    """Jobs that stood before it in the queue when this was made."""
    starts_in_seconds: int | None = Field(default=0, ge=0, lt=2**40)
    """At most, from then on, unless somebody who pays more comes; None where nobody can say."""
    evicted_at: UNIX_SECONDS | None = None
    """When the seller's hours end, if he ends then what still runs, with a full refund."""
    pulls_image: bool = False
    """The job's image has to be fetched before it starts, which is not metered."""
    pause_seconds: int = Field(default=0, ge=0, le=86400)
    """The seller may pause the job so long, at no cost, while he uses the GPU himself; longer, and
    all that was paid goes back. 0 where he never does."""
    ask_seconds: int = Field(default=0, ge=0, le=MAX_ASK_SECONDS)
    """The paid job waits for the owner's yes, so long at most; without it everything goes back. 0
    where nobody is asked."""

    def slice_length(self, index: int) -> int:
        """Seconds of slice ``index``; the last one is cut at the time limit."""
        return max(0, min(self.slice_seconds, self.max_seconds - index * self.slice_seconds))

    def slice_amount(self, index: int) -> int:
        """Atoms of slice ``index`` (0 is paid before the start): a pure function of the quote."""
        return cost_atoms(self.price_per_hour, self.slice_length(index))

    @property
    def lead_seconds(self) -> float:
        """How long before a slice ends its buyer pays the next: a quarter of it, at least a second.

        What a buyer has paid ahead, and so may lose, is a slice and its lead at most.
        """
        return max(self.slice_seconds / 4, min(self.slice_seconds, MIN_LEAD_SECONDS))

    @property
    def grace_seconds(self) -> float:
        """How long a job goes on unpaid: a quarter of a slice, at least four seconds but never
        more than two slices. It is the most that a seller may lose by a buyer who vanishes.
        """
        return max(self.slice_seconds / 4, min(2 * self.slice_seconds, MIN_GRACE_SECONDS))

    @property
    def slice_count(self) -> int:
        """Slices until the time limit."""
        return -(-self.max_seconds // self.slice_seconds)

    def paid_through(self, index: int) -> int:
        """Atoms of the slices 0 to ``index`` together: what a voucher for tick ``index`` is for."""
        return self.slice_amount(0) * index + self.slice_amount(index)

    @property
    def total_amount(self) -> int:
        """Atoms if the job runs to its time limit."""
        return self.paid_through(self.slice_count - 1)
