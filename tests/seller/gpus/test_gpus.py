"""Detection and readings with made-up drivers, and with the faults real ones have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from computeswarm.core.nodes import GPUInfo
from computeswarm.seller.gpus import GpuFault, GpuMonitor, GpuReading, detect
from computeswarm.seller.gpus.amd import AmdBackend
from computeswarm.seller.gpus.host import HostSampler
from computeswarm.seller.gpus.nvidia import NvidiaBackend
from computeswarm.seller.gpus.torch_probe import ask_torch


class NVMLError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(f"nvml {value}")
        self.value = value


class NVMLLibraryMismatchError(Exception):
    """pynvml's, and no NVMLError: the driver has no such function."""


class FakeNvml:
    """As much of ``pynvml`` as is used; ``fail`` maps a function to its error, and a card that is
    ``lost`` answers nothing. Neither does any after the shutdown."""

    NVMLError, NVMLLibraryMismatchError = NVMLError, NVMLLibraryMismatchError
    NVML_ERROR_UNINITIALIZED = 1
    NVML_ERROR_NOT_SUPPORTED, NVML_ERROR_NO_PERMISSION = 3, 4
    NVML_ERROR_NOT_FOUND, NVML_ERROR_FUNCTION_NOT_FOUND, NVML_DEVICE_MIG_ENABLE = 6, 13, 1
    NVML_ERROR_LIBRARY_NOT_FOUND, NVML_ERROR_GPU_IS_LOST = 12, 15
    NVML_ERROR_LIB_RM_VERSION_MISMATCH, NVML_TEMPERATURE_GPU = 18, 0

    def __init__(self, count: int = 2) -> None:
        self.count = count
        self.fail: dict[str, int] = {"nvmlDeviceGetMigMode": self.NVML_ERROR_NOT_SUPPORTED}
        self.opened = 0
        self.up = False
        self.lost: set[int] = set()
        self.answers: dict[str, Callable[..., object]] = {
            "nvmlInit": self._init,
            "nvmlShutdown": self._shutdown,
            "nvmlDeviceGetCount": lambda: self.count,
            "nvmlSystemGetDriverVersion": lambda: b"570.10",
            "nvmlSystemGetCudaDriverVersion_v2": lambda: 12080,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetPciInfo": lambda h: SimpleNamespace(busId=f"00000000:0{h}:00.0"),
            "nvmlDeviceGetHandleByPciBusId": self._by_bus,
            "nvmlDeviceGetName": lambda h: "RTX 4090",
            "nvmlDeviceGetUUID": lambda h: f"GPU-{h}",
            "nvmlDeviceGetCudaComputeCapability": lambda h: [8, 9],
            "nvmlDeviceGetMemoryInfo": lambda h: SimpleNamespace(total=24 << 30, used=1 << 30),
            "nvmlDeviceGetUtilizationRates": lambda h: SimpleNamespace(gpu=83),
            "nvmlDeviceGetTemperature": lambda h, kind: 61,
            "nvmlDeviceGetPowerUsage": lambda h: 300_500,
            "nvmlDeviceGetPowerManagementLimit": lambda h: 450_000,
            "nvmlDeviceGetFanSpeed": lambda h: 40,
            "nvmlDeviceGetRemappedRows": lambda h: (0, 0, 0, 0),
            "nvmlDeviceGetGraphicsRunningProcesses": lambda h: [],
            "nvmlDeviceGetComputeRunningProcesses": lambda h: [],
            "nvmlDeviceGetPowerManagementLimitConstraints": lambda h: (100_000, 450_000),
            "nvmlDeviceGetPowerManagementDefaultLimit": lambda h: 400_000,
        }

    def _init(self) -> None:
        self.opened += 1
        self.up = True

    def _shutdown(self) -> None:
        self.up = False

    def _by_bus(self, bus: str) -> int:
        handle = int(bus[9:11])
        if handle >= self.count:
            raise NVMLError(self.NVML_ERROR_NOT_FOUND)
        if handle in self.lost:
            raise NVMLError(self.NVML_ERROR_GPU_IS_LOST)
        return handle

    def __getattr__(self, name: str) -> Callable[..., object]:
        def answer(*args: object) -> object:
            if name in self.fail:
                raise NVMLError(self.fail[name])
            if not self.up and name != "nvmlInit":
                raise NVMLError(self.NVML_ERROR_UNINITIALIZED)
            if args and args[0] in self.lost and name.startswith("nvmlDevice"):
                raise NVMLError(self.NVML_ERROR_GPU_IS_LOST)
            return self.answers[name](*args)

        return answer


@pytest.fixture
def nvml() -> FakeNvml:
    return FakeNvml()


@pytest.fixture
def nvidia(nvml: FakeNvml, tmp_path: Path) -> NvidiaBackend:
    node = tmp_path / "nvidiactl"
    node.touch()
    return NvidiaBackend(nvml, device=node)


async def no_torch() -> list[GPUInfo]:
    raise AssertionError("torch costs seconds and was not needed")


async def test_nvidia(nvidia: NvidiaBackend, nvml: FakeNvml) -> None:
    inventory = await detect(backends=[nvidia], torch=no_torch)
    assert [g.uuid for g in inventory.gpus] == ["GPU-0", "GPU-1"]
    gpu = inventory.gpus[0]
    assert (gpu.model, gpu.driver, gpu.runtime) == ("RTX 4090", "570.10", "CUDA 12.8")
    assert (gpu.capability, gpu.tflops) == ("8.9", 165)
    monitor = GpuMonitor(inventory)
    nvml.fail["nvmlDeviceGetFanSpeed"] = nvml.NVML_ERROR_NOT_SUPPORTED
    wanted = GpuReading(83, 1 << 30, 24 << 30, 61, 300_500, 450_000, None)
    assert await monitor.sample() == [wanted, wanted]
    await monitor.close()


@pytest.mark.parametrize(
    ("code", "sentence"), [(15, "fallen off the bus"), (18, "reboot"), (999, "nvidia-smi")]
)
async def test_a_driver_that_fails_later(
    nvidia: NvidiaBackend, nvml: FakeNvml, code: int, sentence: str
) -> None:
    monitor = GpuMonitor(await detect(backends=[nvidia], torch=no_torch))
    nvml.fail["nvmlDeviceGetUtilizationRates"] = code
    readings = await monitor.sample()
    assert len(readings) == 2
    assert all(sentence in r.fault and r.utilization_pct is None for r in readings)
    del nvml.fail["nvmlDeviceGetUtilizationRates"]
    opened = nvml.opened
    assert [r.utilization_pct for r in await monitor.sample()] == [83, 83]
    assert nvml.opened == opened + 1  # started anew after the fault


async def test_a_gpu_whose_memory_fails(nvidia: NvidiaBackend, nvml: FakeNvml) -> None:
    monitor = GpuMonitor(await detect(backends=[nvidia], torch=no_torch))
    for rows, sentence in (((1, 1, 0, 1), "have it replaced"), ((0, 1, 1, 0), "restart the")):
        nvml.answers["nvmlDeviceGetRemappedRows"] = lambda h, rows=rows: rows if h else (1, 0, 0, 0)
        first, second = await monitor.sample()
        assert not first.fault  # what was replaced is well
        assert sentence in second.fault
    nvml.fail["nvmlDeviceGetRemappedRows"] = nvml.NVML_ERROR_NOT_SUPPORTED
    assert [reading.fault for reading in await monitor.sample()] == ["", ""]


async def test_a_gpu_that_vanishes_or_is_lost_is_alone(
    nvidia: NvidiaBackend, nvml: FakeNvml
) -> None:
    nvml.count = 3
    monitor = GpuMonitor(await detect(backends=[nvidia], torch=no_torch))
    nvml.lost = {0}  # the driver still lists it
    for _ in range(2):
        assert ["off the bus" in r.fault for r in await monitor.sample()] == [True, False, False]
    nvml.lost, nvml.count = set(), 2  # after a restart of NVML it does not
    assert ["off the bus" in r.fault for r in await monitor.sample()] == [False, False, True]
    nvml.count = 3
    assert [r.fault for r in await monitor.sample()] == ["", "", ""]


async def test_a_gpu_that_is_lost_at_the_start(nvidia: NvidiaBackend, nvml: FakeNvml) -> None:
    nvml.count, nvml.lost = 3, {1}
    inventory = await detect(backends=[nvidia], torch=no_torch)
    assert [gpu.uuid for gpu in inventory.gpus] == ["GPU-0", "GPU-2"]
    assert "Card 1 is left out: The GPU has fallen off the bus" in inventory.notes[0]
    assert [r.fault for r in await GpuMonitor(inventory).sample()] == ["", ""]


async def test_a_driver_that_is_older_than_a_question(
    nvidia: NvidiaBackend, nvml: FakeNvml
) -> None:
    def mismatch(_: object) -> None:
        raise NVMLLibraryMismatchError

    nvml.answers["nvmlDeviceGetComputeRunningProcesses"] = mismatch
    nvml.fail["nvmlDeviceGetFanSpeed"] = nvml.NVML_ERROR_FUNCTION_NOT_FOUND
    monitor = GpuMonitor(await detect(backends=[nvidia], torch=no_torch))
    assert [(r.fault, r.utilization_pct) for r in await monitor.sample()] == [("", 83)] * 2


async def test_a_driver_that_does_not_answer_at_the_start(
    nvidia: NvidiaBackend, nvml: FakeNvml
) -> None:
    nvml.fail["nvmlInit"] = nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
    asked = GPUInfo(vendor="nvidia", model="RTX", memory_bytes=1)

    async def torch() -> list[GPUInfo]:
        return [asked]

    inventory = await detect(backends=[nvidia], torch=torch)
    assert inventory.gpus == (asked,)
    assert "reboot" in inventory.notes[0]
    assert await GpuMonitor(inventory).sample() == [GpuReading()]


async def test_amd(tmp_path: Path) -> None:
    device = tmp_path / "sys/class/drm/renderD128/device"
    sensors = device / "hwmon/hwmon3"
    sensors.mkdir(parents=True)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kfd").touch()
    facts = {
        "vendor": "0x1002",
        "device": "0x744c",
        "unique_id": "a1b2",
        "product_name": "RX 7900",
        "mem_info_vram_total": "25753026560",
        "mem_info_vram_used": "1024",
        "gpu_busy_percent": "55",
    }
    measured = {
        "temp1_input": "61500",
        "power1_average": "250000000",
        "power1_cap": "300000000",
        "pwm1": "128",
    }
    for folder, files in ((device, facts), (sensors, measured)):
        for name, text in files.items():
            (folder / name).write_text(f"{text}\n")
    inventory = await detect(backends=[AmdBackend(tmp_path)], torch=no_torch)
    assert [(g.vendor, g.model, g.uuid) for g in inventory.gpus] == [("amd", "RX 7900", "GPU-a1b2")]
    (reading,) = await GpuMonitor(inventory).sample()
    assert reading == GpuReading(55, 1024, 25753026560, 62, 250_000, 300_000, 50)


async def test_no_gpu_is_a_cpu_node(tmp_path: Path) -> None:
    absent = [NvidiaBackend(FakeNvml(), device=tmp_path / "no"), AmdBackend(tmp_path)]
    inventory = await detect(tmp_path / "not" / "yet", backends=absent, torch=no_torch)
    hardware = inventory.hardware
    assert (hardware.kind, hardware.gpus) == ("cpu", ())
    assert hardware.cpu_model
    assert hardware.cpu_cores >= 1
    assert hardware.memory_bytes > 2**28
    assert await GpuMonitor(inventory).sample() == []


async def test_host_readings(tmp_path: Path) -> None:
    sampler = HostSampler(tmp_path)
    assert sampler.sample().cpu_pct is None
    (tmp_path / "meminfo").write_text("MemTotal: 1000 kB\nMemAvailable: 400 kB\n")
    (tmp_path / "stat").write_text("cpu 100 0 100 800 0 0 0 0 0 0\n")
    assert sampler.sample().memory_used_bytes == 600 * 1024
    (tmp_path / "stat").write_text("cpu 160 0 115 820 5 0 0 0 0 0\n")
    assert sampler.sample().cpu_pct == 75


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("import time; time.sleep(600)", "hang"),
        ("import os; os.abort()", "could not be asked"),
        ('print(\'[{"vendor": "evil"}]\')', "could not be asked"),
    ],
)
async def test_torch_that_fails(script: str, sentence: str) -> None:
    with pytest.raises(GpuFault, match=sentence):
        await ask_torch(script=script, timeout=2 if "hang" in sentence else 60)


async def test_torch_that_answers() -> None:
    row = '[{"vendor": "apple", "model": "M4", "memory_bytes": 9, "runtime": "MPS"}]'
    assert [g.model for g in await ask_torch(script=f"print('''{row}''')")] == ["M4"]
