"""A real card: skipped, and said so, on machines without one."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

from computeswarm.seller.executors.base import Launch, Limits
from computeswarm.seller.executors.bubblewrap import BubblewrapExecutor
from computeswarm.seller.gpus import GpuMonitor, detect
from computeswarm.seller.gpus.torch_probe import ask_torch, torch_installed
from computeswarm.seller.images import host_python

pytestmark = pytest.mark.skipif(
    not Path("/dev/nvidiactl").exists(), reason="no NVIDIA card: /dev/nvidiactl does not exist"
)


async def test_the_inventory_is_what_nvidia_smi_says(tmp_path: Path) -> None:
    if shutil.which("nvidia-smi") is None:
        pytest.skip("nvidia-smi is not installed")
    asked = ["nvidia-smi", "--query-gpu=uuid,compute_cap", "--format=csv,noheader"]
    said = await asyncio.to_thread(subprocess.check_output, asked, text=True)
    inventory = await detect(tmp_path)
    found = [f"{gpu.uuid}, {gpu.capability}" for gpu in inventory.gpus]
    assert sorted(found) == sorted(said.splitlines())
    assert all(gpu.vendor == "nvidia" and gpu.memory_bytes > 2**30 for gpu in inventory.gpus)


async def test_every_card_can_be_read(tmp_path: Path) -> None:
    inventory = await detect(tmp_path)
    monitor = GpuMonitor(inventory)
    try:
        readings = await monitor.sample()
    finally:
        await monitor.close()
    assert len(readings) == len(inventory.gpus) > 0
    for reading in readings:
        assert not reading.fault
        assert reading.memory_used_bytes is not None
        assert 0 < (reading.temperature_c or 0) < 120


async def test_torch_in_a_child_sees_the_same_cards(tmp_path: Path) -> None:
    if not torch_installed():
        pytest.skip("torch is not installed (it is the extra `gpu`)")
    seen = await ask_torch()
    if not seen:
        pytest.skip("this torch was built without CUDA")
    inventory = await detect(tmp_path)
    assert [gpu.model for gpu in seen] == [gpu.model for gpu in inventory.gpus]


async def test_a_job_sees_its_card_and_no_other(tmp_path: Path) -> None:
    executor = BubblewrapExecutor(tmp_path)
    if problems := await executor.check():
        pytest.skip(" ".join(map(str, problems)))
    inventory = await detect(tmp_path)
    limits = Limits()
    workspace = await executor.prepare("job-gpu", limits)
    try:
        running = await executor.start(
            Launch(
                job_id="job-gpu",
                command=("sh", "-c", "ls /dev | grep -c '^nvidia[0-9]'"),
                env={},
                workdir=workspace.path,
                image=host_python(),
                limits=limits,
                gpus=inventory.gpus[:1],
            )
        )
        out = b"".join([data async for stream, data in running.output() if stream == "stdout"])
        assert (await running.wait()).status == 0
    finally:
        await workspace.close()
        await executor.close()
    assert out.strip() == b"1"
