"""The owner's say: prices and places, his hours, his own use of the GPU, drain, and what he chose
before a restart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from seller_rig import PRICE, Bought, Reply, Rig, output_of, spec

from computeswarm.core.errors import ConfigError, InvalidTransition
from computeswarm.core.events import StateEvent
from computeswarm.core.nodes import GPUInfo, Hardware, NodeStatus
from computeswarm.core.quotes import Quote
from computeswarm.core.settings import Settings
from computeswarm.core.signing import Signed
from computeswarm.core.states import JobState
from computeswarm.core.windows import Windows
from computeswarm.seller import owner_use
from computeswarm.seller.executors.running import ChildRunning
from computeswarm.seller.owner_client import OwnerClient
from computeswarm.seller.recovery import MAX_RESTARTS

OpenRig = Callable[..., AbstractAsyncContextManager[Rig]]
ENDLESS = "import time\nprint('up', flush=True)\nwhile True: time.sleep(0.05)"
CARD = GPUInfo(vendor="nvidia", model="RTX", memory_bytes=2**34)
WITH_GPU = {"hardware": Hardware(cpu_model="X", cpu_cores=2, memory_bytes=2**34, gpus=(CARD,))}


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def hours_until(minutes: float) -> Windows:
    """A window that began an hour ago and ends in some minutes."""
    begun, ends = (datetime.now() + timedelta(minutes=m) for m in (-60, minutes))
    return Windows.parse(f"{begun:%H:%M}-{ends:%H:%M}")


def shut() -> Windows:
    """A window that begins in two hours."""
    begins, ends = (datetime.now() + timedelta(hours=h) for h in (2, 3))
    return Windows.parse(f"{begins:%H:%M}-{ends:%H:%M}")


async def ask(r: Rig, **members: Any) -> Reply:
    return await r.call("POST", "/quotes", json={"spec": spec(), **members})


async def buy_at(r: Rig, job: dict[str, Any], offer: int) -> Bought:
    """A job that is bought at a higher price than is asked."""
    reply = await r.call("POST", "/quotes", json={"spec": job, "offer_per_hour": offer})
    assert reply.status == 200, reply.body
    signed = Signed.model_validate_json(reply.body)
    quote = Quote.model_validate(signed.document)
    body = {"spec": job, "quote": signed.model_dump(mode="json"), "access_key": "ab" * 32}
    paid = r.payment(quote.slice_amount(0))
    bought = await r.call("POST", "/execute", json=body, headers=paid)
    assert bought.status == 202, bought.body
    return Bought(r, bought.json["job"]["job_id"], "ab" * 32, quote)


async def said(bought: Bought) -> list[str]:
    """What the buyer was told so far."""
    page = (await bought.call("GET", "/events?since=0")).json["events"]
    return [event["reason"] for event in page if event["type"] == "state" and event["reason"]]


async def test_who_offers_more_goes_first_and_everybody_knows_when(rig: OpenRig) -> None:
    async with rig() as r:
        assert (await ask(r)).json["document"]["starts_in_seconds"] == 0
        first = await r.buy(spec(ENDLESS))
        await first.first_output()
        plain = await r.buy(spec("print('plain')"))
        view = await plain.view()
        assert view.queue_position == 1
        assert view.starts_in_seconds is not None and 60 <= view.starts_in_seconds <= 60 + 60
        told = (await ask(r)).json["document"]
        assert told["waiting"] == 1 and told["starts_in_seconds"] > view.starts_in_seconds + 60
        too_low = await ask(r, offer_per_hour=PRICE - 1)
        assert too_low.status == 422 and too_low.json["allowed"] == PRICE
        better = (await ask(r, offer_per_hour=2 * PRICE)).json["document"]
        assert better["waiting"] == 0 and better["priority_seconds"] == 900
        assert better["starts_in_seconds"] <= view.starts_in_seconds

        rich = await buy_at(r, spec("print('rich')"), 2 * PRICE)
        assert (await rich.view()).price_per_hour == 2 * PRICE
        assert ((await rich.view()).queue_position, (await plain.view()).queue_position) == (1, 2)
        r.agent.dispatcher._told[plain.job_id] = (1, float("-inf"))  # no ten seconds in a test
        r.agent.dispatcher.schedule()
        places = [text for text in await said(plain) if "Place" in text]
        assert "Place 1 in the queue; starts in 1m" in places[0]
        assert "A job that pays more came before it. Place 2" in places[1]
        status = r.agent.status()
        assert next(job.starts_in_seconds for job in status.jobs[:3]) is None
        await first.call("POST", "/cancel")
        one, two = await asyncio.gather(rich.ended(), plain.ended())
        assert one.phases.ended is not None and two.phases.starting is not None
        assert one.phases.ended <= two.phases.starting
        assert one.paid == 20_000


async def test_drain_finishes_what_is_paid_says_so_and_stops(rig: OpenRig) -> None:
    async with rig() as r, OwnerClient.find(r.paths.seller) as owner:
        running = await r.buy(spec(ENDLESS))
        waiting = await r.buy(spec("print('still served')"))
        await running.first_output()
        await owner.drain("moving\x1b[31m house", then_stop=True)
        refused = await ask(r)
        assert refused.status == 503 and "finishes those it has (moving house)" in refused.text()
        status = await owner.status()
        assert (status.mood, status.draining, status.accepting) == ("draining", True, False)
        assert r.agent.acceptance.status() is NodeStatus.DRAINING
        stopped = r.agent.stop_requested
        assert not stopped.is_set()
        # the process would be told to end; here the test lets it live
        r.agent.stop_requested = asyncio.Event()
        await running.call("POST", "/cancel")
        assert (await waiting.ended()).state is JobState.SUCCEEDED
        await asyncio.wait_for(r.agent.stop_requested.wait(), 30)
        assert any("Drained: no job is left." in e.text for e in (await owner.status()).events)
        assert not r.agent.acceptance.choices.draining  # the next start takes jobs again


async def test_what_the_owner_chose_survives_a_restart_until_the_setting_changes(
    rig: OpenRig,
) -> None:
    async with rig() as r, OwnerClient.find(r.paths.seller) as owner:
        await owner.set_price(2 * PRICE)
        await owner.pause("guests")
    async with rig() as r, OwnerClient.find(r.paths.seller) as owner:
        status = await owner.status()
        assert status.price_per_hour == 2 * PRICE
        assert status.paused and "guests" in status.mood_reason
        assert (await ask(r)).status == 503
        await owner.resume()
        assert (await ask(r)).json["document"]["price_per_hour"] == 2 * PRICE
        await owner.drain()
        assert (await owner.status()).mood == "drained"
    async with rig(price="1.80") as r:
        assert r.agent.status().price_per_hour == PRICE // 2
        assert r.agent.status().mood == "drained"
        r.agent.pause(False)
        assert r.agent.status().accepting


async def test_hours_cut_what_is_taken_and_give_back_what_waits(rig: OpenRig) -> None:
    async with rig() as r:
        r.agent.config.windows = hours_until(10)
        assert (await ask(r)).status == 200  # a minute fits
        long = await r.call("POST", "/quotes", json={"spec": spec(max_seconds=1200)})
        assert long.status == 422 and "hours end in" in long.text()
        assert 400 < long.json["allowed"] <= 600
        r.agent.config.evict_at_close = True
        ends = (await ask(r)).json["document"]["evicted_at"]
        assert 500 < ends - time.time() <= 600
        r.agent.config.evict_at_close = False
        assert (await ask(r)).json["document"]["evicted_at"] is None

        before = await r.balance()
        running, waiting = await r.buy(spec(ENDLESS)), await r.buy(spec())
        await running.first_output()
        r.agent.config.windows = shut()
        closed = await ask(r)
        assert closed.status == 503 and "opens in 1h" in closed.text()
        view = await waiting.ended()
        assert view.state is JobState.SELLER_LOST and "hours are over" in view.reason
        assert (await running.view()).state is JobState.RUNNING  # it may finish
        r.agent.config.evict_at_close = True
        assert (await r.refunded(running)).state is JobState.SELLER_LOST
        await r.refunded(waiting)
        assert await r.balance() == before


async def test_what_waits_and_would_be_cut_off_goes_back_at_once(rig: OpenRig) -> None:
    async with rig(config={"evict_at_close": True}) as r:
        running = await r.buy(spec(ENDLESS, max_seconds=120))
        await running.first_output()
        short, long = await r.buy(spec()), await r.buy(spec(max_seconds=600))
        r.agent.config.windows = hours_until(5)
        view = await r.refunded(long)
        assert view.state is JobState.SELLER_LOST and "hours end before" in view.reason
        assert (await running.view()).state is JobState.RUNNING
        assert (await short.view()).state is JobState.QUEUED
        # what the queue would not let end in time is not taken either: two minutes, one, and these
        late = await r.call("POST", "/quotes", json={"spec": spec(max_seconds=90)})
        assert late.status == 422 and "the queue takes up to" in late.text()
        await running.call("POST", "/cancel")
        assert (await short.ended()).state is JobState.SUCCEEDED


async def test_a_job_stands_still_at_no_cost_while_the_owner_plays(
    rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner_use, "QUIET_SECONDS", 0.3)
    monkeypatch.setattr(owner_use, "_LOOK_SECONDS", 0.02)
    counting = (
        "import time\nfor i in range(1000):\n print(i, flush=True)\n time.sleep(0.02)\n"
        " if i > 60: break"
    )
    async with rig(config=WITH_GPU) as r:
        quoted = (await r.call("POST", "/quotes", json={"spec": spec(gpu_count=1)})).json
        assert quoted["document"]["pause_seconds"] == 1800
        bought = await r.buy(spec(counting, gpu_count=1))
        await bought.first_output()
        playing = {0: "game.exe"}
        monkeypatch.setattr(r.agent.machine, "foreign", lambda: playing)
        frozen = await bought.until(lambda view: view.paused)
        assert r.agent.acceptance.mood() == "in_use"
        assert "owner uses the GPU" in (await ask(r)).text()
        log = r.agent.desk.log(bought.job_id)
        await asyncio.sleep(0.3)  # what was in the pipe comes out
        begun, still = time.monotonic(), log.last_seq
        await asyncio.sleep(1.0)
        again = await bought.view()
        assert log.last_seq == still  # nothing runs, so nothing is printed
        assert again.metered_ms == frozen.metered_ms and again.cost == frozen.cost
        assert again.state is JobState.RUNNING
        assert any("Paused while the owner uses the GPU" in text for text in await said(bought))
        assert any("game.exe" in event.text for event in r.agent.status().events)
        stood = time.monotonic() - begun
        playing.clear()
        events = [event async for event in bought.follow()]
        view = await bought.view()
        assert view.state is JobState.SUCCEEDED
        assert output_of(events).split() == [str(i).encode() for i in range(62)]
        texts = [event.reason for event in events if isinstance(event, StateEvent)]
        assert any("goes on" in text for text in texts)
        wall = (view.phases.ended or 0) - (view.phases.metered or 0)
        assert view.metered_ms <= wall - stood * 1000
        assert view.cost == view.metered_ms  # a ms costs an atom


async def test_several_gpus_run_several_jobs_and_only_the_used_one_pauses(
    rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner_use, "QUIET_SECONDS", 0.3)
    monkeypatch.setattr(owner_use, "_LOOK_SECONDS", 0.02)
    two = Hardware(cpu_model="X", cpu_cores=2, memory_bytes=2**34, gpus=(CARD, CARD))
    async with rig(config={"hardware": two, "slots": 2}) as r:
        jobs = [await r.buy(spec(ENDLESS, gpu_count=1)) for _ in range(3)]
        for bought in jobs[:2]:
            await bought.first_output()
        places = [r.agent.slots.place(bought.job_id) for bought in jobs]
        assert [place and place.gpus for place in places] == [(0,), (1,), None]
        waiting = await jobs[2].view()
        assert waiting.queue_position == 1 and 60 <= (waiting.starts_in_seconds or 0) <= 120
        playing = {1: "a game"}
        monkeypatch.setattr(r.agent.machine, "foreign", lambda: playing)
        await jobs[1].until(lambda view: view.paused)
        assert not (await jobs[0].view()).paused
        assert r.agent.acceptance.mood() == "taking"  # the other GPU may be had
        assert (await jobs[2].view()).starts_in_seconds is None  # who knows how long he plays
        # a job for a GPU that its owner uses waits, and takes the other as that comes free
        await jobs[0].call("POST", "/cancel")
        await jobs[2].first_output()
        place = r.agent.slots.place(jobs[2].job_id)
        assert place is not None and place.gpus == (0,)
        playing.clear()
        await jobs[1].until(lambda view: not view.paused)
        for bought in jobs[1:]:
            assert (await bought.call("POST", "/cancel")).json["state"] == "cancelled"


async def test_who_stands_still_too_long_gets_everything_back(
    rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner_use, "_LOOK_SECONDS", 0.02)
    async with rig(config={**WITH_GPU, "pause_seconds": 1, "term_seconds": 2.0}) as r:
        before = await r.balance()
        bye = "import signal,sys\nsignal.signal(15, lambda *_: sys.exit(print('bye')))\n"
        bought = await r.buy(spec(bye + ENDLESS, gpu_count=1))
        await bought.first_output()
        monkeypatch.setattr(r.agent.machine, "foreign", lambda: {0: "a game"})
        events = [event async for event in bought.follow()]
        assert b"bye" in output_of(events)  # it is woken to end in order
        view = await r.refunded(bought)
        assert view.state is JobState.SELLER_LOST and "for more than 1s" in view.reason
        assert view.cost == 0 and await r.balance() == before


async def test_a_minimum_is_told_before_and_taken_only_for_what_was_started(rig: OpenRig) -> None:
    async with rig(minimum_charge="0.002") as r:
        assert (await ask(r)).json["document"]["minimum_charge"] == 2_000
        before = await r.balance()
        silent = await r.buy(spec("pass"))
        view = await silent.ended()
        assert (view.state, view.metered_ms, view.cost) == (JobState.SUCCEEDED, 0, 2_000)
        running = await r.buy(spec(ENDLESS))
        waiting = await r.buy(spec())
        await running.first_output()
        assert (await waiting.call("POST", "/cancel")).json["cost"] == 0  # never started
        await r.agent.evict(running.job_id)  # our doing
        assert (await r.refunded(running)).cost == 0
        for bought in (silent, waiting):
            await r.refunded(bought)
        assert before - await r.balance() == 2_000
    async with rig(minimum_charge="0.9") as r:
        dear = await r.buy(spec("pass"))
        assert (await dear.ended()).cost == 10_000  # never more than was paid


async def test_settings_are_reloaded_or_wait_for_the_next_start(rig: OpenRig) -> None:
    async with rig() as r:
        settings = r.agent.settings
        assert settings is not None
        r.agent.set_price(5 * PRICE)

        def changed(**changes: Any) -> Settings:
            assert settings is not None
            return replace(settings, **changes)

        told = await r.agent.reload(changed(queue_limit=1, windows="00:00-24:00", region="mars"))
        assert len(told) == 3 and "region changes at the next start only." in told
        assert r.agent.config.queue_limit == 1 and r.agent.config.region == ""
        assert r.agent.status().price_per_hour == 5 * PRICE  # the price itself was not changed
        with pytest.raises(ConfigError, match="no window"):
            await r.agent.reload(changed(queue_limit=7, windows="noon"))
        assert r.agent.config.queue_limit == 1  # a bad file changes nothing
        told = await r.agent.reload(changed(price="0.9", slots=3, max_job_seconds=30))
        assert r.agent.status().price_per_hour == 900_000 and r.agent.status().slots == 3
        assert (await ask(r)).status == 422  # a minute is too long now
        assert await r.agent.reload(changed(price="0.9", slots=3, max_job_seconds=30)) == []


async def test_a_job_that_was_starting_at_a_crash_starts_anew_at_its_place(rig: OpenRig) -> None:
    async with rig() as r:
        r.agent.slots.count = 0
        first, second = await r.buy(spec("print('again')")), await r.buy(spec())
        store = r.agent.desk.store
        with pytest.raises(InvalidTransition):
            store.step_back(first.job_id)  # only what was starting
        place = store.get(first.job_id).phases.queued
        for times in range(1, MAX_RESTARTS + 1):
            r.agent.desk.step(first.job_id, JobState.STARTING)
            stepped = r.agent.desk.step_back(first.job_id, "a crash")
            assert stepped.phases.queued == place and stepped.phases.starting is None
            assert store.restarts(first.job_id) == times
        assert list(r.agent.queue) == [first.job_id, second.job_id]
        r.agent.slots.count = 1
        assert (await first.ended()).state is JobState.SUCCEEDED
        assert (await second.ended()).state is JobState.SUCCEEDED


async def test_what_can_not_pause_is_ended_and_paid_back(
    rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner_use, "_FREEZE_SECONDS", 0.2)

    async def stuck(_: Any) -> None:
        await asyncio.sleep(600)

    monkeypatch.setattr(ChildRunning, "freeze", stuck)
    async with rig(config=WITH_GPU) as r:
        before = await r.balance()
        bought = await r.buy(spec(ENDLESS, gpu_count=1))
        await bought.first_output()
        monkeypatch.setattr(r.agent.machine, "foreign", lambda: {0: "a game"})
        view = await r.refunded(bought)
        assert view.state is JobState.SELLER_LOST and "can't pause: it does not stop" in view.reason
        assert await r.balance() == before
