"""Crashes, signals, a market that is down, and a wallet without gas: no paid job is ever lost."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aiohttp
import pytest
from lone_seller import moved, seller_process
from seller_rig import Rig, input_file, open_rig, output_of, spec

from computeswarm.chain.devnet import Devnet
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import ConfigError
from computeswarm.core.events import EndEvent
from computeswarm.core.states import JobState
from computeswarm.market import open_market
from computeswarm.server.market_app import build_market_app
from computeswarm.server.serving import Server

OpenRig = Callable[..., AbstractAsyncContextManager[Rig]]
ENDLESS = "import time\nprint('up', flush=True)\nwhile True: time.sleep(0.05)"


async def test_sigterm_hands_running_and_waiting_jobs_back(devnet: Devnet, tmp_path: Path) -> None:
    async with seller_process(devnet, tmp_path) as (process, r):
        before = await r.balance()
        running = await r.buy(spec(ENDLESS))
        waiting = await r.buy(spec())
        await running.first_output()
        assert before - await r.balance() == 20_000
        assert (r.paths.seller / "owner.json").stat().st_mode & 0o777 == 0o600
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) == 0
        assert await r.balance() == before
        assert not (r.paths.seller / "owner.json").exists()
    async with open_rig(devnet, tmp_path) as again:
        for bought in (running, waiting):
            view = await moved(bought, again).view()
            assert view.state is JobState.SELLER_LOST and "stopped" in view.reason
            assert view.refund is not None and view.refund.transaction


async def test_after_kill_9_running_jobs_are_refunded_and_waiting_ones_run(
    devnet: Devnet, tmp_path: Path
) -> None:
    async with seller_process(devnet, tmp_path) as (process, r):
        before = await r.balance()
        running = await r.buy(spec(ENDLESS))
        waiting = await r.buy(spec("print('after')"))
        uploading = await r.buy(
            spec("print(open('x').read())", inputs=[input_file("x", b"1"), input_file("y", b"2")])
        )
        await running.first_output()
        x, y = (await uploading.view()).missing_inputs
        assert (await uploading.call("PUT", f"/inputs/{x}", data=b"1")).status == 204
        process.kill()
        await process.wait()
    async with open_rig(devnet, tmp_path) as again:
        lost = moved(running, again)
        view = await again.refunded(lost)
        assert view.state is JobState.SELLER_LOST
        assert view.refund is not None and view.refund.amount == view.paid
        events = [event async for event in lost.follow()]
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert output_of(events) == b"up\n"
        assert (await moved(waiting, again).ended()).state is JobState.SUCCEEDED
        uploaded = moved(uploading, again)
        assert (await uploaded.view()).missing_inputs == (y,)
        assert (await uploaded.call("PUT", f"/inputs/{y}", data=b"2")).status == 204
        assert output_of([event async for event in uploaded.follow()]) == b"1\n"
        costs = 0
        for bought in (moved(waiting, again), uploaded):
            costs += (await again.refunded(bought)).cost
        assert before - await again.balance() == costs


async def test_a_payment_whose_reply_was_lost_in_a_crash_gets_its_job(
    devnet: Devnet, tmp_path: Path
) -> None:
    body = json.dumps({"spec": spec(ENDLESS), "job_id": "job-" + "3" * 20})
    async with seller_process(devnet, tmp_path) as (process, r):
        payment = r.payment(10_000)
        posting = asyncio.ensure_future(r.call("POST", "/execute", data=body, headers=payment))
        events = r.paths.seller / "events"
        async with asyncio.timeout(30):
            while not list(events.glob("*")) and not posting.done():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        process.kill()
        await process.wait()
        await asyncio.gather(posting, return_exceptions=True)
        endpoint = r.url
    # the payment is bound to the address it was made for
    async with open_rig(devnet, tmp_path, endpoint=endpoint) as again:
        replies = set()
        for _ in range(3):
            reply = await again.call("POST", "/execute", data=body, headers=payment)
            assert reply.status == 202, reply.body
            replies.add(reply.body)
        assert len(replies) == 1
        assert len(again.agent.desk.store.recent(10)) == 1


async def test_a_running_job_may_finish_within_the_grace(devnet: Devnet, tmp_path: Path) -> None:
    async with open_rig(devnet, tmp_path, grace=20) as r:
        bought = await r.buy(spec("import time;print(1,flush=True);time.sleep(0.5);print(2)"))
        await bought.first_output()
        follower = asyncio.ensure_future(bought.ended())
        await asyncio.sleep(0)
        stopping = asyncio.ensure_future(r.agent.stop(20))
        refused = await r.call("POST", "/quotes", json={"spec": spec()})
        assert refused.status == 503
        assert (await follower).state is JobState.SUCCEEDED
        await stopping


async def test_a_market_that_is_down_stops_no_job_and_is_found_later(
    devnet: Devnet, tmp_path: Path
) -> None:
    market = Server(build_market_app(open_market(tmp_path / "late.db")))
    url = await market.start("127.0.0.1", 0)
    await market.close()
    port = int(url.rpartition(":")[2])
    async with open_rig(devnet, tmp_path, market_url=url) as r:
        status = r.agent.status()
        assert not status.market.connected and "does not answer" in status.market.problem
        bought = await r.buy(spec())
        assert (await bought.ended()).state is JobState.SUCCEEDED
        market = Server(build_market_app(open_market(tmp_path / "late.db")))
        async with market:
            await market.start("127.0.0.1", port)
            async with asyncio.timeout(30):
                while not r.agent.status().market.connected:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            nodes = (await r.call("GET", f"{url}/api/v1/nodes")).json["nodes"]
            assert [node["node_id"] for node in nodes] == [r.agent.node_id]


async def test_a_market_that_forgot_us_is_told_again(devnet: Devnet, tmp_path: Path) -> None:
    async with open_rig(devnet, tmp_path) as r:
        agent = r.agent
        url = f"{r.market_url}/api/v1/nodes/{agent.node_id}"
        await agent.market._session.call("DELETE", f"/api/v1/nodes/{agent.node_id}")
        assert (await r.call("GET", url)).status == 404
        agent.market.refresh()
        async with asyncio.timeout(30):
            while (await r.call("GET", url)).status != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def test_leaving_takes_the_node_off_the_market(devnet: Devnet, tmp_path: Path) -> None:
    async with Server(build_market_app(open_market(tmp_path / "m.db"))) as market:
        url = await market.start("127.0.0.1", 0)
        async with open_rig(devnet, tmp_path, market_url=url) as r:
            node = f"{url}/api/v1/nodes/{r.agent.node_id}"
            assert (await r.call("GET", node)).json["status"] == "idle"
        async with aiohttp.ClientSession() as session, session.get(node) as reply:
            assert reply.status == 404 or (await reply.json())["status"] == "offline"


async def test_without_gas_nothing_is_sold_and_the_owner_is_told(
    devnet: Devnet, tmp_path: Path
) -> None:
    key = PrivateKey.generate()
    async with open_rig(devnet, tmp_path, key=key) as r:
        for path in ("/quotes", "/execute"):
            reply = await r.call("POST", path, json={"spec": spec()})
            assert reply.status == 503 and "gas" in reply.json["detail"]
        status = r.agent.status()
        assert not status.accepting and "gas" in status.notes[0]
        assert status.gas_wei == "0"


async def test_two_sellers_never_share_a_folder(devnet: Devnet, tmp_path: Path) -> None:
    async with open_rig(devnet, tmp_path):
        with pytest.raises(ConfigError, match="already"):
            async with open_rig(devnet, tmp_path):
                pass


async def test_outputs_and_logs_are_kept_for_their_time_only(
    devnet: Devnet, tmp_path: Path
) -> None:
    code = "print('x'*1000);open('outputs/a','w').write('a'*1000)"
    async with open_rig(devnet, tmp_path, keep_outputs=1) as r:
        bought = await r.buy(spec(code))
        *_, last = [event async for event in bought.follow()]
        assert isinstance(last, EndEvent) and last.job.outputs_ready
        view = await bought.until(lambda view: not view.outputs_ready)
        assert view.state is JobState.SUCCEEDED
        assert (await bought.call("GET", "/outputs")).status == 410
        assert [event.type async for event in bought.follow()] == ["end"]
        assert not list((r.paths.seller / "outputs").iterdir())
    async with open_rig(devnet, tmp_path, config={"store_bytes": 1500}) as r:
        first = await r.buy(spec(code))
        await first.ended()
        second = await r.buy(spec(code))
        await second.ended()
        await first.until(lambda view: not view.outputs_ready)


async def test_a_stream_ends_even_if_a_crash_came_before_its_last_event(
    devnet: Devnet, tmp_path: Path
) -> None:
    async with open_rig(devnet, tmp_path) as r:
        bought = await r.buy(spec())
        await bought.ended()
    path = r.paths.seller / "events" / f"{bought.job_id}.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    async with open_rig(devnet, tmp_path) as again:
        events = [event async for event in moved(bought, again).follow()]
        assert events[-1].type == "end" and events[-1].seq == len(lines)
