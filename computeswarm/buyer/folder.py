"""The buyer's own folder: nothing is written outside of it, and nothing of his is overwritten.

Paths come from a stranger. They are safe by their model, but the folder may hold links that were
not: each part is opened below the one before it, and links are not followed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from computeswarm.core.errors import ComputeSwarmError, Conflict
from computeswarm.core.jobs import OutputFile
from computeswarm.core.text import clean_line

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PART = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BLOCK = 1024 * 1024


class WouldOverwrite(Conflict):
    """There are other files where the outputs would go; nothing was changed.

    ``extra['files']`` names the first hundred.
    """

    code = "would_overwrite"
    title = "There are other files already"

    @classmethod
    def of(cls, dest: Path, paths: Sequence[str]) -> WouldOverwrite:
        """The error for these paths below ``dest``."""
        some = ", ".join(clean_line(path, limit=60) for path in paths[:3])
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        return cls(
            f"{clean_line(str(dest))} holds other files of the same names ({some}{more}); choose "
            "another folder, or agree to overwrite them (--overwrite).",
            files=list(paths[:100]),
        )


@contextlib.contextmanager
def open_below(dest: Path, folders: Sequence[str], *, make: bool = True) -> Iterator[int]:
    """A descriptor of the folder below ``dest``; the folders on the way are made.

    Raises:
        ComputeSwarmError: a link or a file is in the way.
        FileNotFoundError: it is not there, and is not to be made.
    """
    if make:
        dest.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(dest, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in folders:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, dir_fd=descriptor)
            try:
                below = os.open(part, _FOLDER, dir_fd=descriptor)
            except OSError as error:
                if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
                raise ComputeSwarmError(
                    f"{clean_line(str(dest / part))} is no folder of its own; move it away, or "
                    "choose another folder for the outputs."
                ) from None
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


def standing(dest: Path, file: OutputFile) -> str:
    """The digest of what lies where an output would go: ``""`` for nothing, ``"other"`` for
    something that is surely not it. Reads a file of the same size whole."""
    *folders, name = file.path.split("/")
    try:
        with open_below(dest, folders, make=False) as folder:
            facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if not stat.S_ISREG(facts.st_mode) or facts.st_size != file.size:
                return "other"
            descriptor = os.open(name, _READ, dir_fd=folder)
    except FileNotFoundError:
        return ""
    with os.fdopen(descriptor, "rb") as present:
        digest = hashlib.sha256()
        while block := present.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


class PartFile:
    """A file on its way into an open folder. Its methods block: call them in a thread.

    It is kept under a hidden name until it is whole, so that a later try goes on where this one
    broke off.
    """

    def __init__(self, folder: int, name: str, file: OutputFile) -> None:
        self._folder, self._name, self._file = folder, name, file
        # of this version and this name: equal files side by side are two
        self._hidden = f".{file.sha256[:16]}{hashlib.sha256(name.encode()).hexdigest()[:8]}.part"
        self._digest = hashlib.sha256()
        self._descriptor = -1
        self.received = 0
        """Bytes that are there."""

    def open(self) -> None:
        """Take over what an earlier try has left."""
        self._descriptor = os.open(self._hidden, _PART, 0o644, dir_fd=self._folder)
        facts = os.fstat(self._descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink > 1:
            raise ComputeSwarmError(f"{self._hidden} is in the way; move it away.")
        while block := os.read(self._descriptor, _BLOCK):
            self._digest.update(block)
            self.received += len(block)
        if self.received > self._file.size:
            self.restart()

    def restart(self) -> None:
        """Begin anew."""
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self._digest, self.received = hashlib.sha256(), 0

    def write(self, chunks: Sequence[bytes]) -> None:
        """Append chunks."""
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                view = view[os.write(self._descriptor, view) :]
            self._digest.update(chunk)
            self.received += len(chunk)

    @property
    def right(self) -> bool:
        """Whether it is whole, and what was listed."""
        whole = self.received == self._file.size
        return whole and self._digest.hexdigest() == self._file.sha256

    def place(self, *, overwrite: bool) -> bool:
        """Give it its name; False where something else has it, and may not be overwritten."""
        ends: dict[str, Any] = {"src_dir_fd": self._folder, "dst_dir_fd": self._folder}
        if overwrite:
            os.replace(self._hidden, self._name, **ends)  # noqa: PTH105 - below a descriptor
            return True
        try:
            os.link(self._hidden, self._name, follow_symlinks=False, **ends)
        except FileExistsError:
            return False
        except OSError:  # a file system without second names
            if _exists(self._name, self._folder):
                return False
            os.rename(self._hidden, self._name, **ends)  # noqa: PTH104 - below a descriptor
            return True
        os.unlink(self._hidden, dir_fd=self._folder)
        return True

    def close(self, *, keep: bool) -> None:
        """Close it; what there is of it stays, if ``keep``, for a later try."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            if not keep or not self.received:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._hidden, dir_fd=self._folder)


def _exists(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
