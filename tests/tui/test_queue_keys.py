"""The owner's keys over jobs and GPUs: yes, no, hold; and the cursor among jobs that end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from seller_rig import open_rig, spec
from textual.pilot import Pilot
from textual.widgets import Input
from tui_drive import make_app, seller_screen, settled, until
from tui_fake import BUYER, NOW, FakeBuyer
from tui_fake_seller import GPUS, FakeSeller, seller_status

from computeswarm.chain.devnet import Devnet
from computeswarm.core.clock import SystemClock
from computeswarm.core.errors import Conflict
from computeswarm.core.states import JobState
from computeswarm.tui.app import ComputeSwarmApp
from computeswarm.tui.backends.live_seller import LiveSeller
from computeswarm.tui.modals.hold import HoldModal
from computeswarm.tui.modals.reject import RejectModal
from computeswarm.tui.views import SellerJob
from computeswarm.tui.widgets.queue_pane import QueuePane

RUNNING, QUEUED, ENDED = seller_status().jobs
ENDLESS = "import time\nprint('up', flush=True)\nwhile True: time.sleep(0.05)"


def asks(n: int, name: str = "sd_train.py", seconds: float = 92) -> SellerJob:
    job_id = f"job-a5{n}" + str(n) * 17
    return SellerJob(
        job_id, BUYER, name, JobState.QUEUED, "torch", 1, 380_000, 6_334, 0, 0, 10_800,
        queue_position=n, decide_by=NOW + seconds,
    )  # fmt: skip


def with_jobs(*jobs: SellerJob, **changes: Any) -> FakeSeller:
    return FakeSeller(seller_status(jobs=jobs, asks_owner=True, **changes))


def said(app: ComputeSwarmApp) -> str:
    """All that stands in the corner."""
    return " | ".join(f"{note.title}: {note.message}" for note in app._notifications)


def rows(pilot: Pilot[None]) -> str:
    """The queue as it is drawn."""
    pane = pilot.app.screen_stack[0].query_one(QueuePane)
    table = pane.table
    drawn = [table.render_line(y).text for y in range(len(table.rows) + 1)]
    return "\n".join([*drawn, str(pane.border_subtitle)])


def _shown_held(pilot: Pilot[None]) -> bool | None:
    status = seller_screen(pilot).status
    return status.gpus[1].held if status is not None else None


def cursor(pilot: Pilot[None]) -> str:
    job = seller_screen(pilot).selected
    return job.job_id if job is not None else ""


async def test_a_job_that_asks_is_told_of_and_let_in_by_a() -> None:
    seller = with_jobs(RUNNING, asks(1))
    app = make_app(FakeBuyer(), seller, mode="seller")
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await until(pilot, lambda: "? asks you" in rows(pilot))
        assert "1:32" in rows(pilot) and "1 asks you" in rows(pilot)
        assert "A job asks you" in said(app) and "sd_train.py wants 1 GPU for 3 h at most" in said(
            app
        )
        assert "by itself in 1:32" in said(app)
        assert cursor(pilot) == RUNNING.job_id  # a question moves nobody's cursor
        await pilot.press("a")  # the only one that asks is meant
        await until(pilot, lambda: seller.accepted == [asks(1).job_id])
        await until(pilot, lambda: "? asks you" not in rows(pilot))
        assert "is let in" in said(app)
        app.clear_notifications()
        await pilot.press("a")
        await until(pilot, lambda: "No job asks just now" in said(app))
        assert seller.accepted == [asks(1).job_id]


async def test_r_says_what_happens_and_takes_a_reason() -> None:
    seller = with_jobs(RUNNING, asks(1))
    app = make_app(FakeBuyer(), seller, mode="seller")
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await until(pilot, lambda: "? asks you" in rows(pilot))
        await pilot.press("r")
        await until(pilot, lambda: isinstance(app.screen, RejectModal))
        assert "0.006334 USDC" in app.export_screenshot().replace("&#160;", " ")
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen_stack) == 1)
        assert seller.rejected == []
        await pilot.press("r")
        await until(pilot, lambda: isinstance(app.screen, RejectModal))
        app.screen.query_one(Input).value = "no miners"
        await pilot.press("enter")  # to the button, and no further
        assert seller.rejected == [] and isinstance(app.screen, RejectModal)
        await pilot.press("enter")
        await until(pilot, lambda: seller.rejected == [(asks(1).job_id, "no miners")])
        await until(pilot, lambda: "turned away" in said(app))


async def test_of_several_the_one_under_the_cursor_is_meant() -> None:
    seller = with_jobs(RUNNING, asks(1), asks(2))
    app = make_app(FakeBuyer(), seller, mode="seller")
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await until(pilot, lambda: "2 ask you" in rows(pilot))
        assert "2 jobs wait for your yes" in said(app)
        await pilot.press("a")
        await until(pilot, lambda: "2 jobs ask; put the cursor" in said(app))
        assert seller.accepted == []
        await pilot.press("j", "j", "a")
        await until(pilot, lambda: seller.accepted == [asks(2).job_id])


async def test_what_the_seller_refuses_is_said_and_where_nobody_asks_why() -> None:
    class Late(FakeSeller):
        async def accept(self, job_id: str) -> None:
            raise Conflict("The time to answer is over; the job goes back.")

    seller = Late(seller_status(jobs=(asks(1),)))
    app = make_app(FakeBuyer(), seller, mode="seller")
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await until(pilot, lambda: "? asks you" in rows(pilot))
        await pilot.press("a")
        await until(pilot, lambda: "The time to answer is over" in said(app))
        seller.state = seller_status(jobs=(RUNNING,))
        await until(pilot, lambda: "? asks you" not in rows(pilot))
        await pilot.press("r")
        await until(pilot, lambda: "they start by themselves" in said(app))
        assert len(app.screen_stack) == 1


@pytest.mark.parametrize("key", ["1", "down,enter", "down,space"])
async def test_space_holds_a_gpu_and_releases_it(key: str) -> None:
    seller = FakeSeller()
    app = make_app(FakeBuyer(), seller, mode="seller")
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        for held in (True, False):
            await pilot.press("space")
            await until(pilot, lambda: isinstance(app.screen, HoldModal))
            await pilot.press(*key.split(","))
            await until(pilot, lambda held=held: seller.state.gpus[1].held is held)
            word = "GPU 1 is yours" if held else "GPU 1 takes jobs again"
            await until(pilot, lambda word=word: word in said(app))
            await until(pilot, lambda held=held: _shown_held(pilot) is held)
        assert not seller.state.gpus[0].held


async def test_the_only_gpu_and_the_whole_machine_need_no_choice() -> None:
    seller = FakeSeller(seller_status(gpus=GPUS[:1]))
    app = make_app(FakeBuyer(), seller, mode="seller")
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("space")
        await until(pilot, lambda: seller.state.gpus[0].held)
        await until(pilot, lambda: "GPU 0 is yours: no new job. job-204a00 goes on." in said(app))
    cpu = FakeSeller(seller_status(gpus=(), jobs=()))
    app = make_app(FakeBuyer(), cpu, mode="seller")
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("space")
        await until(pilot, lambda: cpu.state.host.held)
        await until(pilot, lambda: "The machine is yours" in said(app))


async def test_the_cursor_leaves_a_job_that_ended_for_one_that_lives() -> None:
    seller = with_jobs(RUNNING, QUEUED, ENDED)
    app = make_app(FakeBuyer(), seller, mode="seller")
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await until(pilot, lambda: cursor(pilot) == RUNNING.job_id)
        over = replace(RUNNING, state=JobState.SUCCEEDED)
        seller.state = seller_status(jobs=(QUEUED, over, ENDED))
        await until(pilot, lambda: cursor(pilot) == QUEUED.job_id)
        # the last one ends too: the cursor rests there until another comes
        over_too = replace(QUEUED, state=JobState.SUCCEEDED, queue_position=None)
        seller.state = seller_status(jobs=(over_too, over, ENDED))
        await until(pilot, lambda: cursor(pilot) == QUEUED.job_id and "live" in rows(pilot))
        fresh = asks(1)
        seller.state = seller_status(jobs=(fresh, over_too, over, ENDED))
        await until(pilot, lambda: cursor(pilot) == fresh.job_id)
        # somebody who looks at an ended job is left there
        await pilot.press("G")
        await until(pilot, lambda: cursor(pilot) == ENDED.job_id)
        seller.state = seller_status(jobs=(asks(2), fresh, over_too, over, ENDED))
        await until(pilot, lambda: asks(2).job_id[:10] in rows(pilot))
        assert cursor(pilot) == ENDED.job_id


async def test_what_a_hostile_buyer_calls_his_job_is_harmless_in_the_question() -> None:
    seller = with_jobs(asks(1, name="[red]x[/] [@click=app.exit()]me[/] [/nope]"))
    app = make_app(FakeBuyer(), seller, mode="seller")
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await until(pilot, lambda: "[@click=app.exit()]me[/]" in said(app))
        await pilot.press("r")
        await until(pilot, lambda: isinstance(app.screen, RejectModal))
        await pilot.press("escape")
        assert app.is_running


async def test_yes_no_and_hold_reach_a_real_seller(devnet: Devnet, tmp_path: Path) -> None:
    async with open_rig(devnet, tmp_path, accept="ask") as rig:
        owner = LiveSeller(rig.paths.seller)
        app = make_app(FakeBuyer(jobs=[]), owner, mode="seller", clock=SystemClock())
        async with app.run_test(size=(120, 40)) as pilot:
            await settled(pilot)
            job = await rig.buy(spec(ENDLESS, name="endless.py"))
            await until(pilot, lambda: "endless.py wants the processor" in said(app))
            await pilot.press("a")
            await job.first_output()
            unwanted = await rig.buy(spec(name="unwanted.py"))
            await until(pilot, lambda: "unwanted.py wants" in said(app))
            await pilot.press("r")
            await until(pilot, lambda: isinstance(app.screen, RejectModal))
            app.screen.query_one(Input).value = "not today"
            await pilot.press("enter", "enter")
            view = await rig.refunded(unwanted)
            assert view.state is JobState.SELLER_LOST
            assert view.reason.startswith("The owner turned the job away: not today")
            screen = seller_screen(pilot)
            await pilot.press("space")
            await until(pilot, lambda: screen.status and screen.status.host.held)
            refused = await rig.call("POST", "/quotes", json={"spec": spec()})
            assert refused.status == 503 and "for himself" in refused.text()
            assert (await job.view()).state is JobState.RUNNING
            await job.call("POST", "/cancel")
        await rig.refunded(job)
