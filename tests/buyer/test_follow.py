"""A job's stream over connections that break, repeat, stall and lie."""

from __future__ import annotations

import pytest
from buyer_fakes import FakeJob, FakeSeller
from pydantic import ValidationError

from computeswarm.buyer.client import Buyer
from computeswarm.buyer.http.seller import check_events
from computeswarm.buyer.spec import JobPlan
from computeswarm.core.errors import BadRequest, ComputeSwarmError
from computeswarm.core.events import OutputEvent, StateEvent
from computeswarm.core.states import JobState

RAW = b"caf\xc3\xa9 \xff\xfe\x1b[31m\n"


def chatter(job: FakeJob) -> None:
    job.state(JobState.STARTING)
    job.state(JobState.RUNNING)
    for number in range(5):
        job.say(b"%d\n" % number)
    job.say(RAW, "stderr")
    job.end(JobState.FAILED, 3)


async def bought(buyer: Buyer, seller: FakeSeller, plan: JobPlan) -> str:
    seller.runs = chatter
    record = await buyer.start(await buyer.quote(seller.node, plan), budget=500_000)
    return record.job_id


@pytest.mark.parametrize(
    "faults",
    [
        {},
        {"break_stream": 6},
        {"drop": 3, "break_stream": 2},
        {"repeat": 5, "break_stream": 5},
        {"no_stream": 99},
        {"drop": 1, "no_stream": 99},
    ],
)
async def test_every_event_comes_once_and_in_order(
    buyer: Buyer, seller: FakeSeller, plan: JobPlan, faults: dict[str, int]
) -> None:
    job_id = await bought(buyer, seller, plan)
    seller.faults.update(faults)
    events = [event async for event in buyer.follow(job_id)]

    assert [event.seq for event in events] == list(range(1, 11))
    out = [event.raw() for event in events if isinstance(event, OutputEvent)]
    assert out == [b"0\n", b"1\n", b"2\n", b"3\n", b"4\n", RAW]
    assert buyer.job(job_id).exit_code == 3


async def test_following_starts_where_it_is_told_and_events_are_there_afterwards(
    buyer: Buyer, seller: FakeSeller, plan: JobPlan
) -> None:
    job_id = await bought(buyer, seller, plan)
    assert [event.seq async for event in buyer.follow(job_id, since=7)] == [8, 9, 10]
    assert [event.seq async for event in buyer.events(job_id)] == list(range(1, 11))


async def test_states_are_kept_while_it_runs(
    buyer: Buyer, seller: FakeSeller, plan: JobPlan
) -> None:
    job_id = await bought(buyer, seller, plan)
    async for event in buyer.follow(job_id):
        if isinstance(event, StateEvent):
            assert buyer.job(job_id).state is event.state
    # what a seller says after the end no longer changes the record
    job = seller.jobs[job_id]
    job.view = job.view.model_copy(update={"state": JobState.SUCCEEDED})
    assert (await buyer.refresh(job_id)).state is JobState.FAILED


async def test_a_wrong_key_is_refused_at_once_and_not_taken_for_silence(
    buyer: Buyer, seller: FakeSeller, plan: JobPlan
) -> None:
    job_id = await bought(buyer, seller, plan)
    del seller.jobs[job_id]
    with pytest.raises(ComputeSwarmError) as refused:
        async for _ in buyer.follow(job_id):
            pass
    assert "404" in refused.value.detail


@pytest.mark.parametrize(
    "hostile",
    [
        None,
        {},
        ["x"],
        [{"type": "output", "seq": 1, "at": 1, "stream": "stdout", "data": "%", "encoding": "b"}],
        [
            {
                "type": "output",
                "seq": 1,
                "at": 1,
                "stream": "stdout",
                "data": "\ud800",
                "encoding": "utf-8",
            }
        ],
        [
            {
                "type": "output",
                "seq": 1,
                "at": 1,
                "stream": "stdout",
                "data": "A",
                "encoding": "base64",
            }
        ],
        [{"type": "state", "seq": 2**60, "at": 1, "state": "running"}],
        [{"type": "output", "seq": 1, "at": 1, "stream": "stdout", "data": "x" * 10**6}],
    ],
)
def test_events_that_can_not_be_read_are_refused(hostile: object) -> None:
    with pytest.raises((BadRequest, ValidationError)) as refused:
        check_events(hostile)
    assert isinstance(refused.value, BadRequest)
