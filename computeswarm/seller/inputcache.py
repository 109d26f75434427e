"""Uploaded inputs on disk, by the wallet that sent them and their digest.

Nothing is shared between wallets: whoever names a digest must not learn, or get, what another buyer
sent. Inputs that a live job needs are pinned; of the others the least recently used go first.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from computeswarm.core.clock import Clock
from computeswarm.core.errors import StorageFull
from computeswarm.seller.parts import Part

_WALLET = re.compile(r"0x[0-9a-f]{40}")
_NAME = re.compile(r"([0-9a-f]{64})(\.part)?")
_FREE_BYTES = 512 * 1024 * 1024
"""With less room than that on the disk, nothing is kept that no job waits for."""

Key = tuple[str, str]
"""A wallet in lower case, and a digest."""


@dataclass(slots=True)
class _Kept:
    size: int
    used: float
    """When it was last used, in unix seconds: the file's own time, so that it outlives us."""


class InputCache:
    """Whole inputs and parts of some, below one folder, ``limit`` bytes in all.

    Args:
        keep: seconds for which an unpinned one stays after its last use.
    """

    def __init__(self, folder: Path, clock: Clock, *, limit: int, keep: float) -> None:
        self.limit = limit
        self.keep = keep
        self._folder = folder
        self._clock = clock
        self._whole: dict[Key, _Kept] = {}
        self._parts: dict[Key, Part] = {}
        self._part_used: dict[Key, float] = {}
        self._pins: Counter[Key] = Counter()
        self._pinned: dict[Key, int] = {}
        """The sizes of what is pinned, whether it is here yet or not."""
        self._read()

    def has(self, key: Key, size: int) -> bool:
        """Whether an input is here whole. A crash of the machine may have cut one off."""
        kept = self._whole.get(key)
        return kept is not None and kept.size == size

    def path(self, key: Key) -> Path:
        """Where a whole input lies."""
        return self._folder / key[0] / key[1]

    def received(self, key: Key, size: int) -> int:
        """Bytes of an input that are here."""
        if self.has(key, size):
            return size
        part = self._parts.get(key)
        return part.received if part is not None else 0

    def part(self, key: Key, size: int) -> Part:
        """What is there of an input that is on its way."""
        part = self._parts.get(key)
        if part is None:
            place = self.path(key)
            part = self._parts[key] = Part(place.with_name(f"{key[1]}.part"), key[1], size)
        part.size = size
        self._part_used[key] = self._clock.now()
        return part

    def completed(self, key: Key, size: int) -> None:
        """A part has become whole."""
        self._forget_part(key)
        self._whole[key] = _Kept(size, self._clock.now())

    def touch(self, keys: Iterable[Key]) -> None:
        """They are used now."""
        now = self._clock.now()
        for key in keys:
            if (kept := self._whole.get(key)) is not None:
                kept.used = now
                os.utime(self.path(key), (now, now))

    def pin(self, wanted: dict[Key, int]) -> None:
        """Keep them, and keep room for those that are to come.

        Raises:
            StorageFull: there is not enough, even without all that no job waits for. They are
                pinned nevertheless, until ``unpin``.
        """
        for key, size in wanted.items():
            # a job may announce the same digest as smaller than the one before it did
            self._pinned[key] = max(size, self._pinned.get(key, 0))
        self._pins.update(wanted.keys())
        if (needed := sum(self._pinned.values())) > self.limit:
            raise StorageFull("This seller has no room for the inputs now; try again later.")
        self._shrink(self.limit - needed)

    def unpin(self, keys: Iterable[Key]) -> None:
        """A job needs them no more."""
        for key in keys:
            self._pins[key] -= 1
            if self._pins[key] <= 0:
                del self._pins[key]
                self._pinned.pop(key, None)
        self.tidy()

    def tidy(self) -> None:
        """Remove what has had its time, and all that nobody waits for where the disk is full."""
        now = self._clock.now()
        for key, used in self._unpinned():
            if used + self.keep <= now:
                self._remove(key)
        if shutil.disk_usage(self._folder).free < _FREE_BYTES:
            self._shrink(0)

    def make_room(self) -> None:
        """Remove all that nobody waits for."""
        self._shrink(0)

    def _shrink(self, most: int) -> None:
        """Keep ``most`` bytes of what is not pinned, the last used."""
        for key, _ in sorted(self._unpinned(), key=lambda found: found[1], reverse=True):
            most -= self._size(key)
            if most < 0:
                self._remove(key)

    def _unpinned(self) -> list[tuple[Key, float]]:
        found = [(key, kept.used) for key, kept in self._whole.items() if key not in self._pins]
        return found + [(k, used) for k, used in self._part_used.items() if k not in self._pins]

    def _size(self, key: Key) -> int:
        kept, part = self._whole.get(key), self._parts.get(key)
        return (kept.size if kept else 0) + (part.received if part else 0)

    def _remove(self, key: Key) -> None:
        if self._whole.pop(key, None) is not None:
            self.path(key).unlink(missing_ok=True)
        if (part := self._forget_part(key)) is not None:
            part.remove()

    def _forget_part(self, key: Key) -> Part | None:
        self._part_used.pop(key, None)
        return self._parts.pop(key, None)

    def _read(self) -> None:
        """What an earlier run left; whatever else lies there is removed."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for wallet in self._folder.iterdir():
            if not _WALLET.fullmatch(wallet.name) or wallet.is_symlink() or not wallet.is_dir():
                _clear(wallet)
                continue
            for path in wallet.iterdir():
                self._take(wallet.name, path)

    def _take(self, wallet: str, path: Path) -> None:
        named, facts = _NAME.fullmatch(path.name), path.lstat()
        if named is None:
            _clear(path)
            return
        key = (wallet, named[1])
        if named[2]:
            self._parts[key] = Part(path, named[1], facts.st_size)
            self._part_used[key] = facts.st_mtime
        else:
            self._whole[key] = _Kept(facts.st_size, facts.st_mtime)


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
