"""Outputs from a seller who lists, names and sends what he likes."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import pytest
from buyer_fakes import FakeJob, FakeSeller

from computeswarm.buyer.client import Buyer
from computeswarm.buyer.folder import PartFile, WouldOverwrite, open_below
from computeswarm.buyer.http.seller import SellerClient
from computeswarm.buyer.outputs import Fetching, fetch_outputs
from computeswarm.buyer.progress import Flow, Progress, ignore
from computeswarm.buyer.purchase import access
from computeswarm.buyer.spec import JobPlan
from computeswarm.core.errors import BadRequest, ComputeSwarmError, SellerUnavailable, TooLarge
from computeswarm.core.jobs import OutputFile

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
    (dest / "plots/a b.txt").unlink()
    await buyer.outputs(job_id, dest)
    assert (dest / "model.bin").stat().st_ino == kept
    assert (dest / "plots/a b.txt").read_bytes() == b"hello"


async def test_the_buyers_own_files_are_overwritten_only_if_he_agrees(
    buyer: Buyer, seller: FakeSeller, plan: JobPlan, tmp_path: Path
) -> None:
    job_id = await ended(buyer, seller, plan)
    dest = tmp_path / "out"
    (dest / "plots").mkdir(parents=True)
    (dest / "plots/a b.txt").write_text("mine!")
    with pytest.raises(WouldOverwrite, match="a b") as refused:
        await buyer.outputs(job_id, dest)
    assert refused.value.extra["files"] == ["plots/a b.txt"]
    assert [p.name for p in dest.rglob("*") if p.is_file()] == ["a b.txt"]  # nothing was fetched
    await buyer.outputs(job_id, dest, overwrite=True)
    assert (dest / "plots/a b.txt").read_bytes() == b"hello"


async def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    data = b"theirs"
    file = OutputFile(path="a", size=6, sha256=hashlib.sha256(data).hexdigest())
    with open_below(tmp_path, []) as folder:
        part = PartFile(folder, "a", file)
        part.open()
        part.write([data])
        (tmp_path / "a").write_text("mine")
        assert part.right and not part.place(overwrite=False)
        part.close(keep=True)
        assert (tmp_path / "a").read_text() == "mine"
        again = PartFile(folder, "a", file)
        again.open()
        assert again.right and again.place(overwrite=True)
        again.close(keep=False)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [data]


async def test_a_broken_download_goes_on_where_it_broke(
    buyer: Buyer, seller: FakeSeller, plan: JobPlan, tmp_path: Path
) -> None:
    job_id = await ended(buyer, seller, plan)
    data = random.Random(5).randbytes(3_000_000)
    seller.jobs[job_id].outputs = {"big": data, "same": data}
    seller.break_at = 1_500_000
    seen: list[Progress] = []
    await buyer.outputs(job_id, tmp_path / "out", seen.append)
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == {
        "big": data,
        "same": data,
    }
    ranges = [int(asked.removeprefix("bytes=").rstrip("-")) for _, asked in seller.asked if asked]
    assert len(ranges) == 1 and 0 < ranges[0] <= 1_500_000
    assert seen[-1] == Progress("downloading", 6_000_000, 6_000_000)
    assert (seen[-1].files, seen[-1].files_done, seen[-1].there) == (2, 2, 0)


async def test_what_an_earlier_run_left_is_gone_on_with_unless_it_is_wrong(
    buyer: Buyer, seller: FakeSeller, plan: JobPlan, tmp_path: Path
) -> None:
    job_id = await ended(buyer, seller, plan)
    data = random.Random(6).randbytes(300_000)
    seller.jobs[job_id].outputs = {"big": data}
    file = OutputFile(path="big", size=len(data), sha256=hashlib.sha256(data).hexdigest())
    for left in (data[:100_000], b"x" * 100_000, b"y" * 400_000):
        dest = tmp_path / str(left[0])
        with open_below(dest, []) as folder:
            part = PartFile(folder, "big", file)
            part.open()
            part.write([left])
            part.close(keep=True)
        assert [p.name.endswith(".part") for p in dest.iterdir()] == [True]
        await buyer.outputs(job_id, dest)
        assert {p.name: p.read_bytes() for p in dest.iterdir()} == {"big": data}
    assert [asked for _, asked in seller.asked] == ["bytes=100000-"] * 2 + ["", ""]


async def test_other_bytes_than_listed_are_not_kept(
    buyer: Buyer, seller: FakeSeller, plan: JobPlan, tmp_path: Path
) -> None:
    job_id = await ended(buyer, seller, plan)
    seller.jobs[job_id].outputs = {"a": b"abc"}
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a").write_text("mine")
    seller.faults["corrupt"] = 1
    with pytest.raises(SellerUnavailable, match="other bytes"):
        await buyer.outputs(job_id, tmp_path / "out", overwrite=True)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a"]
    assert (tmp_path / "out/a").read_text() == "mine"


async def test_each_file_that_came_is_ours_to_replace_whatever_becomes_of_the_others(
    buyer: Buyer, seller: FakeSeller, plan: JobPlan, tmp_path: Path
) -> None:
    """Fetches beside a running job break off; the last one must not take these for the buyer's."""
    job_id = await ended(buyer, seller, plan)
    job = seller.jobs[job_id]
    job.outputs = {"a": b"one"}
    file = OutputFile(path="a", size=3, sha256=hashlib.sha256(b"one").hexdigest())
    client = SellerClient(seller.url)
    fetching = Fetching(client, access(buyer.job(job_id)), tmp_path, ignore)
    await fetching._named(file, Flow("downloading", 3, ignore))  # its fetch goes no further
    await client.close()
    assert (tmp_path / "a").read_bytes() == b"one"
    job.outputs = {"a": b"two"}
    await buyer.outputs(job_id, tmp_path, ours=fetching.ours)
    assert (tmp_path / "a").read_bytes() == b"two"


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
        await buyer.outputs(job_id, dest, overwrite=True)
    (dest / "plots").unlink()
    with pytest.raises(WouldOverwrite):
        await buyer.outputs(job_id, dest)
    await buyer.outputs(job_id, dest, overwrite=True)
    assert [p.name for p in outside.iterdir()] == ["target"]
    assert (outside / "target").read_text() == "mine"
    assert (dest / "model.bin").read_bytes() == FILES["model.bin"]
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
