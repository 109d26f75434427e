"""Blocking work one step behind the bytes: while a thread writes a block, the next one comes in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

BLOCK_BYTES = 1024 * 1024
"""Bytes that are gathered for one step: a change of threads costs as much as copying some 100 KiB.
Two blocks of a transfer are in memory at most."""


class Behind:
    """Steps in a thread, one at a time and in order."""

    def __init__(self) -> None:
        self._step: asyncio.Future[Any] | None = None

    async def then(self, step: Callable[..., Any], *args: Any) -> None:
        """Have ``step`` done as soon as the one before it has ended.

        Raises:
            what the step before it raised.
        """
        await self.wait()
        self._step = asyncio.get_running_loop().run_in_executor(None, step, *args)

    async def wait(self) -> None:
        """Until the last step has ended, also where we are cancelled: its file may be closed next.

        Raises:
            what it raised.
        """
        step, self._step = self._step, None
        if step is None:
            return
        try:
            await asyncio.shield(step)
        except asyncio.CancelledError:
            await asyncio.wait({step})
            raise
