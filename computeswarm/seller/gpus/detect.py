"""What this machine has: the kernel's device nodes first, then the vendor's library, then torch."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from computeswarm.core.nodes import GPUInfo, Hardware
from computeswarm.core.throughput import sheet_tflops
from computeswarm.seller.gpus.amd import AmdBackend
from computeswarm.seller.gpus.backends import GpuBackend, GpuFault
from computeswarm.seller.gpus.host import host_facts
from computeswarm.seller.gpus.nvidia import NvidiaBackend
from computeswarm.seller.gpus.torch_probe import ask_torch, torch_installed


@dataclass(frozen=True)
class Inventory:
    hardware: Hardware
    backend: GpuBackend | None
    """Answers for ``hardware.gpus`` from now on; ``None``: nothing can be read of them."""
    notes: tuple[str, ...] = ()
    """What went wrong on the way, one sentence each, for the seller to read."""

    @property
    def gpus(self) -> tuple[GPUInfo, ...]:
        return self.hardware.gpus


async def detect(
    home: Path = Path(),
    *,
    backends: Sequence[GpuBackend] | None = None,
    torch: Callable[[], Awaitable[list[GPUInfo]]] | None = None,
) -> Inventory:
    """Find the GPUs. A machine without any is described by its processor alone.

    Torch is asked only where it can know more than the kernel's device nodes: when a driver is
    loaded but did not answer, and on macOS.

    Args:
        home: the seller's state directory, for the free disk space.
    """
    facts = await asyncio.to_thread(host_facts, home)
    notes: list[str] = []
    gpus: list[GPUInfo] = []
    found: GpuBackend | None = None
    for backend in backends if backends is not None else (NvidiaBackend(), AmdBackend()):
        if not backend.present():
            continue
        try:
            gpus = await asyncio.to_thread(backend.inventory)
        except GpuFault as fault:
            notes.append(fault.detail)
        else:
            notes += backend.notes
        if gpus:
            found = backend
            break
    ask = torch or (ask_torch if torch_installed() else None)
    if not gpus and ask is not None and (notes or sys.platform == "darwin"):
        try:
            gpus = await ask()
        except GpuFault as fault:
            notes.append(fault.detail)
    hardware = Hardware(
        cpu_model=facts.cpu_model[:120],
        cpu_cores=facts.cpu_cores,
        memory_bytes=facts.memory_bytes,
        disk_bytes=facts.disk_bytes,
        gpus=tuple(map(_with_throughput, gpus)),
    )
    return Inventory(hardware, found, tuple(notes))


def _with_throughput(gpu: GPUInfo) -> GPUInfo:
    return gpu.model_copy(update={"tflops": gpu.tflops or sheet_tflops(gpu.model)})
