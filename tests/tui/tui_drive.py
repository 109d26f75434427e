"""Driving the app in a test: make it, wait for what is awaited, never for a time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from textual.pilot import Pilot
from tui_fake import FakeBuyer, FixedClock
from tui_fake_seller import FakeSeller
from tui_steps import until

from computeswarm.tui.app import ComputeSwarmApp
from computeswarm.tui.backends.live_seller import LiveSeller
from computeswarm.tui.draft import ExampleJob
from computeswarm.tui.screens.buyer import BuyerScreen
from computeswarm.tui.screens.seller import SellerScreen
from computeswarm.tui.widgets.header import Header

__all__ = ["buyer_screen", "example", "make_app", "seller_screen", "settled", "until"]


def make_app(
    buyer: FakeBuyer | None = None, seller: FakeSeller | LiveSeller | None = None, **options: Any
) -> ComputeSwarmApp:
    """The app with a fixed clock."""
    options.setdefault("clock", FixedClock())
    return ComputeSwarmApp(buyer, seller, **options)


def buyer_screen(pilot: Pilot[None]) -> BuyerScreen:
    return next(s for s in _base_screens(pilot) if isinstance(s, BuyerScreen))


def seller_screen(pilot: Pilot[None]) -> SellerScreen:
    return next(s for s in _base_screens(pilot) if isinstance(s, SellerScreen))


def _base_screens(pilot: Pilot[None]) -> list[Any]:
    return [stack[0] for stack in pilot.app._screen_stacks.values() if stack]


async def settled(pilot: Pilot[None]) -> None:
    """The mode is there and its first answers are in."""
    app = pilot.app

    def ready() -> bool:
        screen = app.screen_stack[0]
        if not isinstance(screen, BuyerScreen | SellerScreen) or not screen.query(Header):
            return False
        link = screen.query_one(Header).link.state
        if isinstance(screen, SellerScreen) or link != "live":
            return link in ("live", "offline", "none")
        return _buyer_is_full(screen)

    await until(pilot, ready, "the first answers")
    await asyncio.sleep(0.15)
    await pilot.pause()


def example(folder: Path) -> ExampleJob:
    """A job that stands ready."""
    script = folder / "monte_carlo.py"
    script.write_text('"""Estimate pi by throwing darts."""\nimport random\n\nprint(4)\n')
    return ExampleJob(script)


def _buyer_is_full(screen: BuyerScreen) -> bool:
    """Balance, jobs and the selected job's log are all there."""
    assert screen.swarm.backends is not None
    fake: Any = screen.swarm.backends.buyer
    if screen.balance is None and fake.identity.address:
        return False
    if len(screen.jobs) != len(fake.journal):
        return False
    job = screen.selected_job
    return job is None or (job.job_id in screen._logs and bool(screen._logs[job.job_id].end))
