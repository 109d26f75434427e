"""Cleaning GPUs between two buyers' jobs."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Sequence

from computeswarm.core.nodes import GPUInfo
from computeswarm.core.text import clean_line
from computeswarm.seller.gpus import scrub

_SECONDS = 30.0
_KILL_SECONDS = 5.0
_CRUMBS = 256 * 2**20
"""So much may lie about in pieces that are too small to take, or be the driver's own meanwhile."""
_COMMAND = (sys.executable, "-I", "-S", scrub.__file__)


class GpuKeeper:
    """Overwrites what a job left in the memory of its GPUs, in a child: the agent itself holds no
    CUDA context.

    NVIDIA's only. Elsewhere the driver's own clearing has to do, as the kernel's amdgpu does it.
    """

    def __init__(self, command: Sequence[str] = _COMMAND) -> None:
        self._command = tuple(command)

    async def clean(self, gpus: Sequence[GPUInfo]) -> list[str]:
        """What went wrong, in words; nothing if all is clean, or there is nothing to clean."""
        named = [gpu.uuid for gpu in gpus if gpu.vendor == "nvidia" and gpu.uuid]
        if not named:
            return []
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                env={"CUDA_VISIBLE_DEVICES": ",".join(named), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            return [f"Its memory can't be overwritten: {error.strerror}."]
        try:
            async with asyncio.timeout(_SECONDS):
                said, error_text = await process.communicate()
        except TimeoutError:
            return [f"Its memory was not overwritten within {_SECONDS:g} s."]
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                # a driver that hangs can keep it from ending, and must not keep the seller
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), _KILL_SECONDS)
        if process.returncode == scrub.NO_CUDA:
            return []  # then no job had any either
        if process.returncode != 0:
            text = error_text.decode(errors="replace").strip()
            last = clean_line(text.rpartition("\n")[2], limit=200)
            return [f"Its memory can't be overwritten: {last or process.returncode}."]
        rows = [[int(part) for part in line.split()] for line in said.splitlines()]
        if len(rows) != len(named):
            return [f"Only {len(rows)} of {len(named)} could be found."]
        missed = sum(max(0, free - done) for done, free in rows)
        if missed > _CRUMBS * len(rows):
            return [f"{missed >> 20} MiB of its free memory could not be overwritten."]
        return []
