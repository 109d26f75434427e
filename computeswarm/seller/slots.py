"""Who runs next, and on which GPUs. Whole GPUs, first come first served."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from computeswarm.core.jobs import JobSpec
from computeswarm.core.nodes import GPUInfo, Hardware

_DISK_MARGIN = 256 * 2**20
"""Stays free for the seller's own files."""


def disk_for_jobs(hardware: Hardware) -> int:
    """Bytes for all jobs together; without bound where nobody knows what is free."""
    return max(0, hardware.disk_bytes - _DISK_MARGIN) if hardware.disk_bytes else sys.maxsize


def fits(gpu: GPUInfo, spec: JobSpec) -> bool:
    """Whether a job can use a GPU. A process of CUDA sees one slice of a GPU at most (NVIDIA's MIG
    guide, "CUDA device enumeration"), so a job for several has whole ones only."""
    slice_of_many = spec.gpu_count > 1 and gpu.uuid.startswith("MIG-")
    return gpu.memory_bytes >= spec.min_vram_bytes and not slice_of_many


@dataclass(frozen=True, slots=True)
class Place:
    """What a job holds while it runs."""

    gpus: tuple[int, ...]
    memory_bytes: int
    disk_bytes: int = 0


@dataclass
class Slots:
    """Places for jobs on one machine. Sizes in bytes."""

    count: int
    gpus: Sequence[GPUInfo]
    memory_bytes: int
    disk_bytes: int = sys.maxsize
    """For all jobs together; one alone is let in, and its sandbox looks at what is free then."""
    faulty: set[int] = field(default_factory=set)
    """GPUs that take no job now."""
    _taken: dict[str, Place] = field(default_factory=dict)

    @property
    def running(self) -> int:
        """Places that are taken."""
        return len(self._taken)

    def place(self, job_id: str) -> Place | None:
        """What a job holds."""
        return self._taken.get(job_id)

    def take(self, job_id: str, spec: JobSpec) -> Place | None:
        """A place for a job, or None while there is none."""
        if len(self._taken) >= self.count:
            return None
        held = {index for place in self._taken.values() for index in place.gpus}
        fitting = [index for index in self._fitting(spec) if index not in held]
        memory = sum(place.memory_bytes for place in self._taken.values())
        if len(fitting) < spec.gpu_count or memory + spec.memory_bytes > self.memory_bytes:
            return None
        disk = sum(place.disk_bytes for place in self._taken.values())
        if self._taken and disk + spec.disk_bytes > self.disk_bytes:
            return None
        # the smallest that fit: a later job may need the large ones
        fitting.sort(key=lambda index: self.gpus[index].memory_bytes)
        chosen = tuple(sorted(fitting[: spec.gpu_count]))
        place = Place(chosen, spec.memory_bytes, spec.disk_bytes)
        self._taken[job_id] = place
        return place

    def possible(self, spec: JobSpec) -> bool:
        """Whether enough GPUs are well, free or not."""
        return len(self._fitting(spec)) >= spec.gpu_count

    def any_free(self, unwell: set[int]) -> bool:
        """Whether a GPU is well and nobody's; a machine without one has none to wait for."""
        every = range(len(self.gpus))
        return not self.gpus or any(i not in unwell and not self.holder(i) for i in every)

    def _fitting(self, spec: JobSpec) -> list[int]:
        return [
            index
            for index, gpu in enumerate(self.gpus)
            if index not in self.faulty and fits(gpu, spec)
        ]

    def release(self, job_id: str) -> None:
        """The job has gone."""
        self._taken.pop(job_id, None)

    def holder(self, gpu: int) -> str:
        """The job that has a GPU, or an empty text."""
        for job_id, place in self._taken.items():
            if gpu in place.gpus:
                return job_id
        return ""

    def without_gpu(self) -> tuple[str, ...]:
        """The jobs that have a place and no GPU."""
        return tuple(job_id for job_id, place in self._taken.items() if not place.gpus)
