"""Whether somebody else than our jobs uses a GPU: its owner, who comes first.

A desktop always has processes on the GPU, so having one there is no use. A process counts while it
works: computing at all, or drawing with a quarter of the GPU (a game, not a compositor). Where the
driver does not say who works, any computing process counts, and on a GPU that no job of ours has,
any load that lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from computeswarm.core.text import clean_line
from computeswarm.seller.gpus.backends import GpuReading, GpuUser

_COMPUTE_PCT, _GRAPHICS_PCT = 5, 25
_LOAD_PCT, _LOAD_READINGS = 25, 3
_GENERATIONS = 64


class ForeignUse:
    """Looks at readings as they come, one call for each GPU and second.

    Args:
        ours: the processes that stand for our running jobs; all below them are theirs.
    """

    def __init__(
        self, ours: Callable[[], Collection[int]] = tuple, *, proc: Path = Path("/proc")
    ) -> None:
        self.ours = ours
        self._proc = proc
        self._loaded: dict[int, int] = {}
        """Readings in a row in which a GPU without a job was loaded."""

    def look(self, index: int, reading: GpuReading, *, held: bool) -> str:
        """Who uses the GPU, in words; empty where nobody else does.

        Args:
            held: a job of ours has it.
        """
        roots = set(self.ours())
        for user in reading.users:
            if self._works(user) and self._strange(user.pid, roots):
                return f"{self._name(user.pid)} (process {user.pid})"
        loaded = not held and (reading.utilization_pct or 0) >= _LOAD_PCT
        self._loaded[index] = self._loaded.get(index, 0) + 1 if loaded else 0
        if self._loaded[index] >= _LOAD_READINGS:
            return f"somebody (load {reading.utilization_pct} %)"
        return ""

    @staticmethod
    def _works(user: GpuUser) -> bool:
        if user.load_pct is None:
            return user.kind == "compute"
        return user.load_pct >= (_COMPUTE_PCT if user.kind == "compute" else _GRAPHICS_PCT)

    def _strange(self, pid: int, roots: set[int]) -> bool:
        """Not ours; what can't be seen from here may be ours, and counts as such."""
        for _ in range(_GENERATIONS):
            if pid in roots:
                return False
            parent = self._parent(pid)
            if parent is None:
                return False
            if parent <= 1:
                return True
            pid = parent
        return True

    def _parent(self, pid: int) -> int | None:
        try:
            stat = (self._proc / str(pid) / "stat").read_text("latin-1")
            return int(stat.rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return None

    def _name(self, pid: int) -> str:
        try:
            text = (self._proc / str(pid) / "comm").read_text(errors="replace")
        except OSError:
            text = ""
        return clean_line(text, limit=40) or "somebody"
