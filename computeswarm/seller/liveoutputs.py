"""Outputs of a job that still runs: a look at its hostile folder now and then, from outside.

A file counts as settled when two looks in a row find it the same. Then it is copied, so that what a
buyer fetches has one digest whatever the job does meanwhile; a file that changed under the copy
waits for the next look. What a look may cost is bounded, so is what the copies take. When the job
has ended, ``outputs.collect`` has the last word.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from computeswarm.core.jobs import OutputFile
from computeswarm.seller.outputs import copy_file, walk

LOOK_SECONDS = 1.0
"""From one look to the next, and more where a look took long."""
REST = 4
"""So many times as long as a look took is rested: it costs a fifth of a processor at most."""
_WALK_SECONDS = 1.0
_COPY_BYTES = 256 * 1024 * 1024
_VERSIONS = 100
"""New versions of one look."""

Mark = tuple[int, int, int, int]


class LiveOutputs:
    """The settled files below ``root``, copied into ``store``, which is removed by ``close``.

    Args:
        max_files, max_bytes: of all copies together; what is beyond comes when the job has ended.
    """

    def __init__(self, root: Path, store: Path, *, max_files: int, max_bytes: int) -> None:
        self._root, self._store = root, store
        self._max_files, self._max_bytes = max_files, max_bytes
        self._marks: dict[str, Mark] = {}
        """Of each file as the last look found it."""
        self._copied: dict[str, Mark] = {}
        self._kept: dict[str, tuple[OutputFile, Path]] = {}
        self._numbers = 0
        self._stopped = threading.Event()

    def files(self) -> tuple[OutputFile, ...]:
        """The newest settled versions, sorted by path."""
        return tuple(file for _, (file, _) in sorted(self._kept.items()))

    def find(self, path: str) -> tuple[OutputFile, Path] | None:
        """A file's newest settled version, and where its copy lies."""
        return self._kept.get(path)

    def look(self) -> list[OutputFile]:
        """What has settled since the last look. Blocks: call it in a thread.

        Raises:
            OutputsTooLarge: there are too many files to look at.
            StorageFull: a copy does not fit on the disk.
        """
        before, marks = self._marks, dict[str, Mark]()
        fresh: list[OutputFile] = []
        budget, ends, whole = _COPY_BYTES, time.monotonic() + _WALK_SECONDS, True
        with closing(walk(self._root, [])) as found:
            for path, fd in found:
                try:
                    marks[path] = mark = _mark(os.fstat(fd))
                    if mark == before.get(path) and mark != self._copied.get(path):
                        size = mark[1]
                        fits = budget >= size or budget == _COPY_BYTES
                        if fits and len(fresh) < _VERSIONS and self._has_room(path, size):
                            budget -= size
                            fresh += self._copy(path, fd, mark)
                finally:
                    os.close(fd)
                if self._stopped.is_set() or time.monotonic() > ends:
                    whole = False
                    break
        self._marks = marks if whole else before | marks
        if whole:
            self._forget(set(self._kept) - set(marks))
        return fresh

    def stop(self) -> None:
        """Have a look that is under way end soon."""
        self._stopped.set()

    def close(self) -> None:
        """Remove the copies."""
        self._kept.clear()
        shutil.rmtree(self._store, ignore_errors=True)

    def _has_room(self, path: str, size: int) -> bool:
        others = [file.size for name, (file, _) in self._kept.items() if name != path]
        return len(others) < self._max_files and sum(others) + size <= self._max_bytes

    def _copy(self, path: str, fd: int, mark: Mark) -> Iterator[OutputFile]:
        self._numbers += 1
        target = self._store / str(self._numbers)
        digest = copy_file(fd, mark[1], target)
        if _mark(os.fstat(fd)) != mark or target.stat().st_size != mark[1]:
            target.unlink()  # it changed under our reading
            return
        file = OutputFile(path=path, size=mark[1], sha256=digest)
        self._copied[path] = mark
        old = self._kept.get(path)
        self._kept[path] = (file, target)
        if old is not None:
            old[1].unlink(missing_ok=True)
        if old is None or old[0] != file:
            yield file

    def _forget(self, paths: set[str]) -> None:
        """The job has removed them."""
        for path in paths:
            _, copy = self._kept.pop(path)
            self._copied.pop(path, None)
            copy.unlink(missing_ok=True)


def _mark(facts: os.stat_result) -> Mark:
    """What differs once a file was written to; a job can't set the last of them."""
    return facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns
