"""An upload that is not whole yet: its bytes lie on disk, so it goes on where it broke off.

The digest is taken as bytes come. After a restart it is taken from the file up to there, once.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path

from computeswarm.core.errors import BadRequest, Conflict, TooLarge

_READ_BYTES = 1024 * 1024


class Part:
    """One file on its way. ``begin``, ``append`` and ``finish`` block: call them in a thread.

    There is one writer at a time, the newest: a client whose line broke comes back before we know.
    """

    def __init__(self, path: Path, sha256: str, size: int) -> None:
        self.size = size
        """Bytes announced."""
        self._path = path
        self._sha256 = sha256
        self._lock = threading.Lock()
        self._writer: object | None = None
        self._digest = hashlib.sha256()
        self._hashed = 0
        self.received = _size(path)
        """Bytes on disk; only a writer changes it."""

    def begin(self, writer: object, start: int) -> None:
        """Go on at byte ``start``, or anew at 0.

        Raises:
            Conflict: more or less than that is here; ``extra['received']`` tells.
        """
        with self._lock:
            if start not in (0, self.received):
                raise Conflict(
                    f"{self.received} bytes of the input are here; go on there.",
                    received=self.received,
                )
            if start == 0:
                self._drop()
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._writer = writer

    def append(self, writer: object, chunks: Sequence[bytes]) -> None:
        """Write chunks.

        Raises:
            Conflict: another request goes on with this input.
            TooLarge: they are more than announced; nothing of the input is kept.
            OSError: the disk is full; what is on it counts.
        """
        with self._lock:
            self._check(writer)
            if self.received + sum(map(len, chunks)) > self.size:
                self._drop()
                raise TooLarge(f"The input is longer than its {self.size} bytes; nothing was kept.")
            self._hash_written()
            try:
                with self._path.open("ab", buffering=0) as file:
                    for chunk in chunks:
                        view = memoryview(chunk)
                        while view:
                            view = view[file.write(view) :]
                        self._digest.update(chunk)
                        self._hashed += len(chunk)
            finally:
                self.received = _size(self._path)

    def finish(self, writer: object, target: Path) -> None:
        """Make it the whole file ``target``.

        Raises:
            Conflict: another request goes on with this input.
            BadRequest: it is not what was announced; nothing of it is kept.
        """
        with self._lock:
            self._check(writer)
            self._path.touch()  # an empty input has no chunk
            self._hash_written()
            if self.received != self.size or self._digest.hexdigest() != self._sha256:
                self._drop()
                raise BadRequest("The input is not what the job announced; send the right file.")
            self._path.chmod(0o400)
            self._path.replace(target)

    def remove(self) -> None:
        """Forget it; whoever writes is told at his next block."""
        with self._lock:
            self._drop()

    def _check(self, writer: object) -> None:
        if self._writer is not writer:
            raise Conflict("Another request sends this input now.", received=self.received)

    def _drop(self) -> None:
        self._writer = None
        self._path.unlink(missing_ok=True)
        self.received = self._hashed = 0
        self._digest = hashlib.sha256()

    def _hash_written(self) -> None:
        if self._hashed == self.received:
            return
        self._digest, self._hashed = hashlib.sha256(), 0
        with self._path.open("rb") as file:
            while block := file.read(_READ_BYTES):
                self._digest.update(block)
                self._hashed += len(block)
        self.received = self._hashed


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
