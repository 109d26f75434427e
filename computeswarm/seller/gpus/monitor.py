"""Readings over time, for the seller's screen and for heartbeats."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from functools import partial

from computeswarm.seller.gpus.ask import Asking
from computeswarm.seller.gpus.backends import GpuFault, GpuReading
from computeswarm.seller.gpus.detect import Inventory
from computeswarm.seller.gpus.host import HostReading, HostSampler

_log = logging.getLogger(__name__)


class GpuMonitor:
    """Asks the backend of an inventory. A fault is a reading, never an exception."""

    def __init__(
        self, inventory: Inventory, *, host: HostSampler | None = None, patience: float = 10.0
    ) -> None:
        self._backend = inventory.backend
        self._count = len(inventory.gpus)
        self._host = host or HostSampler()
        self._asking = Asking(patience)

    async def sample(self) -> list[GpuReading]:
        """One reading for each GPU, in the inventory's order; empty on a cpu node."""
        if self._backend is None:
            return [GpuReading()] * self._count
        try:
            found = await self._asking.ask(self._backend.readings)
        except GpuFault as fault:
            return [GpuReading(fault=fault.detail)] * self._count
        except Exception as error:
            # drivers and their libraries answer what no document says; no card may be relied on
            _log.exception("a GPU's reading")
            text = f"What the GPU's driver answers isn't understood ({type(error).__name__})."
            return [GpuReading(fault=text)] * self._count
        if len(found) == self._count:
            return found
        # Which one is missing can't be told by position, so none may be relied on.
        lost = f"{self._count} GPUs were found at the start and {len(found)} answer now."
        return [GpuReading(fault=lost)] * self._count

    async def limit_power(self, watts: Mapping[int, int]) -> list[str]:
        """Have each GPU (by index) draw no more; 0 is the driver's default. What failed."""
        problems: list[str] = []
        if self._backend is None:
            return problems
        for index, most in watts.items():
            try:
                await self._asking.ask(partial(self._backend.limit_power, index, most))
            except GpuFault as fault:
                problems.append(f"GPU {index}: {fault.detail}")
        return problems

    async def sample_host(self) -> HostReading:
        """Processor and memory; what there is to show of a cpu node."""
        return await asyncio.to_thread(self._host.sample)

    async def close(self) -> None:
        if self._backend is not None and not self._asking.hangs:
            with contextlib.suppress(GpuFault):
                await self._asking.ask(self._backend.close)
