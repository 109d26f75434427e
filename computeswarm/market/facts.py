"""What searches compare about a node, packed as it is stored beside the record.

A start reads these bytes straight into columns: no JSON is parsed, whatever the number of nodes.
"""

from __future__ import annotations

import numpy as np

from computeswarm.core.nodes import NodeRecord, NodeStatus
from computeswarm.core.query import facts, squeeze
from computeswarm.core.signing import Signed

VERSION = 1
"""Of ``FACTS``, of ``words`` and of how either is reckoned: raised when any of it changes."""

FACTS = np.dtype(
    [
        ("version", "u1"),
        ("isolation", "u1"),
        ("gpus", "u1"),
        ("vendor", "u1"),
        ("network", "u1"),
        ("slice", "<u2"),
        ("vram", "<i4"),
        ("cores", "<i4"),
        ("ram", "<i4"),
        ("disk", "<i4"),
        ("max_time", "<i4"),
        ("tflops", "<i4"),
        ("price", "<i8"),
        ("driver", "<i8"),
        ("cuda", "<i8"),
        ("capability", "<i8"),
        ("wallet", "V20"),
    ]
)
"""Units are those of ``core.query``; ``wallet`` is the address' 20 bytes."""

BETWEEN = "\x1f"
"""Between the parts of ``words``; labels hold no control characters."""
ITEMS = "\x1e"
"""Between the items of one part."""


def pack(node_id: str, record: NodeRecord) -> tuple[bytes, str]:
    """``NodeRow.facts`` and ``NodeRow.words`` of a record.

    The words are the GPU models, the region, the images and the processor as the seller wrote
    them, then the name squeezed and the name in lower case.
    """
    seen = facts(
        node_id,
        record,
        status=NodeStatus.IDLE,
        queued=0,
        succeeded=0,
        failed=0,
        uptime_permille=1000,
    )
    packed = np.zeros((), FACTS)
    for name in FACTS.names or ():
        if name not in ("version", "wallet"):
            packed[name] = min(getattr(seen, name), np.iinfo(FACTS[name]).max)
    packed["version"] = VERSION
    packed["wallet"] = np.void(bytes.fromhex(record.wallet[2:]))
    hardware = record.hardware
    words = (
        ITEMS.join(dict.fromkeys(gpu.model for gpu in hardware.gpus)),
        record.region,
        ITEMS.join(record.images),
        hardware.cpu_model,
        squeeze(record.name),
        record.name.lower(),
    )
    return packed.tobytes(), BETWEEN.join(words)


def current(facts_: bytes) -> bool:
    """Whether stored facts were packed by this version."""
    return len(facts_) == FACTS.itemsize and facts_[0] == VERSION


def repack(node_id: str, record: bytes) -> tuple[bytes, str]:
    """Facts and words reckoned anew from a record as it is stored.

    Raises:
        ValueError: the record is none; that of a node that left is empty.
    """
    signed = Signed.model_validate_json(record)
    return pack(node_id, NodeRecord.model_validate(signed.document))
