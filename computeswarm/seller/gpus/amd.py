"""AMD's GPUs through the files of the amdgpu kernel driver; no library is loaded.

Names and units from the kernel's ``Documentation/gpu/amdgpu`` (driver-misc and thermal).
"""

from __future__ import annotations

from pathlib import Path

from computeswarm.core.nodes import GPUInfo
from computeswarm.seller.gpus.backends import GpuFault, GpuReading

_VENDOR = "0x1002"


class AmdBackend:
    """Args: root: where /dev and /sys are looked up; another path in tests."""

    name = "amd"
    notes = ()

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def present(self) -> bool:
        return (self._root / "dev/kfd").exists()

    def _devices(self) -> list[Path]:
        cards = (self._root / "sys/class/drm").glob("renderD*")
        devices = [card / "device" for card in sorted(cards)]
        return [
            d
            for d in devices
            if _text(d / "vendor") == _VENDOR and _number(d / "mem_info_vram_total")
        ]

    def inventory(self) -> list[GPUInfo]:
        driver = _text(self._root / "sys/module/amdgpu/version")
        rocm = _text(self._root / "opt/rocm/.info/version").partition("-")[0]
        return [
            GPUInfo(
                vendor="amd",
                model=_text(d / "product_name") or f"AMD GPU {_text(d / 'device')}",
                memory_bytes=_number(d / "mem_info_vram_total") or 0,
                uuid=_uuid(d),
                driver=driver,
                runtime=f"ROCm {rocm}" if rocm else "",
            )
            for d in self._devices()
        ]

    def readings(self) -> list[GpuReading]:
        return [self._reading(d) for d in self._devices()]

    @staticmethod
    def _reading(device: Path) -> GpuReading:
        sensors = next(iter(sorted((device / "hwmon").glob("hwmon*"))), device / "hwmon")
        millidegrees = _number(sensors / "temp1_input")
        microwatts = _number(sensors / "power1_average") or _number(sensors / "power1_input")
        limit = _number(sensors / "power1_cap")
        fan = _number(sensors / "pwm1")
        return GpuReading(
            utilization_pct=_number(device / "gpu_busy_percent"),
            memory_used_bytes=_number(device / "mem_info_vram_used"),
            memory_total_bytes=_number(device / "mem_info_vram_total"),
            temperature_c=None if millidegrees is None else round(millidegrees / 1000),
            power_mw=None if microwatts is None else round(microwatts / 1000),
            power_limit_mw=None if limit is None else round(limit / 1000),
            fan_pct=None if fan is None else round(fan * 100 / 255),
        )

    def limit_power(self, index: int, watts: int) -> None:
        device = self._devices()[index]
        sensors = next(iter(sorted((device / "hwmon").glob("hwmon*"))), device / "hwmon")
        microwatts = watts * 1_000_000 or _number(sensors / "power1_cap_default")
        try:
            (sensors / "power1_cap").write_text(str(microwatts))
        except OSError as error:
            raise GpuFault(
                f"The GPU's power can't be limited ({error.strerror}); only root may."
            ) from error

    def close(self) -> None:
        """Nothing is held."""


def _uuid(device: Path) -> str:
    unique = _text(device / "unique_id")
    return f"GPU-{unique}" if unique else ""


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""


def _number(file: Path) -> int | None:
    text = _text(file)
    return int(text) if text.isdigit() else None
