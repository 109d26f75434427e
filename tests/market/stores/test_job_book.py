"""The job book on either store, and while two instances write at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from store_hands import KEY, OTHER, SPEC, WALLET, all_nodes, job_id, node_id, row

from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import (
    BadRequest,
    Conflict,
    InvalidTransition,
    JobNotFound,
    Unauthorized,
    Unprocessable,
)
from computeswarm.core.jobs import SUBMISSION_KIND, JobSubmission, JobUpdate, MarketJob
from computeswarm.core.signing import Document, Signed
from computeswarm.core.states import JobState
from computeswarm.market.jobs import JobBook, Step
from computeswarm.market.stores.protocol import Store

BUYER = PrivateKey(bytes(31) + b"\x05")


class Told:
    """Who a book tells."""

    def __init__(self, store: Store) -> None:
        self.jobs: list[MarketJob] = []
        self.book = JobBook(store, changed=self.jobs.append)

    async def submit(self, n: int, now: int = 1_000, **changes: Any) -> tuple[MarketJob, bool]:
        signed = submission(n, **changes)
        document = JobSubmission.model_validate(signed.document)
        return await self.book.submit(signed, document, WALLET, now)

    async def update(self, n: int, counter: int, now: int = 1_001, **members: Any) -> Step:
        return await self.book.update(
            job_id(n),
            JobUpdate.model_validate(members),
            node_id=node_id(1),
            session_key=KEY,
            counter=counter,
            now=now,
        )


class LaterSubmission(JobSubmission):
    """As a later version may write it, or somebody who keeps things at other people's markets."""

    script: str = ""


def submission(n: int, **changes: Any) -> Signed:
    given = {
        "job_id": job_id(n),
        "node_id": node_id(1),
        "buyer": BUYER.address,
        "spec_hash": SPEC,
        "price_per_hour": 5,
        "max_seconds": 60,
        "issued_at": 1_000,
    }
    model: type[Document] = LaterSubmission if "script" in changes else JobSubmission
    return Signed.make(BUYER, SUBMISSION_KIND, 84532, model.model_validate(given | changes))


@pytest.fixture
async def told(store: Store) -> Told:
    await store.save_node(row())
    made = Told(store)
    await made.book.open()
    return made


async def test_a_job_from_its_submission_to_its_end(told: Told, store: Store) -> None:
    made, new = await told.submit(1)
    assert (made.state, made.seller, new) == ("created", WALLET, True)
    assert await told.submit(1) == (made, False)
    with pytest.raises(Conflict):
        await told.submit(1, max_seconds=61)
    with pytest.raises(JobNotFound):
        await told.update(2, 1, state="running")
    assert (await told.update(1, 1, state="running", paid=7)).succeeded == 0
    step = await told.update(1, 2, state="succeeded", metered_ms=50, refunded=3)
    assert (step.job.paid, step.job.refunded, step.succeeded, step.failed) == (7, 3, 1, 0)
    with pytest.raises(InvalidTransition):
        await told.update(1, 3, state="running")
    again = await told.update(1, 4, state="succeeded")
    assert again == Step(step.job, 0, 0)
    assert [str(job.state) for job in told.jobs] == ["created", "running", "succeeded"]
    assert (await all_nodes(store))[node_id(1)].succeeded == 1
    await told.book.open()
    totals = told.book.totals
    assert (totals.by_state, totals.paid, totals.ended) == ({"succeeded": 1}, 4, 1)


async def test_only_its_node_under_a_good_session_moves_a_job(told: Told, store: Store) -> None:
    await told.submit(1)
    other = {"job_id": job_id(1), "update": JobUpdate(state="running"), "counter": 9, "now": 1}
    for members in (
        {"node_id": node_id(2), "session_key": KEY},
        {"node_id": node_id(1), "session_key": bytes(32)},
    ):
        with pytest.raises(Unauthorized):
            await told.book.update(**other, **members)  # type: ignore[arg-type]
    await told.update(1, 5, state="queued")
    with pytest.raises(Unauthorized):
        await told.update(1, 5, state="running")  # that call was seen before
    assert (await told.book.get(job_id(1))).state == "queued"


async def test_a_history_has_each_job_once_newest_first(told: Told) -> None:
    for n in range(1, 12):
        await told.submit(n, now=1_000 + n // 3)
    for wallet in (BUYER.address, WALLET):
        found: list[MarketJob] = []
        cursor = ""
        while True:
            page = await told.book.of_wallet(wallet, cursor=cursor, limit=4)
            found += page.jobs
            if page.next is None:
                break
            cursor = page.next
            if len(found) == 4:
                await told.submit(50, now=2_000)  # newer ones shift nothing
        assert [job.job_id for job in found if job.job_id != job_id(50)] == [
            job_id(n) for n in range(11, 0, -1)
        ]
    assert not (await told.book.of_wallet(OTHER)).jobs
    for cursor in ("x", "1", "-1." + job_id(1), "1." + job_id(1) + "\n", "²." + job_id(1)):
        with pytest.raises(BadRequest):
            await told.book.of_wallet(WALLET, cursor=cursor)


async def test_nothing_but_metadata_is_taken(told: Told, store: Store) -> None:
    with pytest.raises(Unprocessable, match="metadata"):
        await told.submit(1, script="import os")
    assert await store.job(job_id(1)) is None
    assert not told.jobs


async def test_a_change_that_another_instance_was_faster_with_is_tried_again(
    pair: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = map(Told, pair)
    await pair[0].save_node(row())
    await first.submit(1)
    read = pair[1].job
    steps = [(2, "queued"), (3, "starting")]

    async def overtaken(wanted: str) -> tuple[MarketJob, str] | None:
        kept = await read(wanted)
        if steps:
            counter, state = steps.pop(0)
            await first.update(1, counter, state=state)
        return kept

    monkeypatch.setattr(pair[1], "job", overtaken)
    step = await second.update(1, 10, state="running", paid=5)
    assert (step.job.state, step.job.paid) == ("running", 5)
    assert [job.state for job in second.jobs] == ["running"]
    assert (await first.book.get(job_id(1))) == step.job


async def test_instances_that_end_a_job_at_once_count_it_once(pair: tuple[Store, Store]) -> None:
    books = [Told(store) for store in pair]
    await pair[0].save_node(row())
    for n in range(1, 9):
        await books[0].submit(n)
    ends = [
        books[number % 2].update(1 + number % 8, 100 + number, state="succeeded", metered_ms=1)
        for number in range(32)
    ]
    # from running on, so that all of them may come
    for n in range(1, 9):
        await books[0].update(n, n, state="running")
    done = await asyncio.gather(*ends, return_exceptions=True)
    assert {type(one) for one in done} <= {Step, Unauthorized}
    ended = [(await books[0].book.get(job_id(n))).state for n in range(1, 9)]
    counted = (await all_nodes(pair[0]))[node_id(1)].succeeded
    assert counted == ended.count(JobState.SUCCEEDED) > 0
    assert sum(one.succeeded for one in done if isinstance(one, Step)) == counted
