"""From the models to the screen: numbers as they are, hostile text harmless."""

from __future__ import annotations

import pytest

from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import Unauthorized
from computeswarm.core.events import EndEvent, OutputEvent, PaymentEvent, encode_output
from computeswarm.core.jobs import JobView
from computeswarm.core.nodes import (
    RECORD_KIND,
    ComputeNode,
    GPUInfo,
    Hardware,
    Isolation,
    NodeRecord,
    NodeStatus,
)
from computeswarm.core.signing import Signed
from computeswarm.core.states import JobState
from computeswarm.seller.owner import OwnerStatus
from computeswarm.tui.backends.mapping import EventReader
from computeswarm.tui.backends.market_mapping import node_item
from computeswarm.tui.backends.seller_mapping import seller_item
from computeswarm.tui.views import LogLine

KEY = PrivateKey.generate()
EVIL = "\x1b]0;owned\x07\x9b31m[red]x[/]"
GIB = 2**30


def _listed(signer: PrivateKey = KEY) -> ComputeNode:
    gpus = tuple(GPUInfo(vendor="nvidia", model="RTX 4090", memory_bytes=24 * GIB) for _ in "ab")
    record = NodeRecord(
        wallet=KEY.address,
        name="rig",
        endpoint="http://203.0.113.7:8403",
        hardware=Hardware(cpu_model="EPYC", cpu_cores=16, memory_bytes=64 * GIB, gpus=gpus),
        isolation=Isolation.NAMESPACE,
        price_per_hour=380_000,
        slice_seconds=60,
        max_job_seconds=3600,
        images=(EVIL,),
        seq=1,
        issued_at=1,
    )
    return ComputeNode(
        node_id=record.node_id,
        status=NodeStatus.IDLE,
        record=Signed.make(signer, RECORD_KIND, 84532, record),
        registered_at=1,
        last_seen=2,
    )


def test_a_node_is_shown_as_its_wallet_signed_it() -> None:
    item = node_item(_listed())
    assert (item.title, item.gpu_count, item.vram_bytes) == ("2× RTX 4090", 2, 48 * GIB)
    assert (item.price, item.status, item.wallet) == (380_000, "idle", KEY.address)
    assert item.images == ("[red]x[/]",)


def test_a_node_that_its_wallet_did_not_sign_is_not_shown() -> None:
    with pytest.raises(Unauthorized):
        node_item(_listed(PrivateKey.generate()))


def _output(seq: int, data: bytes, stream: str = "stdout") -> OutputEvent:
    text, encoding = encode_output(data)
    return OutputEvent(seq=seq, at=seq, stream=stream, data=text, encoding=encoding)  # type: ignore[arg-type]


def test_output_becomes_clean_whole_lines_of_each_stream() -> None:
    reader = EventReader()
    assert reader.read(_output(1, b"half \xe2\x82")) == []
    assert reader.read(_output(2, b"warn\n", "stderr")) == [LogLine("warn", "stderr", 2)]
    assert reader.read(_output(3, b"\xac\n" + EVIL.encode())) == [LogLine("half €", "stdout", 3)]
    assert reader.rest(4) == [LogLine("[red]x[/]", "stdout", 4)]


def test_payments_and_the_end_are_told_in_words() -> None:
    reader = EventReader()
    paid = PaymentEvent(seq=1, at=1, direction="paid", amount=6_334, transaction=EVIL, slice=0)
    (line,) = reader.read(paid)
    assert isinstance(line, LogLine)
    assert line.text.startswith("paid 0.006334 USDC for slice 1")
    assert "\x1b" not in line.text
    view = JobView(
        job_id="job-" + "0" * 20,
        node_id="nd-" + "0" * 12,
        state=JobState.TIMED_OUT,
        buyer=KEY.address,
        price_per_hour=380_000,
        slice_seconds=60,
        max_seconds=600,
        cost=5_000,
        paid=6_334,
    )
    (end,) = reader.read(EndEvent(seq=2, at=2, job=view))
    assert end == LogLine("timed out · cost 0.005 of 0.006334 USDC paid", "bad", 2)


def test_the_owners_document_loses_nothing_and_brings_no_escapes() -> None:
    status = OwnerStatus.model_validate(
        {
            "node_id": "nd-" + "0" * 12, "name": "rig", "wallet": KEY.address,
            "endpoint": "http://127.0.0.1:1", "chain": "Base Sepolia", "started_at": 1,
            "accepting": True, "paused": False, "stopping": False,
            "market": {"url": "http://m", "connected": False, "problem": f"No answer {EVIL}"},
            "price_per_hour": 380_000, "slice_seconds": 60, "executor": "bubblewrap",
            "isolation": "namespace", "images": ["python"], "slots": 1, "running": 1, "queued": 0,
            "host": {"cpu_model": "EPYC", "cpu_cores": 2, "memory_bytes": GIB, "cpu_pct": 7},
            "gpus": [{"index": 0, "model": "RTX 4090", "memory_bytes": 24 * GIB,
                      "power_limit_mw": 450_000,
                      "samples": [{"at": 1, "utilization_pct": 3},
                                  {"at": 2, "utilization_pct": 98, "power_mw": 402_000}]}],
            "earnings": {
                "days": [{"key": "2025-11-25", "label": "2025-11-25", "kept": 5, "gas": 1,
                          "electricity": 2, "net": 2, "sold_seconds": 1, "offered_seconds": 4}],
                "gpus": [{"key": "GPU-1", "label": "#0 " + EVIL, "kept": 5}],
                "total": {"key": "total", "label": "all", "kept": 5}},
            "advice": {"model": EVIL, "sellers": 3, "low": 1, "middle": 2, "high": 3,
                       "suggested": 2, "why": "x"},
            "events": [{"at": 1, "level": "warning", "text": EVIL}],
        }
    )  # fmt: skip
    item = seller_item(status)
    assert not item.listed
    assert item.note == "No answer [red]x[/]"
    assert (item.gpus[0].utilization_pct, item.gpus[0].past) == (98, (3, 98))
    assert (item.gpus[0].power_w, item.gpus[0].power_limit_w) == (402.0, 450.0)
    assert item.gpus[0].memory_used is None
    assert item.earnings.by_day == (("2025-11-25", 5),)
    assert (item.earnings.today, item.earnings.week, item.earnings.month) == (5, 5, 5)
    assert item.earnings.nets == (2, 2, 2) and item.earnings.sold == 0.25
    assert (item.earnings.gpus[0].label, item.earnings.gpus[0].net) == ("GPU 0", None)
    assert item.advice is not None and "\x1b" not in item.advice.sentence
    assert item.events[0].text == "[red]x[/]"
