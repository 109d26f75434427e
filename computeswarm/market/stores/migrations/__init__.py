"""Schemas as numbered files, one folder an engine. Never edited once released, only added to."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def scripts(engine: str) -> tuple[str, ...]:
    """The scripts of ``sqlite`` or ``postgres``, in order; the first makes version 1."""
    folder = files(__name__) / engine
    names = sorted(f.name for f in folder.iterdir() if f.name.endswith(".sql"))
    return tuple((folder / name).read_text(encoding="utf-8") for name in names)
