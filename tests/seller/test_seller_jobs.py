"""Jobs from payment to end over real HTTP, on a real chain, listed at a real market."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from seller_rig import Rig, output_of, spec, stored

from computeswarm.core.events import MeterEvent, PaymentEvent, StateEvent
from computeswarm.core.jobs import SUBMISSION_KIND, JobSubmission
from computeswarm.core.signing import Signed
from computeswarm.core.states import JobState

OpenRig = Callable[..., AbstractAsyncContextManager[Rig]]
ENDLESS = "import time\nprint('up')\nwhile True: time.sleep(0.05)"


async def test_a_job_costs_what_it_ran_and_the_rest_comes_back(rig: OpenRig) -> None:
    async with rig() as r:
        before = await r.balance()
        code = "import time;print('hello');open('outputs/a.txt','w').write('x');time.sleep(0.3)"
        bought = await r.buy(spec(code))
        events = [event async for event in bought.follow()]
        view = await r.refunded(bought)

        assert output_of(events) == b"hello\n"
        assert [e.seq for e in stored(events)] == list(range(1, view.last_seq + 1))
        assert (view.state, view.exit_code, view.slices_paid) == (JobState.SUCCEEDED, 0, 1)
        assert 300 <= view.metered_ms < 10_000
        assert view.cost == view.metered_ms and view.paid == 10_000  # a ms costs an atom
        assert view.refund is not None and view.refund.amount == view.paid - view.cost
        assert before - await r.balance() == view.cost
        assert view.next_payment_due_ms is None
        listed = (await bought.call("GET", "/outputs")).json["files"]
        assert [file["path"] for file in listed] == ["a.txt"]
        assert (await bought.call("GET", "/outputs/a.txt")).body == b"x"


async def test_the_market_hears_how_the_job_ended(rig: OpenRig) -> None:
    async with rig() as r:
        job = spec()
        quote = (await r.quote(job)).document
        submission = JobSubmission(
            job_id="job-" + "ab" * 10,
            node_id=r.agent.node_id,
            buyer=r.buyer.address,
            spec_hash=quote["spec_hash"],
            price_per_hour=quote["price_per_hour"],
            max_seconds=60,
            issued_at=quote["issued_at"],
        )
        signed = Signed.make(r.buyer, SUBMISSION_KIND, 84532, submission)
        url = f"{r.market_url}/api/v1/jobs"
        told = await r.call("POST", f"{url}/submit", data=signed.model_dump_json())
        assert told.status == 201, told.body
        bought = await r.buy(job, job_id=submission.job_id)
        view = await bought.ended()
        await r.agent.market.settled()
        kept = (await r.call("GET", f"{url}/{bought.job_id}")).json
        assert kept["state"] == "succeeded"
        assert view.refund is not None
        assert (kept["paid"], kept["refunded"]) == (view.paid, view.refund.amount)
        assert kept["metered_ms"] == view.metered_ms


async def test_slices_paid_in_time_keep_a_job_running(rig: OpenRig) -> None:
    # slices long enough to be paid in time on a slow machine; 3.75 s is the first with its grace
    async with rig(slice_seconds=3) as r:
        bought = await r.buy(spec("import time;print(1,flush=True);time.sleep(4);print(2)"))
        assert bought.quote is not None
        for index in (1, 2):
            asked = await bought.call("POST", "/payments", json={"slice": index})
            assert asked.status == 402
            assert asked.json["accepts"][0]["maxAmountRequired"] == "3000"
            paid = await bought.pay(index)
            assert paid.status == 200, paid.body
            assert paid.json["slices_paid"] == index + 1
        events = [event async for event in bought.follow()]
        view = await bought.view()
        assert output_of(events) == b"1\n2\n"
        assert view.state is JobState.SUCCEEDED
        assert view.cost == min(view.metered_ms, 9_000) and 3_750 < view.cost <= view.paid == 9_000
        paid_events = [e for e in events if isinstance(e, PaymentEvent) and e.direction == "paid"]
        assert [e.slice for e in paid_events] == [0, 1, 2]
        assert all(e.transaction for e in paid_events)
        meters = [e for e in events if isinstance(e, MeterEvent)]
        assert meters and all(m.paid == 3_000 * m.slices_paid for m in meters)


async def test_a_job_whose_slices_stop_ends_after_its_grace(rig: OpenRig) -> None:
    async with rig(slice_seconds=1) as r:
        code = (
            "import signal,sys,time\n"
            "def bye(*_):\n open('outputs/saved','w').write('y'); sys.exit(0)\n"
            "signal.signal(signal.SIGTERM, bye)\nprint('up')\ntime.sleep(60)"
        )
        bought = await r.buy(spec(code))
        events = [event async for event in bought.follow()]
        view = await bought.view()
        assert view.state is JobState.OUT_OF_FUNDS
        assert view.cost == view.paid == 1_000 and view.refund is None
        assert view.metered_ms >= 3_000
        assert any("ends in 2 s" in e.reason for e in events if isinstance(e, StateEvent))
        assert (await bought.call("GET", "/outputs/saved")).body == b"y"


async def test_the_time_limit_ends_a_job_whatever_is_paid(rig: OpenRig) -> None:
    async with rig(slice_seconds=1) as r:
        bought = await r.buy(spec(ENDLESS, max_seconds=1))
        view = await bought.ended()
        assert view.state is JobState.TIMED_OUT
        assert view.cost == view.paid == 1_000
        late = await bought.call("POST", "/payments", json={"slice": 1})
        assert late.status == 409


async def test_cancel_ends_a_running_job_and_gives_back_the_unused(rig: OpenRig) -> None:
    async with rig() as r:
        before = await r.balance()
        bought = await r.buy(spec(ENDLESS))
        await bought.first_output()
        reply = await bought.call("POST", "/cancel")
        assert reply.status == 200 and reply.json["state"] == "cancelled"
        view = await r.refunded(bought)
        assert 0 < view.cost < 5_000
        assert before - await r.balance() == view.cost
        again = await bought.call("POST", "/cancel")
        assert again.status == 200 and again.json["state"] == "cancelled"


async def test_one_slot_makes_a_queue_and_waiting_costs_nothing(rig: OpenRig) -> None:
    async with rig() as r:
        first = await r.buy(spec(ENDLESS))
        second = await r.buy(spec("print('second')"))
        third = await r.buy(spec("print('third')"))
        await first.first_output()
        assert (await second.view()).queue_position == 1
        assert (await third.view()).queue_position == 2
        gone = await second.call("POST", "/cancel")
        assert gone.json["state"] == "cancelled"
        assert gone.json["refund"]["amount"] == gone.json["paid"] == 10_000
        assert (await third.view()).queue_position == 1
        await first.call("POST", "/cancel")
        assert (await third.ended()).state is JobState.SUCCEEDED


async def test_a_silent_job_is_metered_from_its_launch(rig: OpenRig) -> None:
    async with rig(config={"silent_start": 0.3}) as r:
        silent = await r.buy(spec("import time;time.sleep(0.8)"))
        assert (await silent.ended()).metered_ms >= 700
    async with rig(config={"silent_start": 60}) as r:
        short = await r.buy(spec("pass"))
        view = await short.ended()
        assert view.state is JobState.SUCCEEDED
        assert view.refund is not None and (view.cost, view.refund.amount) == (0, 10_000)


async def test_a_failing_command_is_paid_for_and_says_its_code(rig: OpenRig) -> None:
    async with rig() as r:
        bought = await r.buy(spec("import sys;print('oops',file=sys.stderr);sys.exit(7)"))
        events = [event async for event in bought.follow()]
        view = await bought.view()
        assert output_of(events, "stderr") == b"oops\n"
        assert (view.state, view.exit_code) == (JobState.FAILED, 7)
        assert "exit code 7" in view.reason


async def test_output_beyond_the_cap_is_dropped_and_said(rig: OpenRig) -> None:
    async with rig(config={"output_bytes": 2**20}) as r:
        code = "import sys\nfor _ in range(64): sys.stdout.write('x'*65536)\nprint('end')"
        bought = await r.buy(spec(code))
        events = [event async for event in bought.follow()]
        assert len(output_of(events)) == 2**20
        assert b"1 MiB of output" in output_of(events, "stderr")
        assert (await bought.view()).state is JobState.SUCCEEDED


async def test_a_slow_follower_slows_no_job(rig: OpenRig) -> None:
    async with rig() as r:
        code = "import sys\nfor _ in range(160): sys.stdout.write('x'*65536)\nprint('end')"
        bought = await r.buy(spec(code))
        url = f"{r.url}/jobs/{bought.job_id}/stream"
        async with r.session.ws_connect(url, headers=bought.auth):  # never reads
            view = await bought.until(lambda view: view.state.terminal)
        assert view.state is JobState.SUCCEEDED
        events = [event async for event in bought.follow()]
        assert len(output_of(events)) == 160 * 65536 + 4


async def test_a_stream_resumes_without_gap_or_double(rig: OpenRig) -> None:
    async with rig() as r:
        code = "import time\nfor i in range(40):\n print(i, flush=True)\n time.sleep(0.01)"
        bought = await r.buy(spec(code))
        got, last = [], 0
        for stop_after in (3, 5, 7):
            seen = 0
            async for event in bought.follow(last):
                if isinstance(event, MeterEvent):
                    continue
                got.append(event)
                last = event.seq
                seen += 1
                if seen == stop_after:
                    break
        got += [event async for event in bought.follow(last)]
        kept = stored(got)
        assert [event.seq for event in kept] == list(range(1, len(kept) + 1))
        assert output_of(kept) == b"".join(b"%d\n" % i for i in range(40))
        page = (await bought.call("GET", f"/events?since={last}")).json
        assert page["last_seq"] == len(kept)
        assert [event["seq"] for event in page["events"]] == list(range(last + 1, len(kept) + 1))


async def test_small_refunds_wait_as_owed(rig: OpenRig) -> None:
    async with rig(price="0.036") as r:  # a slice is 100 atoms
        bought = await r.buy(spec("print(1)"))
        view = await bought.ended()
        assert view.refund is not None and 0 < view.refund.amount <= 100
        assert view.refund.transaction == ""
        async with asyncio.timeout(30):  # the sums are looked at now and then
            while r.agent.status().earnings.total.owed < view.refund.amount:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
