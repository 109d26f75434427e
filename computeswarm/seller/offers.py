"""What is sold: the node's record, signed quotes, and which jobs can't be taken."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from computeswarm import __version__
from computeswarm.core.channels import SCHEME
from computeswarm.core.clock import Clock
from computeswarm.core.crypto import PrivateKey, same_address
from computeswarm.core.errors import BadRequest, QuoteExpired, Unprocessable
from computeswarm.core.jobs import OUTPUT_DIR, JobSpec
from computeswarm.core.money import format_usdc
from computeswarm.core.nodes import RECORD_KIND, Isolation, NodeRecord, node_id
from computeswarm.core.quotes import QUOTE_KIND, QUOTE_SECONDS, Quote, Scheme
from computeswarm.core.sessions import Enrolment, PendingSession, enrol
from computeswarm.core.signing import Signed
from computeswarm.seller.config import MIB, SellerConfig
from computeswarm.seller.inputs import uploaded_bytes
from computeswarm.seller.queue import priority_seconds
from computeswarm.seller.slots import fits

_NODE_JOB_MARGIN = 256 * MIB
_SET_FOR_JOBS = ("PYTHON", "GLIBC_TUNABLES", "BASH_ENV", "HOME", "PATH")
"""A variable of this name would be replaced without a word, as a secret must not."""
_RESERVED = ("COMPUTESWARM_", "LD_", "NVIDIA_", "CUDA_VISIBLE")


class Images(Protocol):
    """The names of what jobs may run in."""

    def names(self) -> tuple[str, ...]: ...

    def to_pull(self) -> tuple[str, ...]:
        """Those of them that a job would have to wait for."""
        ...


@dataclass
class Offers:
    """Prices, in atoms an hour, and limits of one node."""

    config: SellerConfig
    key: PrivateKey
    isolation: Isolation
    images: Images
    clock: Clock
    price_per_hour: int
    endpoint: str = ""
    expect: Callable[[JobSpec, int], tuple[int, int | None]] = lambda *_: (0, 0)
    """How many would stand before a job of that priority, and when it starts at the latest."""
    channels: bool = False
    """Jobs may be paid by a channel: set once the chain is known to have the contract."""
    secrets_key: str = ""
    """What buyers seal their jobs' secrets with."""
    _last_seq: int = 0

    @property
    def node_id(self) -> str:
        return node_id(self.key.address, self.config.name)

    def image_state(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What the record says of images."""
        return self.images.names(), self.images.to_pull()

    def enrol(
        self, market: str, *, above: int = 0, number: int | None = None
    ) -> tuple[Enrolment, PendingSession]:
        """What the market of that address is sent to list the node: see ``market_session.Sign``."""
        self._last_seq = max(self._last_seq, above)
        return enrol(self.key, self.record(number), market, self.clock.now())

    def record(self, number: int | None = None) -> Signed:
        """The node as it is now, signed, with a number higher than any before, or with this one."""
        config, now = self.config, self.clock.now()
        if number is None:
            number = self._last_seq = max(int(now * 1000), self._last_seq + 1)
        record = NodeRecord(
            wallet=self.key.address,
            name=config.name,
            endpoint=self.endpoint,
            hardware=config.hardware,
            isolation=self.isolation,
            price_per_hour=self.price_per_hour,
            slice_seconds=config.slice_seconds,
            max_job_seconds=config.max_job_seconds,
            images=self.images.names(),
            images_to_pull=self.images.to_pull(),
            region=config.region,
            network=config.network,
            secrets_key=self.secrets_key,
            version=__version__,
            seq=number,
            issued_at=int(now),
        )
        return Signed.make(self.key, RECORD_KIND, config.chain.chain_id, record)

    def quote(
        self, spec: JobSpec, scheme: Scheme = "exact", offer_per_hour: int | None = None
    ) -> Quote:
        """Terms for a job at the present price, or at the higher one that its buyer offers.

        Raises:
            Unprocessable: it can't run here, can't be paid so, or less than the price is offered.
        """
        self.check(spec)
        if offer_per_hour is not None and offer_per_hour < self.price_per_hour:
            raise Unprocessable(
                f"The price is {format_usdc(self.price_per_hour)} USDC an hour; offer at least "
                "that, or nothing.",
                allowed=self.price_per_hour,
            )
        return self.priced(spec, scheme, offer_per_hour)

    def priced(
        self, spec: JobSpec, scheme: Scheme = "exact", offer_per_hour: int | None = None
    ) -> Quote:
        """The same terms for a job that nobody has checked.

        Raises:
            Unprocessable: it can't be paid so.
        """
        ticks = scheme == SCHEME
        if ticks and not self.channels:
            raise Unprocessable("This node takes no payment channels; pay it by slices.")
        now = int(self.clock.now())
        chain, config = self.config.chain, self.config
        price = offer_per_hour or self.price_per_hour
        priority = priority_seconds(price, self.price_per_hour)
        waiting, starts_in = self.expect(spec, priority)
        closes = config.windows.closes_at(now) if config.evict_at_close else None
        return Quote(
            quote_id=f"qt-{secrets.token_hex(10)}",
            node_id=self.node_id,
            seller=self.key.address,
            spec_hash=spec.digest(),
            chain_id=chain.chain_id,
            asset=chain.usdc.address,
            pay_to=self.key.address,
            scheme=scheme,
            price_per_hour=price * max(1, spec.gpu_count),
            slice_seconds=self.config.tick_seconds if ticks else self.config.slice_seconds,
            max_seconds=spec.max_seconds,
            issued_at=now,
            expires_at=now + QUOTE_SECONDS,
            minimum_charge=config.minimum_charge,
            priority_seconds=priority,
            waiting=waiting,
            starts_in_seconds=starts_in,
            evicted_at=None if closes is None else int(closes),
            pause_seconds=self._pause_seconds(spec),
            pulls_image=spec.image in self.images.to_pull(),
            ask_seconds=config.ask_seconds if config.asks_owner else 0,
            keep_inputs_seconds=int(self.config.keep_inputs),
            keep_outputs_seconds=int(self.config.keep_outputs),
        )

    def _pause_seconds(self, spec: JobSpec) -> int:
        return self.config.pause_seconds if spec.gpu_count and self.config.pause_when_used else 0

    def sign(self, quote: Quote) -> Signed:
        """The offer as it is given out."""
        return Signed.make(self.key, QUOTE_KIND, self.config.chain.chain_id, quote)

    def open(self, signed: Signed, spec: JobSpec) -> Quote:
        """A quote of ours that comes back with its job, whatever its age.

        Raises:
            Unauthorized: we did not sign it.
            BadRequest: it is for another job.
        """
        quote = signed.open(QUOTE_KIND, Quote, wallet=self.key.address)
        ours = quote.chain_id == self.config.chain.chain_id and quote.node_id == self.node_id
        if not ours or not same_address(quote.pay_to, self.key.address):
            raise BadRequest("The quote is for another node; ask this one for a quote.")
        if quote.spec_hash != spec.digest():
            raise BadRequest("The quote is for another job; ask for a new quote.")
        return quote

    def check_fresh(self, quote: Quote) -> None:
        """Raises QuoteExpired: its time is over."""
        if quote.expires_at <= self.clock.now():
            raise QuoteExpired("The quote has expired; ask for a new one.")

    def check(self, spec: JobSpec) -> None:
        """Whether a job can ever run here.

        Raises:
            Unprocessable: says what is allowed.
        """
        self._check_sizes(spec)
        config, hardware = self.config, self.config.hardware
        names = self.images.names()
        if spec.image not in names:
            raise Unprocessable(
                f"There is no image {spec.image!r} here; use one of {', '.join(names)}.",
                images=list(names),
            )
        fitting = [gpu for gpu in hardware.gpus if fits(gpu, spec)]
        if spec.gpu_count > len(fitting):
            one = spec.model_copy(update={"gpu_count": 1})
            allowed = len(fitting) or min(1, sum(fits(gpu, one) for gpu in hardware.gpus))
            raise Unprocessable(
                f"This node has {allowed} GPUs of that size for one job; ask for no more.",
                allowed=allowed,
            )
        if spec.max_seconds > config.max_job_seconds:
            raise Unprocessable(
                f"Jobs run at most {config.max_job_seconds} s here; lower the time limit.",
                allowed=config.max_job_seconds,
            )
        if spec.network and not config.network:
            raise Unprocessable("Jobs have no network here; send the data as inputs.")
        if any(file.path == OUTPUT_DIR for file in spec.inputs):
            raise Unprocessable(f"{OUTPUT_DIR!r} is the folder for outputs; rename that input.")
        for name in (*spec.env, *spec.secrets):
            if name.startswith(_RESERVED):
                raise Unprocessable(f"The variable {name} is set by the seller; leave it out.")
        for name in spec.secrets:
            if name.startswith(_SET_FOR_JOBS):
                raise Unprocessable(f"{name} is set for every job; give the secret another name.")

    def _check_sizes(self, spec: JobSpec) -> None:
        hardware = self.config.hardware
        memory = max(_NODE_JOB_MARGIN, hardware.memory_bytes - _NODE_JOB_MARGIN)
        free = max(0, shutil.disk_usage(self.config.folder).free - _NODE_JOB_MARGIN)
        for what, asked, allowed in (
            ("memory", spec.memory_bytes, memory),
            ("disk", spec.disk_bytes, free),
            ("inputs", sum(file.size for file in spec.inputs), spec.disk_bytes),
            ("uploads", uploaded_bytes(spec), self.config.upload_bytes),
        ):
            if asked > allowed:
                raise Unprocessable(
                    f"The job asks for {asked // MIB} MiB of {what}; at most "
                    f"{allowed // MIB} MiB are possible here.",
                    allowed=allowed,
                )
