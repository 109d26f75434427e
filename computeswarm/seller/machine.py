"""The machine as the owner sees it: its processor and memory, and its GPUs over time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from computeswarm.core.nodes import Hardware
from computeswarm.seller.owner import GpuSample, OwnerHost


class GpuWatch(Protocol):
    """Readings of the GPUs, in the order of ``Hardware.gpus``."""

    def start(self) -> None: ...

    async def close(self) -> None: ...

    def samples(self, index: int) -> Sequence[GpuSample]:
        """The last readings (about 120), oldest first."""
        ...

    def power_limit_mw(self, index: int) -> int | None: ...


class NoGpus:
    """A machine without any."""

    def start(self) -> None:
        """Nothing to watch."""

    async def close(self) -> None:
        """Nothing was started."""

    def samples(self, index: int) -> Sequence[GpuSample]:
        return ()

    def power_limit_mw(self, index: int) -> int | None:
        return None


class HostWatch:
    """Processor load between two looks, and memory in use; None where the system doesn't tell."""

    def __init__(self, hardware: Hardware) -> None:
        self._hardware = hardware
        self._before = _ticks()
        self._load: int | None = None
        self._looked = time.monotonic()

    def look(self) -> OwnerHost:
        """The host now; the load is that of at least the last half second."""
        now = time.monotonic()
        if now - self._looked >= 0.5:
            after = _ticks()
            if after and self._before and after[1] > self._before[1]:
                idle, total = after[0] - self._before[0], after[1] - self._before[1]
                self._load = max(0, min(100, round(100 * (1 - idle / total))))
            self._before, self._looked = after, now
        return OwnerHost(
            cpu_model=self._hardware.cpu_model,
            cpu_cores=self._hardware.cpu_cores,
            memory_bytes=self._hardware.memory_bytes,
            cpu_pct=self._load,
            memory_used_bytes=_memory_used(),
        )


def _ticks() -> tuple[int, int] | None:
    """Idle and all clock ticks of all processors."""
    try:
        fields = [int(n) for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    return fields[3] + fields[4], sum(fields)


def _memory_used() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.split()[1:]}
    if "MemTotal" not in kib or "MemAvailable" not in kib:
        return None
    return (kib["MemTotal"] - kib["MemAvailable"]) * 1024
