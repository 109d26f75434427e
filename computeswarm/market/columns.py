"""The nodes' columns: one numpy array a fact, as long as the table may grow before it moves."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
U1: TypeAlias = Array
U2: TypeAlias = Array
U4: TypeAlias = Array
U8: TypeAlias = Array
I4: TypeAlias = Array
I8: TypeAlias = Array
F8: TypeAlias = Array
KEY: TypeAlias = Array

ABSENT = 255
"""Status of a slot without a node, or with one that left."""

_DTYPES = {"U1": "u1", "U2": "u2", "U4": "u4", "U8": "u8", "I4": "i4", "I8": "i8", "F8": "f8"}
_KEY_BYTES = 32


class Columns:
    """Arrays of one length; the annotations are the schema. Times in unix seconds."""

    number: I8
    id: U8
    """The node id's 48 bits: as many hex digits, so its order is the ids' order."""
    wallet_a: U8
    wallet_b: U8
    wallet_c: U4
    """The wallet's 20 bytes, the first ones first."""
    seq: I8
    registered_at: F8
    session_until: F8
    session_key: KEY

    counter: I8
    last_seen: F8
    lease_until: F8
    alive_seconds: F8
    queued: I4
    running: I4
    status: U1

    succeeded: I4
    failed: I4

    isolation: U1
    gpus: U1
    vendor: U1
    network: U1
    slice: U2
    vram: I4
    cores: I4
    ram: I4
    disk: I4
    max_time: I4
    tflops: I4
    price: I8
    driver: I8
    cuda: I8
    capability: I8

    uptime: I4
    rel: I4
    reputation: I4
    cost: I8
    value: I8

    gpu: I4
    region: I4
    images: I4
    cpu: I4
    name: I4
    """Entries in the table's texts."""

    def __init__(self, length: int, old: Columns | None = None) -> None:
        for name, kind in Columns.__annotations__.items():
            shape = (length, _KEY_BYTES) if kind == "KEY" else (length,)
            made = np.zeros(shape, _DTYPES.get(kind, "u1"))
            if old is not None:
                before = getattr(old, name)
                made[: len(before)] = before
            setattr(self, name, made)
        self.status[len(old.status) if old else 0 :] = ABSENT

    def __len__(self) -> int:
        return len(self.status)

    def clear(self, slot: int) -> None:
        """Set every fact of a slot to nothing."""
        for name in Columns.__annotations__:
            getattr(self, name)[slot] = 0
        self.status[slot] = ABSENT

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(getattr(self, name).nbytes for name in Columns.__annotations__)


class Hot:
    """The same memory for one slot at a time: a memoryview reads in a third of numpy's time."""

    id: memoryview[int]
    seq: memoryview[int]
    registered_at: memoryview[float]
    session_until: memoryview[float]
    counter: memoryview[int]
    last_seen: memoryview[float]
    lease_until: memoryview[float]
    alive_seconds: memoryview[float]
    queued: memoryview[int]
    running: memoryview[int]
    status: memoryview[int]
    succeeded: memoryview[int]
    failed: memoryview[int]
    number: memoryview[int]
    price: memoryview[int]

    def __init__(self, columns: Columns) -> None:
        for name in Hot.__annotations__:
            setattr(self, name, memoryview(getattr(columns, name)))
