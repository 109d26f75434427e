"""Looking into folders of this machine: what a picker lists, and how a path goes on.

Everything here may block; call it in a thread. A file's name is whatever bytes somebody gave it:
``path`` is exact (undecodable bytes as surrogates), ``shown`` is fit for a terminal.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from itertools import islice

from textual.suggester import Suggester

from computeswarm.core.errors import BadRequest
from computeswarm.core.text import visible
from computeswarm.tui.draft import local
from computeswarm.tui.shell import quote

MOST = 20_000
"""So many entries of one folder are listed."""
_LOOKED_AT = 5_000
"""So many are looked at for a completion."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a listing."""

    path: str
    shown: str
    folder: bool = False
    size: int = 0
    changed: float = 0.0
    """Unix seconds; 0 where that is not known."""
    broken: bool = False
    """A link to nowhere, or what can't be looked at."""

    @property
    def hidden(self) -> bool:
        return self.shown.startswith(".") and self.shown not in (".", "..")


@dataclass(frozen=True, slots=True)
class Listing:
    """What a folder holds, folders first."""

    entries: tuple[Entry, ...]
    more: bool = False
    """There are more than are listed."""


def look(folder: str) -> Listing:
    """List a folder.

    Raises:
        OSError: it can't be read, or is none.
    """
    with os.scandir(folder) as found:
        entries = [_entry(one) for one in islice(found, MOST)]
        more = next(found, None) is not None
    entries.sort(key=lambda e: (not e.folder, e.shown.casefold(), e.path))
    return Listing(tuple(entries), more)


def _entry(found: os.DirEntry[str]) -> Entry:
    shown = visible(found.name)
    try:
        status = found.stat()
        is_folder = found.is_dir()
    except OSError:
        return Entry(found.path, shown, broken=True)
    return Entry(found.path, shown, is_folder, status.st_size, status.st_mtime)


def nearest_folder(path: str) -> str:
    """The folder a path names or lies in, or the nearest above it that is there."""
    here = os.path.abspath(path)  # noqa: PTH100 -- pathlib would follow the links in it
    while not os.path.isdir(here):  # noqa: PTH112
        above = os.path.dirname(here)  # noqa: PTH120
        if above == here:
            break
        here = above
    return here


def complete(text: str) -> str:
    """A path that begins as ``text`` and goes on to the end of a name; empty where none does."""
    folder, _, begun = text.rpartition("/")
    if not begun:
        return ""
    try:
        where = local(f"{folder}/" if "/" in text else ".")
        with os.scandir(where) as found:
            fitting = [
                one
                for one in islice(found, _LOOKED_AT)
                if one.name.startswith(begun) and visible(one.name) == one.name
            ]
        best = min(fitting, key=lambda one: one.name, default=None)
        if best is None:
            return ""
        return f"{text}{best.name[len(begun) :]}{'/' if best.is_dir() else ''}"
    except (OSError, ValueError, BadRequest):
        return ""


class PathSuggester(Suggester):
    """Completes the path in a field; with ``several`` the last word of it."""

    def __init__(self, *, several: bool = False) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._several = several

    async def get_suggestion(self, value: str) -> str | None:
        """The whole field as it would be."""
        before, space, word = value.rpartition(" ") if self._several else ("", "", value)
        if self._several and any(c in value for c in "'\"\\"):
            return None  # where a word begins is not worth guessing
        whole = await asyncio.to_thread(complete, word)
        if not whole or (self._several and quote(whole) != whole and not whole.startswith("~")):
            return None
        return f"{before}{space}{whole}"
