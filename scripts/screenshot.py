"""Pictures of the real app for the README: a real job, bought on a demo stack, at 120 by 40.

    python scripts/screenshot.py [FOLDER]        (docs/ by default)

Starts ``computeswarm demo --headless``, buys the example by the same keys a person would press, and
writes buyer.svg, payment.svg, seller.svg and wallet.svg; PNG beside them, where cairosvg is there.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from computeswarm.core.settings import Paths, Settings
from computeswarm.tui.app import ComputeSwarmApp
from computeswarm.tui.backends.connect import live_connect
from computeswarm.tui.draft import ExampleJob
from computeswarm.tui.memory import Memory
from computeswarm.tui.modals.payment import PaymentModal
from computeswarm.tui.screens.buyer import BuyerScreen
from computeswarm.tui.screens.seller import SellerScreen
from computeswarm.tui.screens.wallet import WalletScreen
from computeswarm.tui.widgets.log_view import LogView
from computeswarm.tui.widgets.table import Table

ROOT = Path(__file__).resolve().parents[1]
SIZE = (120, 40)
LIMIT = 120.0
LINES = 8
"""So far the example has come in the picture of its log."""


async def until(pilot: Pilot[None], true: Callable[[], Any]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + LIMIT
    while not true():
        if time.monotonic() > end:
            raise TimeoutError("The app did not come to the picture that was waited for.")
        await pilot.pause(0.1)


def keep(app: ComputeSwarmApp, folder: Path, name: str) -> None:
    """Write one picture."""
    # without the fonts that Textual's pictures fetch from the web
    svg = re.sub(r"@font-face \{.*?\}", "", app.export_screenshot(), flags=re.DOTALL)
    (folder / f"{name}.svg").write_text(svg)
    try:
        import cairosvg
    except ImportError:
        return
    local = svg.replace("Fira Code", "DejaVu Sans Mono")
    cairosvg.svg2png(local.encode(), write_to=str(folder / f"{name}.png"), output_width=1464)


async def walk(home: str, folder: Path) -> None:
    """Buy the example and look at it from both sides."""
    environ = {"COMPUTESWARM_HOME": home}
    paths = Paths.find(environ)
    settings = Settings.load(environ=environ, paths=paths)
    example = ExampleJob(ROOT / "examples" / "monte_carlo.py", args=("60000000",))
    memory = Memory()
    memory.welcomed = True  # what comes after it is to be seen
    app = ComputeSwarmApp(connect=live_connect(settings, paths), example=example, memory=memory)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: isinstance(app.screen, BuyerScreen))
        buyer = app.screen
        assert isinstance(buyer, BuyerScreen)
        await until(pilot, lambda: buyer.selected_node is not None and buyer.balance is not None)
        await pilot.press("n", "enter")
        await until(pilot, lambda: isinstance(app.screen, PaymentModal))
        await until(pilot, lambda: not app.screen.query_one("#pay").disabled)
        keep(app, folder, "payment")
        await pilot.press("p")
        log = buyer.query_one(LogView)
        await until(pilot, lambda: log.buffer.end >= LINES and log.buffer[-1].kind == "stdout")
        keep(app, folder, "buyer")
        await pilot.press("2")
        await until(pilot, lambda: isinstance(app.screen, SellerScreen) and app.screen.status)
        await pilot.pause(3)  # for the charts to have something to show
        keep(app, folder, "seller")
        await pilot.press("3")
        await until(pilot, lambda: isinstance(app.screen, WalletScreen))
        await until(pilot, lambda: app.screen.query_one("#ledger", Table).rows)
        keep(app, folder, "wallet")


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "docs")
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "computeswarm", "demo", "--headless"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as demo:
        try:
            assert demo.stdout is not None
            ready = json.loads(demo.stdout.readline())
            asyncio.run(walk(ready["home"], folder))
        finally:
            demo.terminate()
    return 0


if __name__ == "__main__":
    sys.exit(main())
