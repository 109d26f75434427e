"""Rows of made-up nodes, as a store would give them; their records are signed by nobody."""

from __future__ import annotations

from typing import Any

from node_records import START, node_record

from computeswarm.core.nodes import RECORD_KIND, GPUInfo, Hardware, NodeRecord
from computeswarm.core.signing import Signed
from computeswarm.market.facts import pack
from computeswarm.market.rows import Lease, NodeRow

SIGNATURE = "0x" + "00" * 65


def make_record(
    number: int = 0, *, gpus: tuple[dict[str, Any], ...] = (), **changes: Any
) -> NodeRecord:
    hardware = Hardware(
        cpu_model=changes.pop("cpu_model", "EPYC"),
        cpu_cores=changes.pop("cores", 8),
        memory_bytes=changes.pop("ram", 2**36),
        disk_bytes=changes.pop("disk", 2**40),
        gpus=tuple(GPUInfo.model_validate(gpu) for gpu in gpus),
    )
    given = {"wallet": f"0x{number % 97:040x}", "name": f"rig-{number}", "hardware": hardware}
    return node_record(**given | changes)


def make_row(
    record: NodeRecord, *, number: int = 0, lease: Lease | None = None, **changes: Any
) -> NodeRow:
    """A row, online for a minute from ``START`` on unless ``lease`` says otherwise."""
    signed = Signed(
        kind=RECORD_KIND,
        chain_id=84532,
        document=record.model_dump(mode="json"),
        signature=SIGNATURE,
    )
    facts, words = pack(record.node_id, record)
    values: dict[str, Any] = {
        "node_id": record.node_id,
        "wallet": record.wallet,
        "record": signed.model_dump_json().encode(),
        "facts": facts,
        "words": words,
        "seq": record.seq,
        "session_key": b"k" * 32,
        "session_until": START + 86_400.0,
        "registered_at": float(START),
        "lease": lease or Lease(last_seen=float(START), lease_until=START + 60.0),
        "number": number,
    }
    return NodeRow(**(values | changes))
