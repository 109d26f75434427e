"""Images: the named environments a seller offers.

An image here needs no registry. It is the machine's own Python, seen read-only, plus a directory
of packages that ``pip install --target`` filled.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Image:
    """What a job finds around it.

    Paths are the host's; an executor with its own root decides where they appear inside.
    """

    name: str
    description: str
    python: Path
    """The interpreter."""
    prefix: Path
    """The directory the interpreter and its standard library live under, such as ``/usr``."""
    site: Path | None = None
    """A directory of packages, put on PYTHONPATH."""
    packages: tuple[str, ...] = ()
    """What was asked of pip, as asked."""
    libpath: Path | None = None
    """Directory of ``libpython`` where the interpreter needs it."""
    root: Path | None = None
    """A directory that becomes ``/`` (read-only); ``None`` is the machine's own ``/usr``."""
