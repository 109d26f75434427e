"""Which device files and directories a job needs for its GPUs."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from computeswarm.core.errors import ExecutorError
from computeswarm.core.nodes import GPUInfo
from computeswarm.seller.gpus import mig
from computeswarm.seller.gpus.backends import GpuFault

_NVIDIA_SHARED = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools")
"""Not nvidia-modeset: it is the owner's screens, which no job that computes needs."""


@dataclass(frozen=True)
class Bind:
    source: Path
    target: str


@dataclass(frozen=True)
class Devices:
    nodes: tuple[Bind, ...] = ()
    directories: tuple[Bind, ...] = ()
    """Read-only."""
    groups: frozenset[int] = frozenset()
    """Groups the job's user needs to open the nodes."""


def find(
    gpus: Sequence[GPUInfo],
    *,
    root: Path = Path("/"),
    locate: Callable[[str], mig.SlicePlace] = mig.locate,
) -> Devices:
    """Find the devices of these GPUs or slices of GPUs, and of no others.

    Driver libraries need no mention: they lie below /usr, which the job sees.

    Raises:
        ExecutorError: a GPU's device is gone.
    """
    names: list[str] = []
    directories: list[str] = []
    for gpu in gpus:
        if gpu.vendor == "nvidia":
            if gpu.uuid.startswith("MIG-"):
                names += _slice_nodes(gpu, root, locate)
            else:
                names += [f"dev/{_nvidia_node(gpu, root)}"]
            names += [f"dev/{n}" for n in _NVIDIA_SHARED if (root / "dev" / n).exists()]
            directories += ["proc/driver/nvidia"]
        elif gpu.vendor == "amd":
            names += ["dev/kfd", f"dev/dri/{_render_node(gpu, root)}"]
            directories += ["sys/class/kfd", "sys/class/drm", "sys/devices", "sys/bus/pci"]
        else:
            raise ExecutorError(f"{gpu.model} can't be given to a sandboxed job.")
    nodes = tuple(Bind(root / n, f"/{n}") for n in dict.fromkeys(names))
    for node in nodes:
        if not node.source.exists():
            raise ExecutorError(f"{node.target} is gone; is the GPU's driver loaded?")
    found = dict.fromkeys(
        d for d in directories if (root / d).is_dir() and not d.startswith("proc")
    )
    return Devices(nodes, tuple(Bind(root / d, f"/{d}") for d in found), frozenset(_groups(nodes)))


def _nvidia_node(gpu: GPUInfo, root: Path) -> str:
    """The driver knows the minor number of each UUID."""
    for file in sorted((root / "proc/driver/nvidia/gpus").glob("*/information")):
        facts = dict(re.findall(r"^([^:\n]+):\s*(.*?)\s*$", file.read_text(), re.MULTILINE))
        if facts.get("GPU UUID") == gpu.uuid:
            return f"nvidia{int(facts['Device Minor'])}"
    raise ExecutorError(
        f"{gpu.model} ({gpu.uuid}) is gone; restart the seller to detect GPUs anew."
    )


def _slice_nodes(
    gpu: GPUInfo, root: Path, locate: Callable[[str], mig.SlicePlace]
) -> tuple[str, ...]:
    """The card's node opens nothing of a divided card without the two capabilities of a slice."""
    try:
        place = locate(gpu.uuid)
    except GpuFault as fault:
        raise ExecutorError(fault.detail) from fault
    instance = root / f"proc/driver/nvidia/capabilities/gpu{place.minor}/mig/gi{place.instance}"
    minors = []
    for file in (instance / "access", instance / f"ci{place.compute}" / "access"):
        said = re.search(r"^DeviceFileMinor:\s*(\d+)", _read(file), re.MULTILINE)
        if said is None:
            raise ExecutorError(
                f"{gpu.model} ({gpu.uuid}) is gone; restart the seller to detect GPUs anew."
            )
        minors.append(int(said[1]))
    return (f"dev/nvidia{place.minor}", *(f"dev/nvidia-caps/nvidia-cap{m}" for m in minors))


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _render_node(gpu: GPUInfo, root: Path) -> str:
    for device in sorted((root / "sys/class/drm").glob("renderD*")):
        unique = device / "device" / "unique_id"
        if unique.exists() and unique.read_text().strip() == gpu.uuid.removeprefix("GPU-"):
            return device.name
    raise ExecutorError(
        f"{gpu.model} ({gpu.uuid}) is gone; restart the seller to detect GPUs anew."
    )


def _groups(nodes: Sequence[Bind]) -> set[int]:
    found = set()
    for node in nodes:
        facts = node.source.stat()
        if not facts.st_mode & stat.S_IWOTH and facts.st_mode & stat.S_IWGRP and facts.st_gid:
            found.add(facts.st_gid)
    return found
