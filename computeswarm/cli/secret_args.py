"""Taking a secret back out of the command line, which everybody on a machine may read."""

from __future__ import annotations

from pathlib import Path

_ARGUMENTS = (47, 48)
"""Where ``/proc/self/stat`` says that the arguments begin and end, see proc(5); counted from 0."""


def hide_argument(secret: str) -> None:
    """Write x over a secret wherever it stands in this process's arguments.

    It was readable until now, so a variable or a file is the better place for it. Does nothing
    where the system has no ``/proc`` or where there is no secret.
    """
    stat = Path("/proc/self/stat")
    if not secret or not stat.exists():
        return
    import ctypes  # not needed by whoever gives no secret

    # the program's name stands in brackets and may itself hold some, and spaces
    fields = stat.read_text("utf-8", "replace").rpartition(")")[2].split()
    start, end = (int(fields[place - 2]) for place in _ARGUMENTS)
    if not 0 < start < end:
        return  # the system does not say
    given, sought = ctypes.string_at(start, end - start), secret.encode()
    hidden = given.replace(sought, b"x" * len(sought))
    if hidden != given:
        ctypes.memmove(start, hidden, len(hidden))
