"""Inputs on their way to a seller whose line breaks."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from buyer_fakes import FakeSeller

from computeswarm.buyer.client import Buyer
from computeswarm.buyer.progress import Flow, Progress
from computeswarm.buyer.spec import plan_job
from computeswarm.core.errors import BadRequest
from computeswarm.core.states import JobState

BUDGET = 500_000
BIG = random.Random(7).randbytes(4_000_000)


async def test_a_broken_upload_goes_on_where_it_broke(
    buyer: Buyer, seller: FakeSeller, tmp_path: Path
) -> None:
    (tmp_path / "job.py").write_text("pass")
    names = ("big", "1", "2", "3", "4", "5")
    for n, name in enumerate(names):
        (tmp_path / name).write_bytes(BIG if name == "big" else bytes([n]) * 1_100_000)
    plan = plan_job(tmp_path / "job.py", inputs=[tmp_path / name for name in names])
    offer = await buyer.quote(seller.node, plan)
    seller.break_at = 2_500_000
    seen: list[Progress] = []
    record = await buyer.start(offer, budget=BUDGET, report=seen.append)

    uploads = seller.jobs[record.job_id].uploads
    assert sorted(map(len, uploads.values())) == [1_100_000] * 5 + [4_000_000]
    assert BIG in uploads.values()
    (resumed,) = [asked for _, asked in seller.asked if asked]
    start, rest = resumed.removeprefix("bytes ").split("-")
    assert 2_500_000 <= int(start) < len(BIG) and rest == "3999999/4000000"
    told = [p for p in seen if p.phase == "uploading"]
    total = 4_000_000 + 5 * 1_100_000
    assert told[-1] == Progress("uploading", total, total)
    assert (told[-1].files, told[-1].files_done) == (6, 6)


async def test_bytes_that_changed_under_the_same_size_are_noticed_and_said(
    buyer: Buyer, seller: FakeSeller, tmp_path: Path
) -> None:
    (tmp_path / "job.py").write_text("pass")
    data = tmp_path / "data"
    data.write_bytes(b"x" * 300_000)
    plan = plan_job(tmp_path / "job.py", inputs=[data])
    offer = await buyer.quote(seller.node, plan)
    data.write_bytes(b"y" * 300_000)
    with pytest.raises(BadRequest, match="data has changed since the job was planned"):
        await buyer.start(offer, budget=BUDGET)
    assert buyer.job(offer.job_id).state is JobState.CANCELLED


def test_a_flow_tells_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("computeswarm.buyer.progress.time.monotonic", lambda: now[0])
    seen: list[Progress] = []
    flow = Flow("uploading", 1000, seen.append, files=2, there=3)
    flow.found(100)
    for _ in range(3):
        now[0] += 1
        flow.moved(200)
    last = seen[-1]
    assert last == Progress("uploading", 700, 1000)
    assert (last.rate, last.eta) == (200.0, 1.5)
    assert (last.files, last.files_done, last.there) == (2, 0, 3)
    count = len(seen)
    for _ in range(50):
        flow.moved(1)
    assert len(seen) == count  # ten times a second at most
