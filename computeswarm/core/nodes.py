"""What a seller offers: hardware, the signed record of a node, and the market's view of it."""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from computeswarm.core.crypto import POINT_PATTERN, is_address, keccak256, to_checksum
from computeswarm.core.errors import Unauthorized
from computeswarm.core.ids import NodeId, NodeIdText
from computeswarm.core.money import MAX_ATOMS
from computeswarm.core.sealing import PUBLIC_KEY
from computeswarm.core.signing import Document, Signed
from computeswarm.core.text import clean_line

RECORD_KIND = "node-record"
MAX_BYTES = 2**60
UNIX_SECONDS = Annotated[int, Field(ge=0, lt=2**40)]


def _checksum(text: str) -> str:
    if not is_address(text):
        raise ValueError("an address is 0x and 40 hex digits")
    return to_checksum(text)


def _label(text: str) -> str:
    return clean_line(text, limit=120)


Address = Annotated[str, AfterValidator(_checksum)]
Atoms = Annotated[int, Field(ge=0, le=MAX_ATOMS)]
ByteCount = Annotated[int, Field(ge=0, le=MAX_BYTES)]
Label = Annotated[str, Field(max_length=120), AfterValidator(_label)]


class Isolation(StrEnum):
    """What stands between a job and its host, weakest first."""

    NONE = "none"
    MACOS = "macos"
    NAMESPACE = "namespace"
    CONTAINER = "container"
    GVISOR = "gvisor"

    @property
    def rank(self) -> int:
        """For comparisons such as ``isolation>=container``."""
        return list(Isolation).index(self)


class GPUInfo(Document):
    """One GPU, or one MIG slice of it."""

    vendor: Literal["nvidia", "amd", "apple", "other"]
    model: Label
    memory_bytes: ByteCount
    uuid: Label = ""
    driver: Label = ""
    runtime: Label = ""
    """Compute runtime and version, such as ``CUDA 12.4``, ``ROCm 6.2`` or ``MPS``."""
    tflops: int = Field(default=0, ge=0, le=1_000_000)
    """Dense FP16 matrix products, in 10^12 operations a second, as the maker's data sheet of this
    model states them; 0: not known."""
    capability: Label = ""
    """NVIDIA's compute capability, such as ``8.9``."""


class Hardware(Document):
    """What a machine has; without a GPU ``gpus`` is empty and it is listed as ``cpu``."""

    cpu_model: Label
    cpu_cores: int = Field(ge=1, le=100_000)
    memory_bytes: ByteCount
    disk_bytes: ByteCount = 0
    gpus: tuple[GPUInfo, ...] = Field(default=(), max_length=64)

    @property
    def kind(self) -> str:
        """``gpu`` or ``cpu``."""
        return "gpu" if self.gpus else "cpu"

    @property
    def title(self) -> str:
        """For a table cell: ``2× RTX 4090``, or the processor of a cpu node."""
        if not self.gpus:
            return f"CPU {self.cpu_cores}× {self.cpu_model}"
        return f"{len(self.gpus)}× {self.gpus[0].model}"

    @property
    def vram_bytes(self) -> int:
        """Memory of all GPUs together."""
        return sum(gpu.memory_bytes for gpu in self.gpus)


class NodeRecord(Document):
    """A node as its seller describes it, signed by the seller's wallet.

    ``price_per_hour`` is in atoms for one GPU (for the whole machine on a cpu node). ``seq`` rises
    with every record of a node: records are public, so an equal or lower one is a replay.
    """

    wallet: Address
    name: Label = Field(min_length=1)
    endpoint: str = Field(max_length=300, pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")
    hardware: Hardware
    isolation: Isolation
    price_per_hour: Atoms
    slice_seconds: int = Field(ge=1, le=3600)
    max_job_seconds: int = Field(ge=1, le=30 * 86400)
    images: tuple[Label, ...] = Field(default=(), max_length=64)
    images_to_pull: tuple[Label, ...] = Field(default=(), max_length=64)
    """Those of them that a job has to wait for, at no cost: the node hasn't fetched them yet."""
    region: Label = ""
    network: bool = False
    """Jobs that ask for it reach the public internet."""
    secrets_key: str = Field(default="", pattern=PUBLIC_KEY)
    """What a job's secrets are sealed with, see ``core.sealing``; empty: it takes none."""
    version: Label = ""
    seq: int = Field(ge=0, lt=2**53)
    issued_at: UNIX_SECONDS

    @property
    def node_id(self) -> NodeId:
        """Wallet and name make the id, so a restart keeps it and nobody else can take it."""
        return node_id(self.wallet, self.name)


def node_id(wallet: str, name: str) -> NodeId:
    """The id of the node called ``name`` of that wallet."""
    return NodeId(f"nd-{keccak256(f'{wallet.lower()}/{name}'.encode())[:6].hex()}")


class NodeStatus(StrEnum):
    IDLE = "idle"
    BUSY = "busy"
    DRAINING = "draining"
    OFFLINE = "offline"


class ComputeNode(Document):
    """A node as the market lists it: the seller's signed record, and what the market has seen."""

    node_id: NodeIdText
    status: NodeStatus
    record: Signed
    registered_at: UNIX_SECONDS
    last_seen: UNIX_SECONDS
    queued: int = Field(default=0, ge=0, le=10**6)
    running: int = Field(default=0, ge=0, le=10**6)
    jobs_succeeded: int = Field(default=0, ge=0)
    jobs_failed: int = Field(default=0, ge=0)
    uptime_permille: int = Field(default=1000, ge=0, le=1000)
    """Share of the time since registration in which heartbeats came, in thousandths."""

    @cached_property
    def info(self) -> NodeRecord:
        """The record, with its signature and its id checked.

        Raises:
            BadRequest, Unauthorized: the market passed on something the wallet did not sign.
        """
        return open_record(self.record, expected_id=self.node_id)


def open_record(signed: Signed, *, expected_id: str | None = None) -> NodeRecord:
    """Check and read a signed node record.

    Raises:
        BadRequest: not a record, or the record of another node.
        Unauthorized: not signed by the wallet it names.
    """
    record = signed.open(RECORD_KIND, NodeRecord, wallet=str(signed.document.get("wallet", "")))
    if expected_id is not None and record.node_id != expected_id:
        raise Unauthorized(f"The record listed as {expected_id} belongs to {record.node_id}.")
    return record


class Registration(Document):
    """The market's answer to a registration."""

    node: ComputeNode
    market_key: str = Field(pattern=POINT_PATTERN)
    """A public key of the market's, made for this session: see ``core.sessions``."""
    heartbeat_seconds: int = Field(ge=1, le=3600)
    lease_seconds: int = Field(ge=1, le=86400)


class Heartbeat(Document):
    """A sign of life; authenticated by headers, see ``core.market_auth``."""

    status: Literal[NodeStatus.IDLE, NodeStatus.BUSY, NodeStatus.DRAINING]
    queued: int = Field(default=0, ge=0, le=10**6)
    running: int = Field(default=0, ge=0, le=10**6)
    utilization_pct: int | None = Field(default=None, ge=0, le=100)


class HeartbeatReply(Document):
    heartbeat_seconds: int = Field(ge=1, le=3600)
    lease_seconds: int = Field(ge=1, le=86400)
