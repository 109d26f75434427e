from __future__ import annotations

from pathlib import Path

import pytest
from test_gpus import FakeNvml

from computeswarm.core.throughput import sheet_tflops
from computeswarm.seller.gpus import detect
from computeswarm.seller.gpus.nvidia import NvidiaBackend


@pytest.mark.parametrize(
    ("model", "tflops"),
    [
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA GeForce RTX 4080 SUPER", 104),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA A100-PCIE-40GB", 312),
        ("Tesla V100-SXM2-16GB", 125),
        ("Tesla T4", 65),
        ("NVIDIA RTX 6000 Ada Generation", 364),
        ("NVIDIA RTX A6000", 154),
        ("AMD Instinct MI300X OAM", 1307),
        ("AMD Radeon RX 7900 XTX", 122),
    ],
)
def test_what_data_sheets_say(model: str, tflops: int) -> None:
    assert sheet_tflops(model) == tflops


@pytest.mark.parametrize(
    "model",
    [
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "Apple M3",
        "AMD GPU 0x744c",
        "A1000",
        "",
    ],
)
def test_nothing_is_guessed(model: str) -> None:
    assert sheet_tflops(model) == 0


async def test_a_driver_that_does_not_tell_its_capability(tmp_path: Path) -> None:
    nvml = FakeNvml(count=1)
    nvml.fail["nvmlDeviceGetCudaComputeCapability"] = nvml.NVML_ERROR_NOT_SUPPORTED
    node = tmp_path / "nvidiactl"
    node.touch()
    (gpu,) = (await detect(backends=[NvidiaBackend(nvml, device=node)])).gpus
    assert (gpu.capability, gpu.tflops) == ("", 165)
