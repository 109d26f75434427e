"""The journal of jobs across restarts: what it keeps, what it forgets, what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from buyer_fakes import FakeSeller, make_buyer, serving

from computeswarm.buyer.client import Buyer
from computeswarm.buyer.journal import JobJournal, Stage
from computeswarm.buyer.spec import plan_job
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import BadRequest, JobNotFound
from computeswarm.core.states import JobState


async def bought(buyer: Buyer, seller: FakeSeller, tmp_path: Path) -> str:
    script = tmp_path / "job.py"
    script.write_text("pass")
    plan = plan_job(script, env={"TOKEN": "s3cret"})
    return (await buyer.start(await buyer.quote(seller.node, plan), budget=500_000)).job_id


async def test_variables_are_forgotten_once_the_job_has_ended(
    buyer: Buyer, seller: FakeSeller, tmp_path: Path
) -> None:
    job_id = await bought(buyer, seller, tmp_path)
    path = buyer.paths.buyer / "jobs.db"
    assert path.stat().st_mode & 0o777 == 0o600
    journal = JobJournal(path)
    assert journal.request(job_id).spec.env == {"TOKEN": "s3cret"}

    seller.jobs[job_id].end()
    assert (await buyer.refresh(job_id)).stage is Stage.ENDED
    with pytest.raises(BadRequest):
        journal.request(job_id)
    assert (await buyer.refresh(job_id)).state is JobState.SUCCEEDED
    journal.close()


async def test_jobs_are_found_by_the_start_of_their_id(
    buyer: Buyer, seller: FakeSeller, tmp_path: Path
) -> None:
    first = await bought(buyer, seller, tmp_path)
    second = await bought(buyer, seller, tmp_path)
    assert [record.job_id for record in buyer.jobs()] == [second, first]
    assert buyer.job(first[:14]).job_id == first
    assert buyer.job(first.removeprefix("job-")).job_id == first
    with pytest.raises(JobNotFound, match="There is no job"):
        buyer.job("job-")
    for hostile in ("*", "job-[a-f]*", "' OR 1", ""):
        with pytest.raises(JobNotFound):
            buyer.job(hostile)


async def test_a_view_with_other_terms_is_refused(
    buyer: Buyer, seller: FakeSeller, tmp_path: Path
) -> None:
    job_id = await bought(buyer, seller, tmp_path)
    job = seller.jobs[job_id]
    job.view = job.view.model_copy(update={"price_per_hour": 10**9})
    with pytest.raises(BadRequest, match="price"):
        await buyer.refresh(job_id)
    assert buyer.job(job_id).price_per_hour == seller.price


async def test_nobody_who_reads_slowly_keeps_a_slice_from_being_paid(
    tmp_path: Path, key: PrivateKey
) -> None:
    async with serving(FakeSeller(slice_seconds=1)) as seller, make_buyer(tmp_path, key) as buyer:
        job_id = await bought(buyer, seller, tmp_path)
        job = seller.jobs[job_id]
        job.view = job.view.model_copy(update={"state": JobState.RUNNING})
        for _ in range(3000):
            job.say(b"x" * 20_000)  # far more than any buffer on the way holds
        stream = buyer.follow(job_id)
        assert (await anext(stream)).seq == 1
        await seller.settled(4)
        job.end()
        seen = [event.seq async for event in stream]
        assert seen == list(range(2, 3003))
