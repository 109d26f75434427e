"""The description of a job's container, as the engine's interface takes it: all the walls.

Nothing of the job itself is in it (see ``shim``). Traps that this file is shaped by:

- A root file system that can be written has no quota, and neither has a volume that the image
  declares: the root is read-only and a small tmpfs lies over each declared volume.
- Images for GPUs set NVIDIA_VISIBLE_DEVICES=all, which the NVIDIA runtime obeys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from computeswarm.core.nodes import GPUInfo
from computeswarm.seller.executors.base import MIB, Limits
from computeswarm.seller.executors.docker.profile import seccomp_profile

JOB_DIR = "/job"
SITE_DIR = "/opt/site"
SHIM = "/.computeswarm-shim"
OWNER_LABEL = "computeswarm.seller"
"""The tag of the seller's folder: whose container it is."""
_RESOLV_CONF = "/etc/resolv.conf"
SHIM_FILE = Path(__file__).with_name("shim.py")
"""Where process 1 comes from; the engine is given a copy in the seller's folder, as a seller in a
container of his own has this one where the engine's machine has not."""
_RUNSC_PIDS = 256
"""gVisor's own threads count too; it crashes with fewer."""
_VOLUME_BYTES = 16 * MIB
_TMP_INODES = 65_536


@dataclass(frozen=True, slots=True)
class Shape:
    """All that a container needs to be told when it is made; it then fits any job of that shape."""

    image: str
    """The engine's id of the image, ``sha256:…``."""
    python: str
    """The interpreter inside the image."""
    site: Path | None
    limits: Limits
    gpus: tuple[GPUInfo, ...]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the engine and the machine are like."""

    tag: str
    shim: Path = SHIM_FILE
    """On the engine's machine."""
    cgroup_parent: str = ""
    runtime: str = ""
    """``runsc``, or empty for the engine's default."""
    cdi: bool = False
    """The engine takes CDI device names."""
    volumes: tuple[str, ...] = ()
    """Paths that the image declares as volumes."""
    devices: tuple[str, ...] = ()
    """Device nodes of GPUs that have no runtime of their own (AMD)."""
    groups: tuple[int, ...] = ()
    """Groups that may open them."""
    resolv_conf: Path | None = None
    """Whom a job asks for names, if it gets a network."""
    labels: Mapping[str, str] = field(default_factory=dict)


def container(shape: Shape, around: Surroundings, workdir: Path, user: str) -> dict[str, Any]:
    """The body of ``POST /containers/create``."""
    nvidia = any(gpu.vendor == "nvidia" for gpu in shape.gpus)
    return {
        "Image": shape.image,
        "Entrypoint": [],
        "Cmd": [shape.python, "-I", "-S", SHIM],
        "Env": [] if nvidia else ["NVIDIA_VISIBLE_DEVICES=void"],
        "User": user,
        "WorkingDir": "/",  # the job's directory is shut until its inputs are there
        "Hostname": "job",
        "Labels": {OWNER_LABEL: around.tag, **around.labels},
        "Healthcheck": {"Test": ["NONE"]},
        "NetworkDisabled": True,
        "Tty": False,
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": _host(shape, around, workdir),
    }


def _host(shape: Shape, around: Surroundings, workdir: Path) -> dict[str, Any]:
    limits = shape.limits
    gvisor = around.runtime == "runsc"
    host: dict[str, Any] = {
        "NetworkMode": "none",
        "ReadonlyRootfs": True,
        "Privileged": False,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges", f"seccomp={seccomp_profile()}"],
        "Memory": limits.memory_bytes,
        "MemorySwap": limits.memory_bytes,
        "PidsLimit": max(limits.pids, _RUNSC_PIDS) if gvisor else limits.pids,
        "NanoCpus": int(limits.cpus * 1e9),
        "Ulimits": [
            {"Name": "nofile", "Soft": limits.open_files, "Hard": limits.open_files},
            {"Name": "core", "Soft": 0, "Hard": 0},
        ],
        "IpcMode": "private",
        # it counts as the job's memory, so that is its cap as well
        "ShmSize": limits.memory_bytes,
        "Tmpfs": _tmpfs(limits, around.volumes),
        "Mounts": [
            _bind(workdir, JOB_DIR, read_only=False),
            _bind(around.shim, SHIM),
            *([_bind(shape.site, SITE_DIR)] if shape.site else []),
            *([_bind(around.resolv_conf, _RESOLV_CONF)] if around.resolv_conf else []),
        ],
        "LogConfig": {"Type": "none"},
        "RestartPolicy": {"Name": "no"},
        "AutoRemove": False,
        "Init": False,
        "DeviceRequests": _nvidia(shape.gpus, cdi=around.cdi),
        "Devices": [
            {"PathOnHost": path, "PathInContainer": path, "CgroupPermissions": "rw"}
            for path in around.devices
        ],
        "GroupAdd": [str(group) for group in around.groups],
    }
    if around.cgroup_parent:
        host["CgroupParent"] = around.cgroup_parent
    if around.runtime:
        host["Runtime"] = around.runtime
    return host


def _tmpfs(limits: Limits, volumes: Sequence[str]) -> dict[str, str]:
    always = f"rw,nosuid,nodev,mode=1777,nr_inodes={_TMP_INODES}"
    small = dict.fromkeys(volumes, f"{always},size={_VOLUME_BYTES}")
    return {**small, "/tmp": f"{always},exec,size={limits.memory_bytes}"}  # noqa: S108 - the job's


def _bind(source: Path, target: str, *, read_only: bool = True) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": str(source),
        "Target": target,
        "ReadOnly": read_only,
        "BindOptions": {"Propagation": "rprivate", "NonRecursive": True},
    }


def _nvidia(gpus: Sequence[GPUInfo], *, cdi: bool) -> list[dict[str, Any]]:
    """One request that names exactly the cards (or MIG slices) of the job."""
    names = [gpu.uuid for gpu in gpus if gpu.vendor == "nvidia"]
    if not names:
        return []
    if cdi:
        return [{"Driver": "cdi", "DeviceIDs": [f"nvidia.com/gpu={name}" for name in names]}]
    capabilities = [["gpu", "compute", "utility"]]
    return [{"Driver": "nvidia", "DeviceIDs": names, "Capabilities": capabilities}]
