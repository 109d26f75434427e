"""NVIDIA's GPUs through NVML, which needs no CUDA context and does not import torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from computeswarm.core.nodes import GPUInfo
from computeswarm.seller.gpus import mig
from computeswarm.seller.gpus.backends import GpuFault, GpuReading, GpuUser

_LOAD_SECONDS = 2.0
"""The driver keeps samples of about a sixth of a second each."""


@dataclass(frozen=True, slots=True)
class _Card:
    """By its place on the bus: numbers move up when a card is lost, and NVML finds none by UUID
    while any is (nvml.h, nvmlDeviceGetHandleByUUID)."""

    bus: str
    uuid: str
    slices: tuple[str, ...] | None
    """``None``: not divided."""


class NvidiaBackend:
    """Args: nvml: the module ``pynvml`` or one like it; imported at first use when left out."""

    name = "nvidia"

    def __init__(self, nvml: Any = None, *, device: Path = Path("/dev/nvidiactl")) -> None:
        self._nvml = nvml
        self._device = device
        self._open = False
        self._failed = False
        self._cards: list[_Card] = []
        """As found by the inventory, in its order."""
        self.notes: list[str] = []

    def present(self) -> bool:
        # WSL has the driver's library but no device node of this name.
        return self._device.exists() or Path("/dev/dxg").exists()

    def inventory(self) -> list[GPUInfo]:
        nvml = self._opened()
        try:
            driver = _text(nvml.nvmlSystemGetDriverVersion())
            version = nvml.nvmlSystemGetCudaDriverVersion_v2()
            runtime = f"CUDA {version // 1000}.{version % 1000 // 10}"
            count = int(nvml.nvmlDeviceGetCount())
        except nvml.NVMLError as error:
            raise self._fault(error) from error
        self._cards, self.notes = [], []
        found: list[GPUInfo] = []
        fault: GpuFault | None = None
        for number in range(count):
            try:
                card, gpus = self._describe(number, driver, runtime)
            except nvml.NVMLError as error:
                fault = GpuFault(f"Card {number} is left out: {self._sentence(error)}")
                self.notes.append(fault.detail)
                continue
            self._cards.append(card)
            found += gpus
        if not found and fault is not None:
            raise fault
        return found

    def _describe(self, number: int, driver: str, runtime: str) -> tuple[_Card, list[GPUInfo]]:
        nvml = self._nvml
        handle = nvml.nvmlDeviceGetHandleByIndex(number)
        parts = mig.slices(nvml, handle)
        bus = _text(nvml.nvmlDeviceGetPciInfo(handle).busId)
        uuid = _text(nvml.nvmlDeviceGetUUID(handle))
        capability = self._capability(handle)
        gpus = [
            GPUInfo(
                vendor="nvidia",
                model=_text(nvml.nvmlDeviceGetName(part)),
                memory_bytes=self._ask(_memory_total, part) or 0,
                uuid=_text(nvml.nvmlDeviceGetUUID(part)),
                driver=driver,
                runtime=runtime,
                capability=capability,
            )
            for part in ([handle] if parts is None else parts)
        ]
        if parts == []:
            self.notes.append(
                f"Card {number} is in MIG mode and has no slice that can be sold; make some with "
                "`nvidia-smi mig -cgi PROFILE -C`."
            )
        return _Card(bus, uuid, self._uuids(parts)), gpus

    def _capability(self, handle: Any) -> str:
        """Such as ``8.9``; empty where the driver does not tell."""
        nvml = self._nvml
        try:
            major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
        except nvml.NVMLError as error:
            if error.value in self._untold():
                return ""
            raise
        return f"{major}.{minor}"

    def _uuids(self, parts: list[Any] | None) -> tuple[str, ...] | None:
        if parts is None:
            return None
        return tuple(_text(self._nvml.nvmlDeviceGetUUID(part)) for part in parts)

    def readings(self) -> list[GpuReading]:
        self._opened()
        self._failed = False
        found = [reading for card in self._cards for reading in self._card(card)]
        if self._failed:
            self.close()  # the next call starts NVML anew, once all cards were asked
        return found

    def _card(self, card: _Card) -> list[GpuReading]:
        """Of a card, or of each of its slices."""
        nvml = self._nvml
        places = 1 if card.slices is None else len(card.slices)
        try:
            handle = nvml.nvmlDeviceGetHandleByPciBusId(card.bus)
            parts = mig.slices(nvml, handle)
            whole = _text(nvml.nvmlDeviceGetUUID(handle)) if parts is None else card.uuid
            if (whole, self._uuids(parts)) != (card.uuid, card.slices):
                fault = "The card was divided or changed; restart the seller to detect GPUs anew."
                return [GpuReading(fault=fault)] * places
            if parts is None:
                return [self._reading(handle)]
            return [self._slice_reading(handle, part) for part in parts]
        except nvml.NVMLError as error:
            self._failed = True
            return [GpuReading(fault=self._sentence(error))] * places

    def _reading(self, handle: Any) -> GpuReading:
        limit = self._ask(lambda n, h: n.nvmlDeviceGetPowerManagementLimit(h), handle)
        return GpuReading(
            utilization_pct=self._ask(_utilization, handle),
            memory_used_bytes=self._ask(_memory_used, handle),
            memory_total_bytes=self._ask(_memory_total, handle),
            temperature_c=self._ask(_temperature, handle),
            power_mw=self._ask(lambda n, h: n.nvmlDeviceGetPowerUsage(h), handle),
            power_limit_mw=limit,
            fan_pct=self._ask(lambda n, h: n.nvmlDeviceGetFanSpeed(h), handle),
            users=self._users(handle),
            fault=self._worn(handle),
        )

    def _worn(self, handle: Any) -> str:
        """Whether its memory fails, in a sentence: where rows of it could not be replaced, or wait
        for a restart to be (nvml.h, nvmlDeviceGetRemappedRows). Cards without ECC don't tell."""
        nvml = self._nvml
        try:
            _, _, pending, failed = nvml.nvmlDeviceGetRemappedRows(handle)
        except nvml.NVMLError as error:
            if error.value in self._untold():
                return ""
            raise
        if failed:
            return "The GPU's memory has more errors than it can work round; have it replaced."
        if pending:
            return "The GPU's memory had errors; restart the machine, so that it works round them."
        return ""

    def _slice_reading(self, card: Any, part: Any) -> GpuReading:
        """Load and power are told of no slice; the card's power would be counted once for each."""
        return GpuReading(
            memory_used_bytes=self._ask(_memory_used, part),
            memory_total_bytes=self._ask(_memory_total, part),
            temperature_c=self._ask(_temperature, card),
            power_limit_mw=self._ask(lambda n, h: n.nvmlDeviceGetPowerManagementLimit(h), card),
            users=self._users(part),
            fault=self._worn(card),
        )

    def _users(self, handle: Any) -> tuple[GpuUser, ...]:
        """Who computes and draws, and how much of its time each took since the last reading."""
        nvml = self._nvml
        drawing = self._listed(nvml.nvmlDeviceGetGraphicsRunningProcesses, handle)
        computing = self._listed(nvml.nvmlDeviceGetComputeRunningProcesses, handle)
        if not drawing and not computing:
            return ()
        loads = self._loads(handle)
        known = loads is not None
        kinds: dict[int, Literal["compute", "graphics"]] = dict.fromkeys(drawing, "graphics")
        kinds.update(dict.fromkeys(computing, "compute"))
        return tuple(
            GpuUser(pid, kind, (loads or {}).get(pid, 0) if known else None)
            for pid, kind in kinds.items()
        )

    def _listed(self, question: Callable[[Any], Any], handle: Any) -> list[int]:
        nvml = self._nvml
        try:
            return [int(process.pid) for process in question(handle)]
        except nvml.NVMLError as error:
            if error.value in self._untold():
                return []
            raise
        except nvml.NVMLLibraryMismatchError:
            return []  # pynvml's word for a driver that is older than this question

    def _loads(self, handle: Any) -> dict[int, int] | None:
        """Percent by process; none where nobody worked, ``None`` where that is not told."""
        nvml = self._nvml
        since = int((time.time() - _LOAD_SECONDS) * 1e6)
        try:
            samples = nvml.nvmlDeviceGetProcessUtilization(handle, since)
        except nvml.NVMLError as error:
            return {} if error.value == nvml.NVML_ERROR_NOT_FOUND else None
        loads: dict[int, int] = {}
        for sample in samples:
            busy = max(int(sample.smUtil), int(sample.encUtil), int(sample.decUtil))
            loads[int(sample.pid)] = max(loads.get(int(sample.pid), 0), busy)
        return loads

    def limit_power(self, index: int, watts: int) -> None:
        nvml = self._opened()
        try:
            handle = nvml.nvmlDeviceGetHandleByPciBusId(self._card_of(index).bus)
            least, most = nvml.nvmlDeviceGetPowerManagementLimitConstraints(handle)
            wanted = watts * 1000 or nvml.nvmlDeviceGetPowerManagementDefaultLimit(handle)
            nvml.nvmlDeviceSetPowerManagementLimit(handle, max(least, min(most, wanted)))
        except nvml.NVMLError as error:
            if error.value == nvml.NVML_ERROR_NO_PERMISSION:
                raise GpuFault(
                    "Only root may limit a GPU's power: run `nvidia-smi -pl WATTS` as root."
                ) from error
            if error.value == nvml.NVML_ERROR_NOT_SUPPORTED:
                raise GpuFault("This GPU's power can't be limited.") from error
            raise self._fault(error) from error

    def _card_of(self, index: int) -> _Card:
        """The card that a GPU of the inventory is, or is a slice of."""
        return [c for c in self._cards for _ in (c.slices if c.slices is not None else (c,))][index]

    def _ask(self, question: Callable[[Any, Any], int], handle: Any) -> int | None:
        """``None`` where this model has no such sensor; other errors pass."""
        nvml = self._nvml
        try:
            return int(question(nvml, handle))
        except nvml.NVMLError as error:
            if error.value in self._untold():
                return None
            raise

    def _untold(self) -> tuple[int, ...]:
        """What the driver answers where it does not tell this of this card, which is well."""
        nvml = self._nvml
        return (
            nvml.NVML_ERROR_NOT_SUPPORTED,
            nvml.NVML_ERROR_NO_PERMISSION,
            nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        )

    def _opened(self) -> Any:
        if self._nvml is None:
            import pynvml  # type: ignore[import-untyped]

            self._nvml = pynvml
        if not self._open:
            try:
                self._nvml.nvmlInit()
            except self._nvml.NVMLError as error:
                raise self._fault(error) from error
            self._open = True
        return self._nvml

    def _fault(self, error: Any) -> GpuFault:
        """The sentence for a fault; the next call starts NVML anew."""
        self.close()
        return GpuFault(self._sentence(error))

    def _sentence(self, error: Any) -> str:
        nvml, value = self._nvml, error.value
        if value == nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
            return "The NVIDIA driver was updated under the running kernel; reboot."
        if value in (nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_NOT_FOUND):
            return "The GPU has fallen off the bus; power the machine off and on."
        if value == nvml.NVML_ERROR_LIBRARY_NOT_FOUND:
            return "NVIDIA's driver is loaded but libnvidia-ml.so is missing; install it."
        return f"NVIDIA's driver does not answer ({error}); try `nvidia-smi`."

    def close(self) -> None:
        if self._open:
            self._open = False
            try:
                self._nvml.nvmlShutdown()
            except self._nvml.NVMLError:
                return  # it was lost already


def _text(value: str | bytes) -> str:
    """Old releases of the library answer bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _memory_total(nvml: Any, handle: Any) -> int:
    return int(nvml.nvmlDeviceGetMemoryInfo(handle).total)


def _memory_used(nvml: Any, handle: Any) -> int:
    return int(nvml.nvmlDeviceGetMemoryInfo(handle).used)


def _utilization(nvml: Any, handle: Any) -> int:
    return int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)


def _temperature(nvml: Any, handle: Any) -> int:
    return int(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
