"""The parts that need no network: meter, log, slots, coalescing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from computeswarm.core.events import StateEvent
from computeswarm.core.jobs import JobSpec, Payment, Phases
from computeswarm.core.nodes import GPUInfo
from computeswarm.core.quotes import Quote
from computeswarm.core.states import JobState
from computeswarm.seller.coalesce import Chunk, coalesced
from computeswarm.seller.estimate import Room, Work, starts_in
from computeswarm.seller.eventlog import EventLog
from computeswarm.seller.job import PAYMENTS_HELD, Job
from computeswarm.seller.meter import Meter
from computeswarm.seller.slots import Slots
from computeswarm.seller.store import JobStore

ADDRESS = "0x" + "11" * 20


def quote(price: int = 3_600_000, slice_seconds: int = 10, max_seconds: int = 25) -> Quote:
    return Quote(
        quote_id="qt-" + "0" * 20,
        node_id="nd-" + "0" * 12,
        seller=ADDRESS,
        spec_hash="0x" + "0" * 64,
        chain_id=84532,
        asset=ADDRESS,
        pay_to=ADDRESS,
        price_per_hour=price,
        slice_seconds=slice_seconds,
        max_seconds=max_seconds,
        issued_at=0,
        expires_at=300,
    )


def test_a_meter_runs_from_its_beginning_to_its_end() -> None:
    meter = Meter(quote(), 1)
    assert (meter.cost(50), meter.left_ms(50), meter.funds_at) == (0, 10_000, None)
    meter.begin(100)
    meter.begin(999)
    assert (meter.milliseconds(101.5), meter.cost(101.5), meter.left_ms(101.5)) == (
        1_500,
        1_500,
        8_500,
    )
    assert (meter.funds_at, meter.limit_at) == (110, 125)
    meter.paid_slices = 3
    assert (meter.funds_at, meter.paid_seconds, meter.paid) == (None, 25, 25_000)
    meter.end(103)
    meter.end(120)
    assert meter.cost(999) == 3_000


@given(
    price=st.integers(1, 10**9),
    slice_seconds=st.integers(1, 3600),
    max_seconds=st.integers(1, 20_000),
    slices=st.integers(1, 6),
    seconds=st.floats(0, 30_000),
)
def test_no_meter_ever_charges_more_than_was_paid(
    price: int, slice_seconds: int, max_seconds: int, slices: int, seconds: float
) -> None:
    made = quote(price, slice_seconds, max_seconds)
    meter = Meter(made, min(slices, made.slice_count))
    meter.begin(0)
    assert 0 <= meter.cost(seconds) <= meter.paid
    if seconds >= meter.paid_seconds:
        assert meter.left_ms(seconds) == 0
        # each slice is rounded up to a whole atom, the whole time only once
        assert meter.paid - meter.cost(seconds) < meter.paid_slices


def test_a_job_of_many_slices_is_held_as_sums_and_its_newest(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.db")
    made = Job(
        job_id="job-" + "0" * 20,
        authorization="x:y",
        state=JobState.AWAITING_PAYMENT,
        spec=JobSpec(command=("true",)),
        quote=quote(slice_seconds=1, max_seconds=10_000),
        buyer=ADDRESS,
        key_hash="",
        phases=Phases(created=1),
    )
    store.add(made)
    for index in range(100):
        store.pay(made.job_id, Payment(slice=index, amount=7, transaction="0x1", payer=ADDRESS))
    for held in (store.get(made.job_id), JobStore(tmp_path / "jobs.db").get(made.job_id)):
        assert (held.slices_paid, held.paid, len(held.payments)) == (100, 700, PAYMENTS_HELD)
        assert held.payments[-1].slice == 99
    assert store.payment(made.job_id, 3) is not None
    assert store.payment(made.job_id, 100) is None


def test_a_log_survives_a_torn_line_and_pages_from_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = EventLog(path)
    for _ in range(1_000):
        log.append(StateEvent, at=1, state=JobState.RUNNING)
    log.close()
    with path.open("ab") as file:
        file.write(b'{"type":"state","seq":1001,"at"')
    again = EventLog(path)
    assert again.last_seq == 1_000
    again.append(StateEvent, at=2, state=JobState.FAILED)
    for since in (0, 1, 255, 256, 257, 999, 1_000, 1_001, 5_000):
        page = again.page(since, limit=2**30)
        assert len(page) == max(0, 1_001 - since)
        assert all(b'"seq":%d,' % (since + n + 1) in line for n, line in enumerate(page))
    assert len(again.page(0, limit=1_000)) < 50


def test_a_shrunk_log_keeps_its_last_event_under_its_number(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = EventLog(path)
    for at in range(600):
        log.append(StateEvent, at=at, state=JobState.RUNNING)
    log.shrink()
    for kept in (log, EventLog(path)):
        assert kept.last_seq == 600
        for since in (0, 300, 599):
            (line,) = kept.page(since)
            assert b'"seq":600,' in line
        assert kept.page(600) == []
    log.append(StateEvent, at=1, state=JobState.FAILED)
    assert len(log.page(0)) == 2 and log.last_seq == 601


async def test_a_follower_is_woken_at_once_and_told_of_silence(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log.jsonl")
    pages = log.pages(0, idle=0.05)
    assert await anext(pages) == []
    waiting = asyncio.ensure_future(anext(pages))
    await asyncio.sleep(0)
    log.append(StateEvent, at=1, state=JobState.RUNNING)
    assert len(await waiting) == 1


def test_gpus_go_whole_to_one_job_and_the_smallest_first() -> None:
    sizes = (80, 24, 24)
    gpus = [GPUInfo(vendor="nvidia", model="x", memory_bytes=n * 2**30) for n in sizes]
    slots = Slots(3, gpus, 2**40)
    small = JobSpec(command=("x",), gpu_count=1)
    large = JobSpec(command=("x",), gpu_count=1, min_vram_bytes=40 * 2**30)
    first = slots.take("a", small)
    assert first is not None and first.gpus == (1,)
    second = slots.take("b", large)
    assert second is not None and second.gpus == (0,)
    assert slots.take("c", large) is None
    slots.faulty = {2}
    assert slots.take("c", small) is None
    slots.release("a")
    assert slots.take("c", small) is not None
    assert (slots.holder(0), slots.holder(1), slots.holder(2)) == ("b", "c", "")


def test_memory_is_not_promised_twice() -> None:
    slots = Slots(4, (), 4 * 2**30)
    job = JobSpec(command=("x",), memory_bytes=3 * 2**30)
    assert slots.take("a", job) is not None
    assert slots.take("b", job) is None


def test_disk_is_not_promised_twice() -> None:
    slots = Slots(4, (), 2**40, 4 * 2**30)
    job = JobSpec(command=("x",), disk_bytes=3 * 2**30)
    assert slots.take("a", job) is not None
    assert slots.take("b", job) is None
    room = Room(4, 2**40, 4 * 2**30)
    work = Work(60, 0, disk_bytes=job.disk_bytes)
    assert starts_in([work], [], work, room) == 60
    slots.release("a")
    assert slots.take("b", job) is not None


@pytest.mark.parametrize("slow", [False, True])
async def test_chunks_of_a_line_come_together_and_no_byte_is_lost(slow: bool) -> None:
    async def source() -> AsyncIterator[Chunk]:
        for chunk in (b"one", b"\n", b"two", b"\nthr"):
            yield "stdout", chunk
        if slow:
            await asyncio.sleep(0.02)
        yield "stderr", b"!"
        yield "stdout", b"ee\n"

    got = [chunk async for chunk in coalesced(source())]
    assert got[0] == ("stdout", b"one\n")
    assert b"".join(d for s, d in got if s == "stdout") == b"one\ntwo\nthree\n"
    assert [s for s, _ in got] == ["stdout", "stdout", "stderr", "stdout"]
