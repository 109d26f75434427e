"""Lengths of time as people type and read them; whole seconds everywhere else."""

from __future__ import annotations

import re

from computeswarm.core.errors import BadRequest

MAX_SECONDS = 30 * 86400
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")


def parse_duration(text: str) -> int:
    """Seconds of ``90``, ``90s``, ``10m``, ``1h30m`` or ``2d``.

    Raises:
        BadRequest: not a time, zero, or more than 30 days.
    """
    bare = text.strip().lower().replace(" ", "")
    match = _DURATION.fullmatch(bare) if 0 < len(bare) < 20 and bare.isascii() else None
    if match is None:
        raise BadRequest(f"{text[:40]!r} is not a time; write it like 10m, 90s or 1h30m.")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    total = days * 86400 + hours * 3600 + minutes * 60 + seconds
    if not 0 < total <= MAX_SECONDS:
        raise BadRequest("A job may take from one second to 30 days.")
    return total


def format_duration(seconds: float) -> str:
    """At most two units: ``42s``, ``1m 05s``, ``2h 10m``, ``3d 4h``; tenths below ten seconds."""
    if 0 < seconds < 10 and seconds != int(seconds):
        return f"{seconds:.1f}s"
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{whole // 86400}d {whole % 86400 // 3600}h"
