"""The power limit that was in force comes back, after a killed seller too."""

from __future__ import annotations

from pathlib import Path

from test_gpus import FakeNvml, no_torch

from computeswarm.core.clock import SystemClock
from computeswarm.seller.gpus import GpuMonitor, detect
from computeswarm.seller.gpus.nvidia import NvidiaBackend
from computeswarm.seller.machine import MachineWatch
from computeswarm.seller.notices import Notices


async def test_the_limit_of_before_is_put_back(tmp_path: Path) -> None:
    nvml = FakeNvml()
    limits = {0: 350_000, 1: 420_000}
    nvml.answers["nvmlDeviceGetPowerManagementLimit"] = lambda h: limits[h]
    nvml.answers["nvmlDeviceSetPowerManagementLimit"] = limits.__setitem__
    inventory = await detect(backends=[NvidiaBackend(nvml, device=tmp_path)], torch=no_torch)
    note = tmp_path / "power-limits.json"

    def watch() -> MachineWatch:
        clock = SystemClock()
        monitor = GpuMonitor(inventory)
        return MachineWatch(inventory.hardware, monitor, clock, Notices(clock))

    killed = watch()
    await killed.limit_power(200, note)
    await killed.limit_power(250, note)
    assert limits == {0: 250_000, 1: 250_000}
    after = watch()
    await after.restore_power(note)
    assert limits == {0: 350_000, 1: 420_000}
    assert not note.exists()

    await after.limit_power(200, note)
    await after.limit_power(0, note)
    assert limits == {0: 350_000, 1: 420_000}
    limits[0] = 300_000  # the owner's own change, later
    await after.restore_power(note)
    assert limits[0] == 300_000
