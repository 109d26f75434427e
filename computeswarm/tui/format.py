"""How values are written on screen: short, aligned, the same everywhere."""

from __future__ import annotations

import time

from computeswarm.core.money import format_usdc
from computeswarm.core.states import JobState

BARS = "▁▂▃▄▅▆▇█"
DASH = "–"

JOB_STATES: dict[JobState, tuple[str, str, str]] = {
    JobState.CREATED: ("·", "created", "muted"),
    JobState.AWAITING_PAYMENT: ("$", "paying", "warning"),
    JobState.QUEUED: ("…", "queued", "warning"),
    JobState.STARTING: ("▸", "starting", "accent"),
    JobState.RUNNING: ("●", "running", "success"),
    JobState.SUCCEEDED: ("✓", "done", "success"),
    JobState.FAILED: ("✗", "failed", "error"),
    JobState.CANCELLED: ("■", "cancelled", "muted"),
    JobState.TIMED_OUT: ("◷", "timed out", "warning"),
    JobState.OUT_OF_FUNDS: ("○", "no funds", "warning"),
    JobState.SELLER_LOST: ("?", "lost", "error"),
}
"""Glyph, word and tone: no state is told by colour alone."""

NODE_STATES: dict[str, tuple[str, str]] = {
    "idle": ("✓", "success"),
    "busy": ("~", "warning"),
    "draining": ("↓", "muted"),
    "offline": ("✗", "error"),
}


def money(atoms: int, places: int | None = None) -> str:
    """USDC without its unit; as exact as the amount is unless ``places`` says otherwise."""
    return format_usdc(atoms, places=places)


def price(atoms: int) -> str:
    """A price an hour: two decimals, more only where it has more."""
    return format_usdc(atoms) if atoms % 10_000 else format_usdc(atoms, places=2)


def spent(atoms: int) -> str:
    """An amount in a narrow column: four decimals below a dollar, two above."""
    return format_usdc(atoms, places=4 if atoms < 1_000_000 else 2)


def size(count: int) -> str:
    """Bytes in binary units: ``24G``, ``1.5G``, ``640K``."""
    value = float(count)
    for unit in ("B", "K", "M", "G", "T"):
        if value < 1024 or unit == "T":
            break
        value /= 1024
    return f"{value:.0f}{unit}" if value >= 10 or value == int(value) else f"{value:.1f}{unit}"


def file_size(count: int) -> str:
    """Bytes with their unit spelled out: ``149 B``, ``1.5 MB``."""
    text = size(count)
    return f"{text[:-1]} {text[-1]}" if text.endswith("B") else f"{text[:-1]} {text[-1]}B"


def duration(seconds: float) -> str:
    """For people: ``45 s``, ``3 min``, ``1 h 12 min``, ``9 d``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        minutes, rest = divmod(whole, 60)
        return f"{minutes} min {rest} s" if rest and minutes < 10 else f"{minutes} min"
    if whole < 86400:
        hours, minutes = divmod(whole // 60, 60)
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{whole // 86400} d"


def clock(seconds: float) -> str:
    """For columns: ``0:07``, ``12:40``, ``1:12:40``."""
    whole = max(0, int(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{secs:02}" if hours else f"{minutes}:{secs:02}"


def millis(ms: int) -> str:
    """A phase's length: ``0.34 s``, ``12.1 s``, then like ``duration``."""
    if ms < 10_000:
        return f"{ms / 1000:.2f} s"
    return f"{ms / 1000:.1f} s" if ms < 60_000 else duration(ms / 1000)


def age(seconds: float) -> str:
    """How long ago: tenths below ten seconds."""
    return f"{max(0.0, seconds):.1f} s" if seconds < 10 else duration(seconds)


def time_of_day(unix_seconds: float) -> str:
    """The local time, ``14:05:10``."""
    return time.strftime("%H:%M:%S", time.localtime(unix_seconds))


def short_address(address: str) -> str:
    """``0x51c4…af02``, enough to tell two apart."""
    return f"{address[:6]}…{address[-4:]}" if len(address) > 12 else address


def short_job(job_id: str) -> str:
    """The first six digits of a job's id, as the command line takes them."""
    return job_id[:10]


def sparkline(values: list[float | None], width: int, top: float = 100.0) -> str:
    """The last ``width`` values as bars up to ``top``, right-aligned; blank where unknown."""
    shown = values[-width:]
    bars = "".join(
        " " if value is None else BARS[min(7, max(0, int(value / top * 8 - 1e-9)))] if top else " "
        for value in shown
    )
    return bars.rjust(width)


def gauge(share: float, width: int) -> str:
    """A horizontal bar in eighths of a cell."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")).ljust(width)
