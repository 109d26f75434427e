"""How far a purchase has come, for a screen to show."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Phase = Literal[
    "quoting",
    "submitting",
    "paying",
    "uploading",
    "queued",
    "starting",
    "running",
    "downloading",
    "ended",
]
_TELL_SECONDS = 0.1
_WINDOW_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of the way; ``done`` of ``total`` bytes where bytes flow, otherwise both 0."""

    phase: Phase
    done: int = 0
    total: int = 0
    rate: float = field(default=0.0, compare=False)
    """Bytes a second, of the last five."""
    eta: float | None = field(default=None, compare=False)
    """Seconds until all is there, at that rate."""
    files: int = field(default=0, compare=False)
    """That have to be moved, in all."""
    files_done: int = field(default=0, compare=False)
    there: int = field(default=0, compare=False)
    """Further files that were there already, and are not moved again."""


Report = Callable[[Progress], None]


def ignore(_: Progress) -> None:
    """A report nobody reads."""


class Flow:
    """What several transfers move together, told at most ten times a second."""

    def __init__(
        self, phase: Phase, total: int, report: Report, *, files: int = 0, there: int = 0
    ) -> None:
        self._phase, self._total, self._report = phase, total, report
        self._files, self._there = files, there
        self._files_done = self._done = 0
        self._told: float | None = None
        self._past: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._moved = 0
        """Bytes that came over the line; others were there from an earlier try."""

    def moved(self, count: int) -> None:
        """So many bytes more, or fewer where some have to be sent anew."""
        self._moved += max(0, count)
        self.found(count)

    def found(self, count: int) -> None:
        """So many bytes are there from an earlier try."""
        self._done += count
        now = time.monotonic()
        if self._told is None or now - self._told >= _TELL_SECONDS:
            self.tell(now)

    def file_done(self) -> None:
        """One file more is there whole."""
        self._files_done += 1

    def tell(self, now: float | None = None) -> None:
        """Report now."""
        now = time.monotonic() if now is None else now
        self._told = now
        self._past.append((now, self._moved))
        while len(self._past) > 2 and now - self._past[1][0] > _WINDOW_SECONDS:
            self._past.popleft()
        began, before = self._past[0]
        rate = (self._moved - before) / (now - began) if now - began > _TELL_SECONDS / 2 else 0.0
        left = max(0, self._total - self._done)
        self._report(
            Progress(
                self._phase,
                self._done,
                self._total,
                rate=rate,
                eta=left / rate if rate else None,
                files=self._files,
                files_done=self._files_done,
                there=self._there,
            )
        )
