"""How the queue looks when jobs ask its owner, and the dialogs that answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from textual.pilot import Pilot
from tui_drive import make_app, settled, until
from tui_fake import BUYER, NOW, FakeBuyer
from tui_fake_seller import GPUS, FakeSeller, seller_status

from computeswarm.core.states import JobState
from computeswarm.tui.views import SellerJob

SIZES = {"80x24": (80, 24), "120x40": (120, 40)}
KEYS = {"queue": [], "reject": ["r"], "hold": ["space"]}
HELD = "Held by you: no new job until you release it."


def seller() -> FakeSeller:
    """One job runs, one waits, one asks, and a GPU is held."""
    running, queued, ended = seller_status().jobs
    asking = SellerJob(
        "job-a511" + "1" * 16, BUYER, "sd_train.py", JobState.QUEUED, "torch", 1, 380_000, 6_334,
        0, 0, 10_800, queue_position=2, decide_by=NOW + 92,
    )  # fmt: skip
    gpus = (GPUS[0], replace(GPUS[1], held=True, trouble=HELD))
    return FakeSeller(
        seller_status(jobs=(running, queued, asking, ended), gpus=gpus, asks_owner=True)
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("view", KEYS)
def test_questions(snap_compare: Callable[..., bool], view: str, size: str) -> None:
    async def before(pilot: Pilot[None]) -> None:
        await settled(pilot)
        await pilot.press(*KEYS[view])
        if KEYS[view]:
            await until(pilot, lambda: len(pilot.app.screen_stack) == 2)

    app = make_app(FakeBuyer(), seller(), mode="seller")
    assert snap_compare(app, terminal_size=SIZES[size], run_before=before)
