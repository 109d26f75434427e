"""A job: what the buyer asks for, what the seller says of it, and what the market keeps."""

from __future__ import annotations

import base64
import binascii
import hashlib
import posixpath
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from computeswarm.core.crypto import keccak256
from computeswarm.core.ids import JobIdText, NodeIdText, new_secret
from computeswarm.core.nodes import UNIX_SECONDS, Address, Atoms, ByteCount, Label
from computeswarm.core.quotes import Scheme, SignedQuote
from computeswarm.core.sealing import MAX_SEALED_CHARS, MAX_SECRETS
from computeswarm.core.signing import Document, canonical_json
from computeswarm.core.states import JobState
from computeswarm.core.x402 import PaymentProof

SUBMISSION_KIND = "job-submission"
MAX_INLINE_FILE_BYTES = 256 * 1024
MAX_INLINE_BYTES = 1024 * 1024
MAX_INPUT_FILES = 1_000
MAX_INPUT_BYTES = 64 * 2**30
MAX_COMMAND_BYTES = 64 * 1024
OUTPUT_DIR = "outputs"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def safe_relative_path(path: str) -> str:
    """A path that stays below its folder, in one spelling.

    Raises:
        ValueError: absolute, with ``..`` or empty parts, a backslash, a NUL or another control
            character, longer than 400 bytes, or deeper than 32 folders.
    """
    if not path or len(path.encode("utf-8", "replace")) > 400:
        raise ValueError("a path has 1 to 400 bytes")
    if path.startswith("/") or "\\" in path or any(ord(c) < 32 or ord(c) == 127 for c in path):
        raise ValueError("a path is relative, with / between its parts")
    parts = path.split("/")
    if len(parts) > 32 or any(part in ("", ".", "..") for part in parts):
        raise ValueError("a path has no empty, '.' or '..' parts")
    if any(0xD800 <= ord(c) <= 0xDFFF for c in path):
        raise ValueError("a path is valid UTF-8")
    return posixpath.join(*parts)


RelativePath = Annotated[str, AfterValidator(safe_relative_path)]


def _env_name(name: str) -> str:
    if not name.isascii() or not name.replace("_", "a").isalnum() or name[0].isdigit():
        raise ValueError("a variable's name has letters, digits and underscores")
    if len(name) > 120:
        raise ValueError("a variable's name has at most 120 characters")
    return name


EnvName = Annotated[str, Field(min_length=1), AfterValidator(_env_name)]
EnvValue = Annotated[str, Field(max_length=32_768, pattern=r"^[^\x00]*$")]


class InputFile(Document):
    """A file the job finds in its folder: small ones inline, others uploaded by their digest."""

    path: RelativePath
    size: ByteCount
    sha256: Sha256
    content: str | None = Field(default=None, max_length=MAX_INLINE_FILE_BYTES * 4 // 3 + 4)
    """The bytes in base64, or None when they are uploaded after payment."""

    @classmethod
    def from_bytes(cls, path: str, data: bytes, *, inline: bool) -> Self:
        """Describe ``data``, and carry it along when ``inline``."""
        return cls(
            path=path,
            size=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            content=base64.b64encode(data).decode() if inline else None,
        )

    def data(self) -> bytes | None:
        """The inline bytes, if carried; checked against size and digest on validation."""
        return None if self.content is None else base64.b64decode(self.content, validate=True)

    @model_validator(mode="after")
    def _check_content(self) -> Self:
        try:
            data = self.data()
        except (binascii.Error, ValueError) as error:
            raise ValueError("content is not base64") from error
        if data is not None and (
            len(data) != self.size or hashlib.sha256(data).hexdigest() != self.sha256
        ):
            raise ValueError(f"the content of {self.path} does not match its size and sha256")
        return self


class JobSpec(Document):
    """What to run, and within which limits. Times in seconds, sizes in bytes.

    The command runs in the job's folder, which holds the inputs; what it writes below ``outputs/``
    (also named by ``COMPUTESWARM_OUTPUTS``) is kept for the buyer.
    """

    command: tuple[Annotated[str, Field(pattern=r"^[^\x00]*$")], ...] = Field(
        min_length=1, max_length=1_000
    )
    name: Label = ""
    image: str = Field(default="python", pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    inputs: tuple[InputFile, ...] = Field(default=(), max_length=MAX_INPUT_FILES)
    env: dict[EnvName, EnvValue] = Field(default_factory=dict, max_length=200)
    gpu_count: int = Field(default=0, ge=0, le=64)
    min_vram_bytes: ByteCount = 0
    memory_bytes: ByteCount = 2 * 2**30
    disk_bytes: ByteCount = 1 * 2**30
    max_seconds: int = Field(default=3600, ge=1, le=30 * 86400)
    network: bool = False
    """It reaches the public internet, where the seller lets jobs do that."""
    secrets: tuple[EnvName, ...] = Field(default=(), max_length=MAX_SECRETS)
    """Names of variables whose values travel sealed, see ``ExecuteRequest.sealed_secrets``."""
    stream_outputs: bool = False
    """Settled files below ``outputs/`` can be fetched while the job runs."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.command[0]:
            raise ValueError("the command is empty")
        if sum(len(part.encode("utf-8", "replace")) for part in self.command) > MAX_COMMAND_BYTES:
            raise ValueError("the command is longer than 64 KiB")
        if len(set(self.secrets)) != len(self.secrets) or self.env.keys() & set(self.secrets):
            raise ValueError("two variables or secrets have the same name")
        paths = [file.path for file in self.inputs]
        if len(set(paths)) != len(paths):
            raise ValueError("two inputs have the same path")
        folders = {path[:i] for path in paths for i, c in enumerate(path) if c == "/"}
        if folders & set(paths):
            raise ValueError("an input is both a file and a folder")
        if sum(file.size for file in self.inputs if file.content is not None) > MAX_INLINE_BYTES:
            raise ValueError("inline inputs are larger than 1 MiB together; upload them instead")
        if sum(file.size for file in self.inputs) > MAX_INPUT_BYTES:
            raise ValueError("the inputs are larger than 64 GiB together")
        return self

    def without_content(self) -> JobSpec:
        """The spec as it is quoted and hashed: digests instead of bytes."""
        inputs = tuple(file.model_copy(update={"content": None}) for file in self.inputs)
        return self.model_copy(update={"inputs": inputs})

    def digest(self) -> str:
        """0x and the keccak of the spec's canonical JSON, without inline bytes."""
        return (
            "0x" + keccak256(canonical_json(self.without_content().model_dump(mode="json"))).hex()
        )


class QuoteRequest(Document):
    """``POST /quotes``: the spec (inline bytes may be left out), and how it is to be paid."""

    spec: JobSpec
    scheme: Scheme = "exact"
    offer_per_hour: Atoms | None = None
    """Atoms for a GPU and hour (the machine, on a cpu node): more than is asked, for a better place
    in the queue. The whole job is at that price."""


class ExecuteRequest(Document):
    """``POST /execute``. A bare ``{"spec": …}`` is enough for any x402 client.

    ``access_key`` is the buyer's secret for this job (64 hex digits). The buyer makes it, so the
    reply to a repeated request tells an eavesdropper of the chain nothing. ``payment_proof`` is the
    original protocol's, for a transfer that the buyer broadcast himself. ``sealed_secrets`` are the
    values of the spec's secrets, see ``core.sealing``; they need a ``job_id``.
    """

    spec: JobSpec
    quote: SignedQuote | None = None
    job_id: JobIdText | None = None
    payment_proof: PaymentProof | None = None
    access_key: str = Field(default_factory=new_secret, pattern=r"^[0-9a-f]{64}$")
    sealed_secrets: str = Field(default="", max_length=MAX_SEALED_CHARS, repr=False)


class Payment(Document):
    """One settled slice."""

    slice: int = Field(ge=0, lt=10**9)
    amount: Atoms
    transaction: str = Field(max_length=66)
    payer: Address


class Refund(Document):
    """What went back, or is still owed (``transaction`` empty until it is sent)."""

    amount: Atoms
    transaction: str = Field(default="", max_length=66)


class ChannelView(Document):
    """The payment channel of a job, in atoms. What is not used of the deposit goes back."""

    channel_id: str = Field(pattern=r"^0x[0-9a-f]{64}$")
    deposit: Atoms
    transaction: str = Field(default="", max_length=66)
    """The one that brought the deposit."""
    claim_transaction: str = Field(default="", max_length=66)
    """The one in which the seller took what was used; empty until then."""


class Phases(Document):
    """When each phase began, in unix milliseconds; None for one that never did."""

    created: int | None = None
    queued: int | None = None
    starting: int | None = None
    running: int | None = None
    metered: int | None = None
    """The first line of output, or the end of the free start: from here on time costs."""
    ended: int | None = None


class JobView(Document):
    """A job as its seller shows it to its buyer and its owner."""

    job_id: JobIdText
    node_id: NodeIdText
    state: JobState
    reason: str = Field(default="", max_length=500)
    name: Label = ""
    buyer: Address
    image: str = Field(default="", max_length=64)
    gpu_count: int = 0
    scheme: Scheme = "exact"
    price_per_hour: Atoms
    slice_seconds: int = Field(ge=1)
    max_seconds: int = Field(ge=1)
    queue_position: int | None = None
    """1 is next; None when it does not wait."""
    starts_in_seconds: int | None = Field(default=None, ge=0, lt=2**40)
    """At most, unless somebody who pays more comes; None when nobody can say."""
    owner_decides_by_ms: int | None = Field(default=None, ge=0, lt=2**53)
    """Unix milliseconds until which it waits for the owner's yes, and then goes back; None when it
    does not wait for that."""
    paused: bool = False
    """It stands still, at no cost, while the seller uses the GPU himself."""
    missing_inputs: tuple[Sha256, ...] = ()
    exit_code: int | None = None
    metered_ms: int = Field(default=0, ge=0)
    paid: Atoms = 0
    """Settled slices, or on a channel what vouchers were signed for."""
    cost: Atoms = 0
    payments: tuple[Payment, ...] = ()
    """The newest; ``paid`` and ``slices_paid`` count all. None for the ticks of a channel."""
    channel: ChannelView | None = None
    refund: Refund | None = None
    slices_paid: int = Field(default=0, ge=0)
    next_payment_due_ms: int | None = None
    """Milliseconds of metered time left before the paid slices are used up; None when ended."""
    outputs_ready: bool = False
    outputs_until: UNIX_SECONDS | None = None
    phases: Phases = Phases()
    last_seq: int = Field(default=0, ge=0)


class ExecuteReply(Document):
    """``202`` of ``POST /execute``, the same for every repetition of one paid request."""

    job: JobView
    access_key: str


class InputState(Document):
    """``GET /jobs/{id}/inputs/{sha256}``: how much of an input has come. Sizes in bytes."""

    sha256: Sha256
    size: ByteCount
    received: ByteCount
    """A further ``PUT`` goes on here (``Content-Range``); ``size`` where all of it is there."""


class OutputFile(Document):
    path: RelativePath
    size: ByteCount
    sha256: Sha256


class OutputList(Document):
    job_id: JobIdText
    files: tuple[OutputFile, ...] = Field(default=(), max_length=100_000)
    truncated: str = Field(default="", max_length=500)
    """Why some files were left out, in words; empty when none were."""
    final: bool = True
    """The job has ended; otherwise these are the settled files of a job that runs."""


class JobSubmission(Document):
    """What the market is told of a job: metadata only, signed by the buyer's wallet."""

    job_id: JobIdText
    node_id: NodeIdText
    buyer: Address
    spec_hash: str = Field(pattern=r"^0x[0-9a-f]{64}$")
    price_per_hour: Atoms
    max_seconds: int = Field(ge=1, le=30 * 86400)
    gpu_count: int = Field(default=0, ge=0, le=64)
    issued_at: UNIX_SECONDS


class JobUpdate(Document):
    """``PATCH /api/v1/jobs/{id}``, by the job's seller only."""

    state: JobState
    exit_code: int | None = Field(default=None, ge=-255, le=255)
    metered_ms: int | None = Field(default=None, ge=0, lt=2**53)
    paid: Atoms | None = None
    refunded: Atoms | None = None


class MarketJob(Document):
    """A job as the market keeps it."""

    job_id: JobIdText
    node_id: NodeIdText
    buyer: Address
    seller: Address
    state: JobState
    spec_hash: str
    price_per_hour: Atoms
    max_seconds: int
    gpu_count: int = 0
    created_at: UNIX_SECONDS
    updated_at: UNIX_SECONDS
    exit_code: int | None = None
    metered_ms: int = 0
    paid: Atoms = 0
    refunded: Atoms = 0


class JobPage(Document):
    """``GET /api/v1/jobs``: a wallet's jobs, bought and sold, newest first."""

    jobs: tuple[MarketJob, ...] = Field(default=(), max_length=1_000)
    next: str | None = Field(default=None, max_length=200, description="cursor of the next page")


StreamName = Literal["stdout", "stderr"]
