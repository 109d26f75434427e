"""The terminal app at a real chain, market and seller: every key of a job's whole life."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from demo_fixtures import Demo, running_demo
from textual.pilot import Pilot
from textual.widgets import Input
from tui_steps import until

from computeswarm.core.settings import Paths, Settings
from computeswarm.core.states import JobState
from computeswarm.tui.app import ComputeSwarmApp
from computeswarm.tui.backends.connect import live_connect
from computeswarm.tui.memory import FILE, Memory
from computeswarm.tui.modals.download import DownloadModal
from computeswarm.tui.modals.payment import PaymentModal
from computeswarm.tui.modals.receipt import ReceiptModal
from computeswarm.tui.modals.wizard import WizardModal
from computeswarm.tui.screens.buyer import BuyerScreen
from computeswarm.tui.screens.seller import SellerScreen
from computeswarm.tui.widgets.log_view import LogView

pytestmark = pytest.mark.timeout(300)

SCRIPT = """\
import pathlib, sys, time
print("read", pathlib.Path("numbers.txt").read_text().strip(), flush=True)
for step in range(20):
    print(f"step {step}", flush=True)
    time.sleep(0.05)
print("Traceback (most recent call last): none, it only looks like one", file=sys.stderr)
pathlib.Path("outputs").mkdir(exist_ok=True)
pathlib.Path("outputs/result.txt").write_text("forty-two")
print("the end", sys.argv[1], flush=True)
"""


@asynccontextmanager
async def app_of(demo: Demo) -> AsyncIterator[tuple[ComputeSwarmApp, Pilot[None]]]:
    """The app as the demo's own, with a memory."""
    environ = {"COMPUTESWARM_HOME": str(demo.home)}
    paths = Paths.find(environ)
    settings = Settings.load(environ=environ, paths=paths)
    memory = Memory(paths.state / FILE)
    memory.welcomed = True
    app = ComputeSwarmApp(connect=live_connect(settings, paths), memory=memory)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, BuyerScreen))
        screen = app.screen
        assert isinstance(screen, BuyerScreen)
        await until(pilot, lambda: screen.selected_node is not None and screen.balance is not None)
        yield app, pilot


def shown(app: ComputeSwarmApp) -> str:
    """The words on the screen."""
    return re.sub(r"<[^>]+>", "", app.export_screenshot()).replace("&#160;", " ")


async def test_a_job_is_written_bought_followed_and_collected(tmp_path: Path) -> None:
    script, numbers = tmp_path / "job one.py", tmp_path / "numbers.txt"
    script.write_text(SCRIPT)
    numbers.write_text("1 2 3\n")
    results = tmp_path / "results"
    with running_demo(tmp_path / "home") as demo:
        async with app_of(demo) as (app, pilot):
            buyer = app.screen
            assert isinstance(buyer, BuyerScreen)
            before = buyer.balance
            assert before is not None

            # the wizard, on the node under the cursor, each step by Enter
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(app.screen, WizardModal))
            wizard = app.screen
            assert isinstance(wizard, WizardModal)

            def put(name: str, text: str) -> None:
                wizard.query_one(f"#field-{name}", Input).value = text

            put("script", str(tmp_path / "nothing.py"))
            await pilot.press("enter")
            await until(pilot, lambda: "no such file" in shown(app))
            put("script", str(script))
            put("args", "well")
            await pilot.press("enter")
            put("max_time", "2m")
            await pilot.press("enter")
            put("inputs", f"'{numbers}'")
            put("output", str(results))
            await pilot.press("enter")
            put("budget", "0.25")
            await pilot.press("enter")
            await until(pilot, lambda: "computeswarm run" in shown(app))
            await pilot.press("enter")

            # the payment
            await until(pilot, lambda: isinstance(app.screen, PaymentModal))
            await until(pilot, lambda: not app.screen.query_one("#pay").disabled)
            assert "Most you can lose" in shown(app)
            await pilot.press("p")
            await until(pilot, lambda: app.screen is buyer)
            await until(pilot, lambda: buyer.selected_job is not None)

            # the log, and what can be done with it
            job = buyer.selected_job
            assert job is not None
            await until(pilot, lambda: buyer.jobs[0].state is JobState.SUCCEEDED)
            log = buyer.query_one(LogView)
            await until(pilot, lambda: "the end well" in log.buffer.text())
            assert "read 1 2 3" in log.buffer.text()
            await pilot.press("l", "g")
            assert not log.follow
            await pilot.press("e")
            await until(pilot, lambda: log.match is not None)
            assert log.match is not None
            assert "Traceback" in log.buffer[log.match].text
            await pilot.press("G")
            assert log.follow

            # the receipt, and the outputs
            await pilot.press("r")
            await until(pilot, lambda: isinstance(app.screen, ReceiptModal))
            await pilot.press("escape")
            await until(pilot, lambda: buyer.jobs[0].outputs_ready)
            await pilot.press("d")
            await until(pilot, lambda: isinstance(app.screen, DownloadModal))
            assert app.screen.query_one(Input).value == str(results)
            await pilot.press("enter")
            await until(pilot, (results / "result.txt").exists)
            await until(pilot, lambda: (results / "result.txt").read_text() == "forty-two")
            await pilot.press("escape")

            # the money is where the chain says
            done = buyer.jobs[0]
            assert done.refund is not None
            assert 0 < done.cost == done.paid - done.refund.amount
            await until(pilot, lambda: buyer.balance == before - done.cost)

            # both other sides of it
            await pilot.press("2")
            await until(pilot, lambda: isinstance(app.screen, SellerScreen) and app.screen.status)
            seller = app.screen
            assert isinstance(seller, SellerScreen)
            await until(
                pilot,
                lambda: seller.status is not None and seller.status.jobs
                and seller.status.jobs[0].job_id == job.job_id,
            )  # fmt: skip
            await pilot.press("3")
            await until(pilot, lambda: "payment" in shown(app).lower())
            await until(pilot, lambda: "refund" in shown(app).lower())

        # the next start offers the same job again, and remembers it without its secrets
        async with app_of(demo) as (app, pilot):
            await pilot.press("n")
            await until(pilot, lambda: isinstance(app.screen, WizardModal))
            await until(pilot, lambda: "job one.py" in shown(app))
