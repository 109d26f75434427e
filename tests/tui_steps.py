"""Waiting in a test for what the terminal app is to show, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from textual.pilot import Pilot

LIMIT = 60.0


async def until(pilot: Pilot[None], true: Callable[[], Any], what: str = "") -> None:
    """Wait until something is so; fails after a minute."""
    end = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < end, f"never came: {what or true}"
        await pilot.pause(0.02)
    await pilot.pause()
