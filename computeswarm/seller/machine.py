"""The machine over time, for its owner's screen, for heartbeats and for the meters of jobs."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from computeswarm.core.clock import Clock
from computeswarm.core.nodes import Hardware
from computeswarm.seller.gpus import GpuMonitor, GpuReading, HostReading
from computeswarm.seller.gpus.foreign import ForeignUse
from computeswarm.seller.notices import Notices
from computeswarm.seller.owner import GpuSample, OwnerHost

SAMPLE_SECONDS = 1.0
_KEPT = 120


class MachineWatch:
    """Takes a reading each second and keeps the last 120 of each GPU."""

    def __init__(
        self, hardware: Hardware, monitor: GpuMonitor, clock: Clock, notices: Notices
    ) -> None:
        self._hardware = hardware
        self._monitor = monitor
        self._clock = clock
        self._notices = notices
        self._samples: list[deque[GpuSample]] = [deque(maxlen=_KEPT) for _ in hardware.gpus]
        self._now: list[GpuReading] = [GpuReading() for _ in hardware.gpus]
        self._host = HostReading(None, None)
        self._task: asyncio.Task[None] | None = None
        self.use = ForeignUse()
        self.holder: Callable[[int], str] = lambda _: ""
        """The job of ours that has a GPU."""
        self._foreign: dict[int, str] = {}

    def start(self) -> None:
        """Begin to take readings."""
        self._task = asyncio.create_task(self._watch(), name="machine-watch")

    async def close(self) -> None:
        """Stop, and let go of the driver."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._monitor.close()

    def samples(self, index: int) -> Sequence[GpuSample]:
        """The last readings of a GPU, oldest first."""
        return tuple(self._samples[index])

    def reading(self, index: int) -> GpuReading:
        """A GPU now."""
        return self._now[index]

    def faulty(self) -> set[int]:
        """GPUs that take no new job: the driver has lost them."""
        return {index for index, reading in enumerate(self._now) if reading.fault}

    def foreign(self) -> dict[int, str]:
        """GPUs that somebody else than a job of ours uses, and who, in words."""
        return dict(self._foreign)

    async def limit_power(self, watts: int, note: Path) -> None:
        """Have each GPU draw no more; 0 is as it was before. The owner hears of failures.

        Args:
            note: keeps the limits that were in force, from before the first change until
                ``restore_power``, which may be the next start's after a kill.
        """
        if not watts:
            await self.restore_power(note)
            return
        if not note.exists():
            before = {
                gpu.uuid: reading.power_limit_mw
                for gpu, reading in zip(
                    self._hardware.gpus, await self._monitor.sample(), strict=True
                )
                if reading.power_limit_mw
            }
            partial = note.with_suffix(".new")
            partial.write_text(json.dumps(before))
            partial.replace(note)
        every = range(len(self._hardware.gpus))
        self._tell(await self._monitor.limit_power(dict.fromkeys(every, watts)))

    async def restore_power(self, note: Path) -> None:
        """Put back the limits that ``limit_power`` found; nothing where it changed none."""
        try:
            before = json.loads(note.read_bytes())
        except FileNotFoundError:
            return
        except ValueError:
            before = {}
        limits = {
            index: round(before[gpu.uuid] / 1000)
            for index, gpu in enumerate(self._hardware.gpus)
            if gpu.uuid in before
        }
        problems = await self._monitor.limit_power(limits)
        self._tell(problems)
        if not problems:
            note.unlink()  # else the next start, which may be root's or after a reboot, tries again

    def _tell(self, problems: Sequence[str]) -> None:
        for problem in problems:
            self._notices.tell(problem, "warning")

    def utilization(self) -> int | None:
        """Mean load of the GPUs in percent; of the processor on a cpu node."""
        if not self._hardware.gpus:
            return self._host.cpu_pct
        known = [r.utilization_pct for r in self._now if r.utilization_pct is not None]
        return round(sum(known) / len(known)) if known else None

    def host(self) -> OwnerHost:
        """Processor and memory."""
        return OwnerHost(
            cpu_model=self._hardware.cpu_model,
            cpu_cores=self._hardware.cpu_cores,
            memory_bytes=self._hardware.memory_bytes,
            cpu_pct=self._host.cpu_pct,
            memory_used_bytes=self._host.memory_used_bytes,
        )

    async def _watch(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(SAMPLE_SECONDS)

    async def look(self) -> None:
        """Take a reading of everything."""
        self._host = await self._monitor.sample_host()
        for index, reading in enumerate(await self._monitor.sample()):
            self._take(index, reading)

    def _take(self, index: int, reading: GpuReading) -> None:
        if reading.fault and reading.fault != self._now[index].fault:
            self._notices.tell(f"GPU {index}: {reading.fault}", "error")
        self._now[index] = reading
        who = self.use.look(index, reading, held=bool(self.holder(index)))
        if who:
            self._foreign[index] = who
        else:
            self._foreign.pop(index, None)
        self._samples[index].append(
            GpuSample(
                at=int(self._clock.now() * 1000),
                utilization_pct=reading.utilization_pct,
                memory_used_bytes=reading.memory_used_bytes,
                temperature_c=reading.temperature_c,
                power_mw=reading.power_mw,
            )
        )
