"""Bringing the backends, for as long as it takes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from computeswarm.core.errors import ComputeSwarmError
from computeswarm.tui.messages import Connected, ConnectFailed
from computeswarm.tui.welcome import greet

if TYPE_CHECKING:
    from computeswarm.tui.app import ComputeSwarmApp
    from computeswarm.tui.backend import Connect

FIRST_RETRY, LAST_RETRY = 1.0, 10.0


def begin(app: ComputeSwarmApp, connect: Connect | None) -> None:
    """Bring the backends, unless they are there already."""
    if connect is not None:
        work = keep_connecting(app, connect)
        app.run_worker(work, group="connect", exclusive=True, exit_on_error=False)
    elif app.backends is not None and app.backends.wallet is not None:
        greet(app)


async def keep_connecting(app: ComputeSwarmApp, connect: Connect) -> None:
    """Try until it works, and tell every mode how it goes."""
    wait = FIRST_RETRY
    while True:
        try:
            app.backends = await connect()
        except ComputeSwarmError as error:
            for screen in app.mode_screens():
                screen.post_message(ConnectFailed(error, wait))
            await asyncio.sleep(wait)
            wait = min(LAST_RETRY, wait * 2)
        else:
            for screen in app.mode_screens():
                screen.post_message(Connected(app.backends))
            greet(app)
            return
