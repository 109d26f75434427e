"""Which images jobs run in now, known to every process: what is used is not removed.

A lock on a file ends with the process that holds it, however that ends, and its jobs end then too.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from computeswarm.seller.images.image import ImageError


class Uses:
    """Locks by the names of images.

    Args:
        folder: where the lock files lie; outside the images, which may be removed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def using(self, name: str) -> Iterator[None]:
        """While a job runs in it. Waits for one who puts files away, which takes no time."""
        with self._file(f"{name}.used") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield

    @contextmanager
    def alone(self, name: str) -> Iterator[bool]:
        """Whether no job runs in it; none starts in it meanwhile."""
        with self._file(f"{name}.used") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    @contextmanager
    def building(self, name: str) -> Iterator[None]:
        """While it is built or removed.

        Raises:
            ImageError: another process does that.
        """
        with self._file(f"{name}.built") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                why = f"The image {name} is being built or removed already; wait for it."
                raise ImageError(why) from error
            yield

    def _file(self, name: str) -> IO[bytes]:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return (self._folder / name).open("ab")
