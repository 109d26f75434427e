"""Outputs from a seller who lists, names and sends what he likes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from buyer_fakes import FakeJob, FakeSeller

from computeswarm.buyer.client import Buyer
from computeswarm.buyer.http.seller import SellerClient
from computeswarm.buyer.outputs import fetch_outputs
from computeswarm.buyer.progress import ignore
from computeswarm.buyer.purchase import access
from computeswarm.buyer.spec import JobPlan
from computeswarm.core.errors import BadRequest, ComputeSwarmError, SellerUnavailable, TooLarge

FILES = {"model.bin": b"\x00" * 300_000, "plots/a b.txt": b"hello", "plots/é": b""}


async def ended(buyer: Buyer, seller: FakeSeller, plan: JobPlan) -> str:
    def run(job: FakeJob) -> None:
        job.outputs = dict(FILES)
        job.end()

    seller.runs = run
    record = await buyer.start(await buyer.quote(seller.node, plan), budget=500_000)
    return record.job_id


async def test_all_files_come_and_a_second_time_only_what_is_missing(
    buyer: Buyer, seller: FakeSeller, plan: JobPlan, tmp_path: Path
) -> None:
    job_id = await ended(buyer, seller, plan)
    dest = tmp_path / "out" / "deep"
    paths = await buyer.outputs(job_id, dest)

    assert {str(p.relative_to(dest)): p.read_bytes() for p in paths} == FILES
    kept = (dest / "model.bin").stat().st_ino
    (dest / "plots/a b.txt").write_text("other")
    await buyer.outputs(job_id, dest)
    assert (dest / "model.bin").stat().st_ino == kept
    assert (dest / "plots/a b.txt").read_bytes() == b"hello"


async def test_other_bytes_than_listed_are_not_kept(
    buyer: Buyer, seller: FakeSeller, plan: JobPlan, tmp_path: Path
) -> None:
    job_id = await ended(buyer, seller, plan)
    seller.jobs[job_id].outputs = {"a": b"abc"}
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a").write_text("mine")
    seller.faults["corrupt"] = 1
    with pytest.raises(SellerUnavailable, match="other bytes"):
        await buyer.outputs(job_id, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a"]
    assert (tmp_path / "out/a").read_text() == "mine"


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", "a\\evil", "a\x1b[2J"])
async def test_paths_that_leave_the_folder_are_refused(
    buyer: Buyer, seller: FakeSeller, plan: JobPlan, tmp_path: Path, path: str
) -> None:
    job_id = await ended(buyer, seller, plan)
    seller.forged_path = path
    with pytest.raises(BadRequest):
        await buyer.outputs(job_id, tmp_path / "out")
    assert not (tmp_path / "evil").exists()


async def test_links_are_not_followed(
    buyer: Buyer, seller: FakeSeller, plan: JobPlan, tmp_path: Path
) -> None:
    job_id = await ended(buyer, seller, plan)
    outside, dest = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    dest.mkdir()
    (outside / "target").write_text("mine")
    os.symlink(outside / "target", dest / "model.bin")
    os.symlink(outside, dest / "plots")
    with pytest.raises(ComputeSwarmError, match="move it away"):
        await buyer.outputs(job_id, dest)
    assert [p.name for p in outside.iterdir()] == ["target"]
    assert (outside / "target").read_text() == "mine"
    assert not (dest / "model.bin").is_symlink()


async def test_more_than_the_job_may_have_is_refused_before_a_byte(
    buyer: Buyer, seller: FakeSeller, plan: JobPlan, tmp_path: Path
) -> None:
    job_id = await ended(buyer, seller, plan)
    client = SellerClient(seller.url)
    with pytest.raises(TooLarge):
        await fetch_outputs(
            client, access(buyer.job(job_id)), tmp_path / "o", max_bytes=1000, report=ignore
        )
    await client.close()
    assert not (tmp_path / "o").exists()
