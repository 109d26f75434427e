"""What a buyer who means harm, or a full disk, tries on the seller."""

from __future__ import annotations

import asyncio
import errno
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from seller_rig import Rig, input_file, open_rig, output_of, spec
from test_seller_faults import ENDLESS, moved, seller_process

from computeswarm.chain.devnet import Devnet
from computeswarm.core.errors import StorageFull
from computeswarm.core.nodes import GPUInfo
from computeswarm.core.states import JobState
from computeswarm.seller.desk import JobDesk
from computeswarm.seller.eventlog import EventLog
from computeswarm.seller.gpus import GpuReading
from computeswarm.seller.store import JobStore
from computeswarm.server.seller_app import LARGE_BODIES

OpenRig = Callable[..., AbstractAsyncContextManager[Rig]]
NO_SPACE = OSError(errno.ENOSPC, "No space left on device")


def hold_receipts(r: Rig, monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """The chain's answers wait: (a transaction is out, let its receipt come)."""
    sender = r.agent.settlements._sender
    out, go, wait_receipt = asyncio.Event(), asyncio.Event(), sender.wait_receipt

    async def held(*args: Any, **options: Any) -> Any:
        out.set()
        await go.wait()
        return await wait_receipt(*args, **options)

    monkeypatch.setattr(sender, "wait_receipt", held)
    return out, go


async def test_a_slice_that_settles_after_the_end_goes_back_whole(
    rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig() as r:
        before = await r.balance()
        bought = await r.buy(spec(ENDLESS))
        await bought.first_output()
        out, go = hold_receipts(r, monkeypatch)
        paying = asyncio.ensure_future(bought.pay(1))
        await out.wait()
        ended = await bought.call("POST", "/cancel")
        assert ended.json["state"] == "cancelled" and ended.json["paid"] == 10_000
        go.set()
        assert (await paying).status == 200

        def late_one_back(_: object) -> bool:
            rows = r.agent.settlements.refunds(f"{bought.job_id}#1")
            return [row.amount for row in rows if row.transaction] == [10_000]

        await bought.until(late_one_back)
        view = await r.refunded(bought)
        assert view.refund is not None and view.paid == 20_000 == view.cost + view.refund.amount
        assert before - await r.balance() == view.cost


async def test_anothers_failing_payment_costs_nobody_his_job(
    rig: OpenRig, devnet: Devnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The market tells everybody the ids of jobs."""
    other = devnet.keys[4]
    async with rig(trusted=[devnet.keys[0].address, other.address]) as r:
        out, go = hold_receipts(r, monkeypatch)
        job_id = "job-" + "7" * 20
        buying = asyncio.ensure_future(r.buy(spec(), job_id=job_id))
        await out.wait()
        body = {"spec": spec("print('mine')"), "job_id": job_id}
        rival = await r.call("POST", "/execute", json=body, headers=r.payment(10_000, key=other))
        assert rival.status == 409
        go.set()
        events = [event async for event in (await buying).follow()]
        assert output_of(events) == b"hello\n"


async def test_a_full_disk_keeps_what_is_paid_pending_and_loses_nothing(
    rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig() as r:
        monkeypatch.setattr("computeswarm.seller.takings._DISK_SECONDS", 0.02)
        before, tries, pay, full = await r.balance(), 0, JobStore.pay, True

        def no_room(store: JobStore, *args: Any) -> Any:
            nonlocal tries
            if not full:
                return pay(store, *args)
            tries += 1
            raise StorageFull("jobs.db can't be written; free some disk space.")

        monkeypatch.setattr(JobStore, "pay", no_room)
        buying = asyncio.ensure_future(r.buy(spec()))
        async with asyncio.timeout(30):
            while tries < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        (job,) = r.agent.desk.store.live()
        assert job.state is JobState.AWAITING_PAYMENT and not buying.done()
        assert before - await r.balance() == 10_000
        assert any("free some disk" in event.text for event in r.agent.status().events)
        full = False
        view = await r.refunded(await buying)
        assert view.state is JobState.SUCCEEDED and view.paid == 10_000
        assert before - await r.balance() == view.cost


async def test_a_job_whose_log_can_not_be_opened_ends_when_there_is_room(
    rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig() as r:
        monkeypatch.setattr("computeswarm.seller.desk._RETRY_SECONDS", 0.02)
        log, full = JobDesk.log, True

        def no_room(desk: JobDesk, job_id: str) -> EventLog:
            if full:
                raise NO_SPACE
            return log(desk, job_id)

        bought = await r.buy(spec(inputs=[input_file("x", b"1")]))
        monkeypatch.setattr(JobDesk, "log", no_room)
        ending = asyncio.ensure_future(r.agent.evict(bought.job_id))
        await asyncio.wait({ending}, timeout=0.2)
        assert not ending.done()
        full = False
        assert (await ending).state is JobState.SELLER_LOST
        view = await r.refunded(bought)
        assert view.refund is not None and view.refund.amount == view.paid
        assert [event.type async for event in bought.follow()][-1] == "end"


async def test_outputs_that_can_not_be_kept_leave_nothing_on_the_disk(rig: OpenRig) -> None:
    async with rig() as r:
        # no bytes to speak of, but more files than are taken: those before the limit were copied
        code = "for i in range(10001): open(f'outputs/{i}','w').close()"
        bought = await r.buy(spec(code))
        assert (await bought.ended()).state is JobState.SUCCEEDED
        listed = (await bought.call("GET", "/outputs")).json
        assert listed["files"] == [] and "10000 files" in listed["truncated"]
        assert not r.agent.desk.outputs_folder(bought.job_id).exists()


async def test_short_lines_do_not_make_a_log_without_bounds(rig: OpenRig) -> None:
    async with rig(config={"output_bytes": 2048}) as r:
        code = "import time\nfor i in range(400):\n print(flush=True)\n time.sleep(0.005)"
        bought = await r.buy(spec(code))
        assert (await bought.ended()).state is JobState.SUCCEEDED
        size = (r.paths.seller / "events" / f"{bought.job_id}.jsonl").stat().st_size
        assert size < 4 * 2048 + 4096  # its steps and its end


async def test_one_input_sent_many_times_at_once_is_stored_once(rig: OpenRig) -> None:
    go = asyncio.Event()

    async def slowly() -> Any:
        yield b"a"
        await go.wait()
        yield b"a"

    async with rig() as r:
        inputs = [input_file("x", b"aa"), input_file("y", b"")]
        bought = await r.buy(spec("print(1)", inputs=inputs))
        digest = (await bought.view()).missing_inputs[0]
        path = f"/inputs/{digest}"
        slow = [asyncio.ensure_future(bought.call("PUT", path, data=slowly())) for _ in range(8)]
        inputs = r.agent.inputs
        async with asyncio.timeout(30):
            while inputs._arriving[bought.job_id] < 8:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await bought.call("PUT", path, data=b"aa")).status == 429
        slow.pop().cancel()
        async with asyncio.timeout(30):
            while inputs._arriving[bought.job_id] > 7:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        # the newest request goes on: who comes again does not wait for a line that is dead
        assert (await bought.call("PUT", path, data=b"aa")).status == 204
        await bought.call("POST", "/cancel")
        go.set()
        assert {reply.status for reply in await asyncio.gather(*slow)} <= {204, 409}
        (wallet,) = (r.paths.seller / "inputs").iterdir()
        assert [path.read_bytes() for path in wallet.iterdir()] == [b"aa"]
        assert r.agent.dispatcher.upload_seen == {} == r.agent.dispatcher.upload_until


async def test_a_trickle_of_input_holds_no_place_for_ever(
    rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig() as r:
        bought = await r.buy(spec(inputs=[input_file("x", b"aa")]))
        left = r.agent.dispatcher.upload_until[bought.job_id] - r.agent.clock.monotonic()
        assert 590 < left < 601
        r.agent.dispatcher.upload_until[bought.job_id] = 0
        view = await bought.ended()
        assert view.state is JobState.FAILED and "slowly" in view.reason
        assert (await r.refunded(bought)).cost == 0


async def test_streams_of_one_job_are_limited(rig: OpenRig) -> None:
    async with rig() as r:
        bought = await r.buy(spec(ENDLESS))
        url = f"{r.url}/jobs/{bought.job_id}/stream"
        async with AsyncExitStack() as stack:
            for _ in range(16):
                await stack.enter_async_context(r.session.ws_connect(url, headers=bought.auth))
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await r.session.ws_connect(url, headers=bought.auth)
            assert refused.value.status == 429
        await bought.call("POST", "/cancel")
        assert (await bought.ended()).state is JobState.CANCELLED


async def test_inputs_with_impossible_names_end_their_job_only(rig: OpenRig) -> None:
    async with rig() as r:
        file = input_file("n" * 300, b"")
        bought = await r.buy(spec(inputs=[file]))
        assert (await bought.call("PUT", f"/inputs/{file['sha256']}", data=b"")).status == 204
        view = await bought.ended()
        assert view.state is JobState.FAILED and "name too long" in view.reason
        assert view.cost == 0


async def test_a_job_that_waited_for_a_gpu_to_recover_starts_by_itself(rig: OpenRig) -> None:
    async with rig() as r:
        slots = r.agent.slots
        slots.count = 0
        bought = await r.buy(spec())
        assert (await bought.view()).state is JobState.QUEUED
        slots.count = 1  # nobody tells the queue
        assert (await bought.ended()).state is JobState.SUCCEEDED


async def test_a_job_for_a_lost_gpu_holds_up_nobody(rig: OpenRig) -> None:
    async with rig() as r:
        slots = r.agent.slots
        slots.count = 0
        stuck, behind = await r.buy(spec()), await r.buy(spec())
        gpu = GPUInfo(vendor="nvidia", model="RTX", memory_bytes=2**34)
        slots.gpus = (gpu,)
        r.agent.machine._now = [GpuReading(fault="It fell off the bus.")]
        job = r.agent.desk.store.get(stuck.job_id)
        wanting = job.spec.model_copy(update={"gpu_count": 1})
        r.agent.desk.store.update(stuck.job_id, spec=wanting)
        slots.count = 1
        assert (await behind.ended()).state is JobState.SUCCEEDED
        assert (await stuck.view()).state is JobState.QUEUED


async def test_a_second_ctrl_c_leaves_at_once_and_the_next_start_pays_back(
    devnet: Devnet, tmp_path: Path
) -> None:
    stubborn = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + ENDLESS
    async with seller_process(devnet, tmp_path) as (process, r):
        before = await r.balance()
        bought = await r.buy(spec(stubborn))
        await bought.first_output()
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            while (await r.call("GET", "/health")).json["status"] != "stopping":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 30) == 0
    async with open_rig(devnet, tmp_path) as again:
        view = await again.refunded(moved(bought, again))
        assert view.state is JobState.SELLER_LOST
        assert await again.balance() == before


async def test_many_large_requests_fill_no_memory_and_stop_no_small_one(rig: OpenRig) -> None:
    go = asyncio.Event()

    async def slowly() -> Any:
        yield b" "
        await go.wait()

    async with rig() as r:
        held = [
            asyncio.ensure_future(r.call("POST", "/quotes", data=slowly()))
            for _ in range(LARGE_BODIES + 1)
        ]
        done, _ = await asyncio.wait(held, return_when=asyncio.FIRST_COMPLETED, timeout=15)
        assert [task.result().status for task in done] == [503]
        assert (await r.call("POST", "/quotes", json={"spec": spec()})).status == 200
        go.set()
        assert {reply.status for reply in await asyncio.gather(*held)} == {400, 503}
        large = spec(env={f"A{i}": "x" * 30_000 for i in range(4)})
        assert (await r.call("POST", "/quotes", json={"spec": large})).status == 200


async def test_no_payment_is_looked_at_while_the_seller_recovers(rig: OpenRig) -> None:
    async with rig() as r:
        bought = await r.buy(spec(ENDLESS))
        body = {"spec": spec(), "job_id": "job-" + "8" * 20}
        r.agent.ready = False
        early = await r.call("POST", "/execute", json=body, headers=r.payment(10_000))
        slice_ = await bought.pay(1)
        r.agent.ready = True
        assert (early.status, slice_.status) == (503, 503)
        assert not r.agent.settlements.claims("job-" + "8" * 20)
        assert len(r.agent.settlements.claims(bought.job_id)) == 1


async def test_a_look_at_an_output_sends_none_of_it(rig: OpenRig) -> None:
    """Or a job would write what the next request on the same line takes for its answer."""
    async with rig() as r:
        bought = await r.buy(spec("open('outputs/a','w').write('HTTP/1.1 200 OK\\r\\n\\r\\n')"))
        await bought.ended()
        seen = await bought.call("HEAD", "/outputs/a")
        assert (seen.status, seen.headers["Content-Length"], seen.body) == (200, "19", b"")
        assert len((await bought.call("GET", "/outputs/a")).body) == 19


async def test_a_slice_is_not_sold_twice_after_a_restart(
    rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig() as r:
        bought = await r.buy(spec(ENDLESS))
        out, go = hold_receipts(r, monkeypatch)
        paying = asyncio.ensure_future(bought.pay(1))
        await out.wait()
        r.agent.intake._settling.clear()  # all that a restart forgets
        assert (await bought.pay(1)).status == 409
        go.set()
        assert (await paying).status == 200
        assert (await bought.view()).slices_paid == 2


async def test_payments_under_way_count_as_waiting(
    rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(config={"queue_limit": 1}) as r:
        out, go = hold_receipts(r, monkeypatch)
        buying = asyncio.ensure_future(r.buy(spec()))
        await out.wait()
        late = await r.call("POST", "/execute", json={"spec": spec()}, headers=r.payment(10_000))
        assert late.status == 503 and "queue is full" in late.json["detail"]
        go.set()
        assert (await (await buying).ended()).state is JobState.SUCCEEDED
        assert len(r.agent.desk.store.recent(10)) == 1
