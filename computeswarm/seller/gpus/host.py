"""The machine round the GPUs: processor, memory, and how busy they are."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class HostReading:
    cpu_pct: int | None
    """Mean over the time since the last reading; ``None`` at the first and off Linux."""
    memory_used_bytes: int | None


@dataclass(frozen=True, slots=True)
class HostFacts:
    cpu_model: str
    cpu_cores: int
    """Cores this process may use, which can be fewer than the machine has."""
    memory_bytes: int
    disk_bytes: int
    """Free space where jobs are kept."""


def host_facts(home: Path, *, proc: Path = Path("/proc")) -> HostFacts:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    existing = next(p for p in (home, *home.resolve().parents) if p.exists())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return HostFacts(_cpu_model(proc), cores or 1, memory, shutil.disk_usage(existing).free)


def _cpu_model(proc: Path) -> str:
    try:
        text = (proc / "cpuinfo").read_text(errors="replace")
    except OSError:
        text = ""
    found = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", text, re.MULTILINE)
    if found:
        return re.sub(r"\((?:R|TM|tm|r)\)", "", found[1]).strip()
    if platform.system() == "Darwin":
        asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    return platform.machine() or "unknown"


class HostSampler:
    """Reads /proc; remembers the last counters."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._last: tuple[int, int] | None = None

    def sample(self) -> HostReading:
        return HostReading(self._cpu(), self._memory())

    def _cpu(self) -> int | None:
        try:
            words = (self._proc / "stat").read_text().split("\n", 1)[0].split()[1:9]
        except OSError:
            return None
        ticks = [int(word) for word in words]
        now = (sum(ticks) - ticks[3] - ticks[4], sum(ticks))  # busy (neither idle nor iowait), all
        last, self._last = self._last, now
        if last is None or now[1] <= last[1]:
            return None
        return max(0, min(100, round(100 * (now[0] - last[0]) / (now[1] - last[1]))))

    def _memory(self) -> int | None:
        try:
            text = (self._proc / "meminfo").read_text()
        except OSError:
            return None
        found = dict(re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE))
        if "MemAvailable" not in found:
            return None
        return (int(found["MemTotal"]) - int(found["MemAvailable"])) * 1024
