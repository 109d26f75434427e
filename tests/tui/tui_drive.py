"""Driving the app in a test: make it, wait for what is awaited, never for a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from computeswarm.tui.app import ComputeSwarmApp
from computeswarm.tui.draft import ExampleJob
from computeswarm.tui.screens.buyer import BuyerScreen
from computeswarm.tui.screens.seller import SellerScreen
from computeswarm.tui.widgets.header import Header
from tui_fake import FakeBuyer, FakeSeller, FixedClock

LIMIT = 30.0


def make_app(
    buyer: FakeBuyer | None = None, seller: FakeSeller | None = None, **options: Any
) -> ComputeSwarmApp:
    """The app with a fixed clock."""
    options.setdefault("clock", FixedClock())
    return ComputeSwarmApp(buyer, seller, **options)


async def until(pilot: Pilot[None], true: Callable[[], Any], what: str = "") -> None:
    """Wait until something is so; fails after half a minute."""
    end = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < end, f"never came: {what or true}"
        await pilot.pause(0.02)
    await pilot.pause()


def buyer_screen(pilot: Pilot[None]) -> BuyerScreen:
    found = [s[0] for s in pilot.app._screen_stacks.values() if s and isinstance(s[0], BuyerScreen)]
    return found[0]


def seller_screen(pilot: Pilot[None]) -> SellerScreen:
    found = [s[0] for s in pilot.app._screen_stacks.values() if s and isinstance(s[0], SellerScreen)]
    return found[0]


async def settled(pilot: Pilot[None]) -> None:
    """The mode is there and its first answers are in."""
    app = pilot.app

    def ready() -> bool:
        screen = app.screen_stack[0]
        if not isinstance(screen, BuyerScreen | SellerScreen) or not screen.query(Header):
            return False
        link = screen.query_one(Header).link.state
        if isinstance(screen, BuyerScreen) and screen.swarm.backends and link == "live":
            fake = screen.swarm.backends.buyer
            balance_in = screen.balance is not None or not fake.identity.address
            selected = screen.selected_job
            log_in = selected is None or screen._logs.get(selected.job_id, ()) and screen._logs[selected.job_id].end >= len(fake.lines)  # type: ignore[attr-defined]
            return balance_in and len(screen.jobs) == len(fake.journal) and bool(log_in)  # type: ignore[attr-defined]
        return link in ("live", "offline", "none")

    await until(pilot, ready, "the first answers")
    await asyncio.sleep(0.15)
    await pilot.pause()


def example(folder: Path) -> ExampleJob:
    """A job that stands ready."""
    script = folder / "monte_carlo.py"
    script.write_text('"""Estimate pi by throwing darts."""\nimport random\n\nprint(4)\n')
    return ExampleJob(script)
