"""What a job's stream carries. Each event has a sequence number, so a stream can be resumed."""

from __future__ import annotations

import base64
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from computeswarm.core.jobs import JobView, OutputFile, StreamName
from computeswarm.core.signing import Document
from computeswarm.core.states import JobState

CHUNK_BYTES = 32 * 1024


class _Event(Document):
    seq: int = Field(ge=1, lt=2**53)
    at: int = Field(ge=0, lt=2**53)
    """Unix milliseconds on the seller's clock."""


class StateEvent(_Event):
    type: Literal["state"] = "state"
    state: JobState
    reason: str = Field(default="", max_length=500)
    paused: bool = False
    """It stands still, at no cost, from here to the next of these events."""


class OutputEvent(_Event):
    """A chunk of one stream, as it came: base64 where it isn't valid UTF-8 by itself."""

    type: Literal["output"] = "output"
    stream: StreamName
    data: str = Field(max_length=CHUNK_BYTES * 2)
    encoding: Literal["utf-8", "base64"] = "utf-8"

    def raw(self) -> bytes:
        """The bytes the job wrote."""
        if self.encoding == "base64":
            return base64.b64decode(self.data)
        return self.data.encode()


class PaymentEvent(_Event):
    """A slice was settled, or a refund was sent."""

    type: Literal["payment"] = "payment"
    direction: Literal["paid", "refunded"]
    amount: int = Field(ge=0)
    transaction: str = Field(default="", max_length=66)
    slice: int | None = None


class MeterEvent(_Event):
    """Where the meter stands; sent about once a second while the job runs, never stored."""

    type: Literal["meter"] = "meter"
    metered_ms: int = Field(ge=0)
    cost: int = Field(ge=0)
    paid: int = Field(ge=0)
    slices_paid: int = Field(ge=0)
    next_payment_due_ms: int | None = None
    utilization_pct: int | None = None
    memory_used_bytes: int | None = None


class FilesEvent(_Event):
    """New versions of files below ``outputs/`` can be fetched; the job runs on
    (``JobSpec.stream_outputs``). A version is named by its digest."""

    type: Literal["files"] = "files"
    files: tuple[OutputFile, ...] = Field(max_length=100)


class EndEvent(_Event):
    """The last event of every stream: the job as it ended."""

    type: Literal["end"] = "end"
    job: JobView


JobEvent = Annotated[
    StateEvent | OutputEvent | PaymentEvent | MeterEvent | FilesEvent | EndEvent,
    Field(discriminator="type"),
]
EVENT: TypeAdapter[JobEvent] = TypeAdapter(JobEvent)
EVENTS: TypeAdapter[list[JobEvent]] = TypeAdapter(list[JobEvent])


def encode_output(data: bytes) -> tuple[str, Literal["utf-8", "base64"]]:
    """The ``data`` and ``encoding`` members for a chunk of output."""
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(data).decode(), "base64"
