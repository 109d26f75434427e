"""How far a purchase has come, for a screen to show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of the way; ``done`` of ``total`` bytes where bytes flow, otherwise both 0."""

    phase: Phase
    done: int = 0
    total: int = 0


Report = Callable[[Progress], None]


def ignore(_: Progress) -> None:
    """A report nobody reads."""
