"""A driver that never answers, or answers nonsense, stops no seller and is no healthy card."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace

from test_gpus import FakeNvml, no_torch

from computeswarm.core.clock import SystemClock
from computeswarm.seller.gpus import GpuMonitor, detect
from computeswarm.seller.gpus.nvidia import NvidiaBackend
from computeswarm.seller.machine import MachineWatch
from computeswarm.seller.notices import Notices


async def watch(nvml: FakeNvml, folder: Path) -> MachineWatch:
    inventory = await detect(backends=[NvidiaBackend(nvml, device=folder)], torch=no_torch)
    monitor = GpuMonitor(inventory, patience=0.2)
    clock = SystemClock()
    return MachineWatch(inventory.hardware, monitor, clock, Notices(clock))


async def until_faulty(machine: MachineWatch, faulty: set[int]) -> None:
    async with asyncio.timeout(30):
        while machine.faulty() != faulty or not machine.samples(0):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_a_driver_that_hangs(tmp_path: Path) -> None:
    nvml = FakeNvml(1)
    machine = await watch(nvml, tmp_path)
    released = threading.Event()
    machine.start()
    try:
        await until_faulty(machine, set())
        nvml.answers["nvmlDeviceGetUtilizationRates"] = lambda h: (
            released.wait(60) and SimpleNamespace(gpu=7)
        )
        await until_faulty(machine, {0})
        assert "has not answered" in machine.reading(0).fault
        released.set()
        await until_faulty(machine, set())
        assert machine.reading(0).utilization_pct == 7
        released.clear()
        await until_faulty(machine, {0})
        async with asyncio.timeout(10):
            await machine.close()  # while it hangs
    finally:
        released.set()


async def test_what_nobody_understands(tmp_path: Path) -> None:
    nvml = FakeNvml(1)
    machine = await watch(nvml, tmp_path)
    machine.start()
    nvml.answers["nvmlDeviceGetUtilizationRates"] = lambda h: SimpleNamespace(gpu="N/A")
    await until_faulty(machine, {0})
    assert "isn't understood (ValueError)" in machine.reading(0).fault
    nvml.answers["nvmlDeviceGetUtilizationRates"] = lambda h: SimpleNamespace(gpu=5)
    await until_faulty(machine, set())
    await machine.close()


async def test_a_limit_that_could_not_be_put_back_is_remembered(tmp_path: Path) -> None:
    nvml = FakeNvml(1)
    limits = {0: 350_000}
    nvml.answers["nvmlDeviceGetPowerManagementLimit"] = lambda h: limits[h]
    nvml.answers["nvmlDeviceSetPowerManagementLimit"] = limits.__setitem__
    machine = await watch(nvml, tmp_path)
    note = tmp_path / "power-limits.json"
    await machine.limit_power(200, note)
    nvml.fail["nvmlDeviceSetPowerManagementLimit"] = nvml.NVML_ERROR_NO_PERMISSION
    await machine.restore_power(note)
    assert limits == {0: 200_000}
    assert note.exists()
    del nvml.fail["nvmlDeviceSetPowerManagementLimit"]
    await machine.restore_power(note)
    assert limits == {0: 350_000}
    assert not note.exists()
    await machine.close()
