"""Divided cards: what is offered, what is read, and which device nodes a job is given."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_gpus import FakeNvml, NVMLError, no_torch

from computeswarm.core.errors import ExecutorError
from computeswarm.core.nodes import GPUInfo
from computeswarm.seller.executors import devices
from computeswarm.seller.gpus import GpuMonitor, detect
from computeswarm.seller.gpus.mig import SlicePlace, locate
from computeswarm.seller.gpus.nvidia import NvidiaBackend


def divided() -> FakeNvml:
    """Card 0 is whole; card 1 has slices at the places 0 and 2 of 3, and tells no load of them."""
    nvml = FakeNvml()
    nvml.fail.clear()
    whole = dict(nvml.answers)

    def part(card: int, number: int) -> str:
        if number == 1:
            raise NVMLError(nvml.NVML_ERROR_NOT_FOUND)
        return f"{card}.{number}"

    def refuse_slices(name: str) -> None:
        def answer(handle: Any, *args: Any) -> object:
            if isinstance(handle, str):
                raise NVMLError(nvml.NVML_ERROR_NOT_SUPPORTED)
            return whole[name](handle, *args)

        nvml.answers[name] = answer

    for name in ("UtilizationRates", "Temperature", "PowerUsage", "PowerManagementLimit"):
        refuse_slices(f"nvmlDeviceGet{name}")
    size = {int: 80 << 30, str: 10 << 30}
    nvml.answers |= {
        "nvmlDeviceGetMigMode": lambda h: [int(h == 1), int(h == 1)],
        "nvmlDeviceGetMaxMigDeviceCount": lambda h: 3,
        "nvmlDeviceGetMigDeviceHandleByIndex": part,
        "nvmlDeviceGetUUID": lambda h: f"MIG-{h}" if isinstance(h, str) else f"GPU-{h}",
        "nvmlDeviceGetName": lambda h: "A100 MIG 1g.10gb" if isinstance(h, str) else "A100",
        "nvmlDeviceGetMemoryInfo": lambda h: SimpleNamespace(total=size[type(h)], used=1 << 30),
        "nvmlDeviceGetComputeRunningProcesses": lambda h: (
            [SimpleNamespace(pid=77)] if h == "1.2" else []
        ),
        "nvmlDeviceGetHandleByUUID": lambda uuid: uuid.removeprefix("MIG-"),
        "nvmlDeviceGetDeviceHandleFromMigDeviceHandle": lambda h: int(h[0]),
        "nvmlDeviceGetMinorNumber": lambda h: h + 4,
        "nvmlDeviceGetGpuInstanceId": lambda h: 7 + int(h[-1]),
        "nvmlDeviceGetComputeInstanceId": lambda h: 0,
    }
    nvml.fail["nvmlDeviceGetProcessUtilization"] = nvml.NVML_ERROR_NOT_SUPPORTED
    return nvml


async def test_a_divided_card_is_its_slices(tmp_path: Path) -> None:
    nvml = divided()
    inventory = await detect(backends=[NvidiaBackend(nvml, device=tmp_path)], torch=no_torch)
    assert [(g.uuid, g.memory_bytes >> 30) for g in inventory.gpus] == [
        ("GPU-0", 80),
        ("MIG-1.0", 10),
        ("MIG-1.2", 10),
    ]
    monitor = GpuMonitor(inventory)
    card, first, second = await monitor.sample()
    assert (card.utilization_pct, card.power_mw) == (83, 300_500)
    assert (first.utilization_pct, first.power_mw, first.temperature_c) == (None, None, 61)
    assert (first.users, [user.pid for user in second.users]) == ((), [77])

    limited: list[int] = []
    nvml.answers["nvmlDeviceSetPowerManagementLimit"] = lambda h, mw: limited.append(h)
    assert await monitor.limit_power({0: 300, 1: 300, 2: 300}) == []
    assert limited == [0, 1, 1]

    nvml.answers["nvmlDeviceGetUUID"] = lambda h: f"MIG-new-{h}" if h != 0 else "GPU-0"
    card, first, second = await monitor.sample()
    assert card.fault == ""
    assert "divided or changed" in first.fault
    assert "divided or changed" in second.fault


async def test_slices_that_share_their_memory_are_not_offered(tmp_path: Path) -> None:
    nvml = divided()
    nvml.answers["nvmlDeviceGetGpuInstanceId"] = lambda h: 7
    inventory = await detect(backends=[NvidiaBackend(nvml, device=tmp_path)], torch=no_torch)
    assert [gpu.uuid for gpu in inventory.gpus] == ["GPU-0"]
    assert "Card 1 is in MIG mode and has no slice that can be sold" in inventory.notes[0]
    assert [reading.fault for reading in await GpuMonitor(inventory).sample()] == [""]


def kernel(root: Path) -> None:
    """Two slices of the card of minor number 5, with the capabilities of both, and a third's."""
    caps = root / "dev/nvidia-caps"
    caps.mkdir(parents=True)
    for name in ("nvidiactl", "nvidia-uvm", "nvidia4", "nvidia5"):
        (root / "dev" / name).touch()
    for minor in (66, 67, 75, 76):
        (caps / f"nvidia-cap{minor}").touch()
    for path, minor in (("gi7", 66), ("gi7/ci0", 67), ("gi9", 75), ("gi9/ci0", 76)):
        folder = root / "proc/driver/nvidia/capabilities/gpu5/mig" / path
        folder.mkdir(parents=True, exist_ok=True)
        text = f"DeviceFileMinor: {minor}\nDeviceFileMode: 292\nDeviceFileModify: 1\n"
        (folder / "access").write_text(text)


def test_a_job_gets_the_nodes_of_its_slice_and_of_no_other(tmp_path: Path) -> None:
    kernel(tmp_path)
    nvml = divided()
    gpu = GPUInfo(vendor="nvidia", model="A100 MIG", memory_bytes=1, uuid="MIG-1.2")
    found = devices.find([gpu], root=tmp_path, locate=lambda uuid: locate(uuid, nvml))
    assert sorted(node.target for node in found.nodes) == [
        "/dev/nvidia-caps/nvidia-cap75",
        "/dev/nvidia-caps/nvidia-cap76",
        "/dev/nvidia-uvm",
        "/dev/nvidia5",
        "/dev/nvidiactl",
    ]


def test_a_slice_that_is_gone(tmp_path: Path) -> None:
    kernel(tmp_path)
    gpu = GPUInfo(vendor="nvidia", model="A100 MIG", memory_bytes=1, uuid="MIG-x")
    with pytest.raises(ExecutorError, match="is gone"):
        devices.find([gpu], root=tmp_path, locate=lambda _: SlicePlace(5, 3, 0))
    nvml = divided()
    nvml.fail["nvmlDeviceGetHandleByUUID"] = nvml.NVML_ERROR_NOT_FOUND
    with pytest.raises(ExecutorError, match="restart the seller"):
        devices.find([gpu], root=tmp_path, locate=lambda uuid: locate(uuid, nvml))
