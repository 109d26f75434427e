"""What every way of asking for GPUs has in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from computeswarm.core.errors import ComputeSwarmError
from computeswarm.core.nodes import GPUInfo


class GpuFault(ComputeSwarmError):
    """The driver does not answer, or not as it should."""

    code = "gpu_fault"
    status = 503
    title = "A GPU can't be used"


@dataclass(frozen=True, slots=True)
class GpuUser:
    """A process that has something on a GPU."""

    pid: int
    kind: Literal["compute", "graphics"]
    load_pct: int | None = None
    """Its share of the GPU's time just now; ``None`` where the driver does not tell."""


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One reading of one GPU; ``None`` for what the driver does not tell."""

    utilization_pct: int | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_c: int | None = None
    power_mw: int | None = None
    power_limit_mw: int | None = None
    fan_pct: int | None = None
    fault: str = ""
    """Why nothing could be read, in a sentence; such a GPU should take no new job."""
    users: tuple[GpuUser, ...] = ()
    """Who has something on it, as far as the driver tells."""


class GpuBackend(Protocol):
    """One vendor's way of asking. Calls block for milliseconds; they are made in a thread."""

    @property
    def name(self) -> str: ...

    @property
    def notes(self) -> Sequence[str]:
        """What the last inventory left out, in sentences."""
        ...

    def present(self) -> bool:
        """Whether the kernel driver is there; microseconds, loads nothing."""
        ...

    def inventory(self) -> list[GPUInfo]:
        """Raises GpuFault: the driver is there and doesn't answer."""
        ...

    def readings(self) -> list[GpuReading]:
        """In the order of ``inventory``. A lost GPU is a reading with a ``fault``.

        Raises:
            GpuFault: none can be read.
        """
        ...

    def limit_power(self, index: int, watts: int) -> None:
        """Have one GPU draw no more; 0 is the driver's default.

        Raises:
            GpuFault: this GPU, or this user, can't.
        """
        ...

    def close(self) -> None: ...
