"""Seller mode's keys on a real seller: devnet, market, owner's API and a running job."""

from __future__ import annotations

from pathlib import Path

from lone_seller import seller_process
from seller_rig import open_rig, spec
from textual.widgets import Input
from tui_drive import make_app, seller_screen, until
from tui_fake import FakeBuyer

from computeswarm.chain.devnet import Devnet
from computeswarm.core.clock import SystemClock
from computeswarm.core.states import JobState
from computeswarm.seller.owner_client import OWNER_FILE, OwnerFile
from computeswarm.tui.backends.live_seller import LiveSeller
from computeswarm.tui.widgets.header import Header

ENDLESS = "import time\nprint('up', flush=True)\nwhile True: time.sleep(0.05)"


async def test_price_pause_and_evict_reach_the_seller(devnet: Devnet, tmp_path: Path) -> None:
    async with open_rig(devnet, tmp_path) as rig:
        job = await rig.buy(spec(ENDLESS, name="endless.py"))
        await job.first_output()
        owner = LiveSeller(rig.paths.seller)
        app = make_app(FakeBuyer(jobs=[]), owner, mode="seller", clock=SystemClock())
        async with app.run_test(size=(120, 40)) as pilot:
            await until(pilot, lambda: app.screen.query("#queue"), "Seller mode")
            screen = seller_screen(pilot)
            await until(pilot, lambda: screen.status and screen.status.jobs, "the running job")
            assert screen.status is not None
            assert [j.name for j in screen.status.jobs] == ["endless.py"]

            await pilot.press("p")
            await until(pilot, lambda: app.screen.query("#price-note"))
            app.screen.query_one(Input).value = "1.25"
            await pilot.press("enter")
            await until(pilot, lambda: screen.status and screen.status.price == 1_250_000)
            assert (await owner.status()).price == 1_250_000

            await pilot.press("o")
            await until(pilot, lambda: screen.status and screen.status.paused)
            refused = await rig.call("POST", "/quotes", json={"spec": spec()})
            assert refused.status == 503
            await pilot.press("o")
            await until(pilot, lambda: screen.status and not screen.status.paused)
            assert (await rig.call("POST", "/quotes", json={"spec": spec()})).status == 200

            await pilot.press("x")
            await until(pilot, lambda: len(app.screen_stack) == 2)
            await pilot.press("right", "enter")
            view = await job.ended()
            assert view.state is JobState.SELLER_LOST
        view = await rig.refunded(job)
        assert view.refund is not None and view.refund.amount > 0


async def test_a_killed_agent_is_said_and_its_successor_is_attached(
    devnet: Devnet, tmp_path: Path
) -> None:
    """As with an agent that a service manager started, killed and started again."""
    async with seller_process(devnet, tmp_path) as (process, rig):
        owner = LiveSeller(rig.paths.seller)
        app = make_app(FakeBuyer(jobs=[]), owner, mode="seller", clock=SystemClock())
        async with app.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: app.screen.query("#queue"), "Seller mode")
            screen = seller_screen(pilot)
            await until(pilot, lambda: screen.status, "its first answer")
            process.kill()
            await process.wait()
            header = screen.query_one(Header)
            await until(pilot, lambda: header.link.state == "offline", "the loss")
            assert "by itself" in str(screen.query_one("#event-pane").border_subtitle)
            assert "does not answer" in screen.refusal("pause")
            async with seller_process(devnet, tmp_path):
                await until(pilot, lambda: header.link.state == "live", "the new one")
                await pilot.press("o")
                await until(pilot, lambda: screen.status and screen.status.mood == "paused")
                assert (await owner.earnings_csv()).startswith("by,key,label")


async def test_a_successor_at_the_same_address_is_attached(devnet: Devnet, tmp_path: Path) -> None:
    """Its port is the same, its token is not: the old one is refused, not left unanswered."""
    async with open_rig(devnet, tmp_path) as rig:
        file = rig.paths.seller / OWNER_FILE
        now = file.read_bytes()
        known = OwnerFile.model_validate_json(now)
        file.write_text(known.model_copy(update={"token": "0" * 64}).model_dump_json())
        owner = LiveSeller(rig.paths.seller)
        file.write_bytes(now)
        try:
            assert (await owner.status()).node_id
        finally:
            await owner.close()
