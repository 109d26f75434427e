"""Collecting what a job left in its outputs directory, which is as hostile as the job was.

Directories are walked by descriptor without following links, every file is opened before it is
judged, and only plain files with one name count: a link would copy the seller's own files, a FIFO
would block for ever, a sparse file would fill the disk. ``collect`` is for a job that has ended,
``liveoutputs`` for one that runs.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from computeswarm.core.errors import NotFound, StorageFull, TooLarge
from computeswarm.core.jobs import OutputFile, safe_relative_path

_CHUNK = 1024 * 1024
_MAX_DEPTH = 32
_MAX_PATH_BYTES = 1024
_MAX_ENTRIES = 100_000
_SPARSE_FREE = 1024 * 1024
_SPARSE_RATIO = 256
"""Compressing file systems store little for much; beyond this a file is one of holes."""
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Collected:
    files: tuple[OutputFile, ...]
    """Sorted by path."""
    refused: tuple[str, ...]
    """Why something was left out, one sentence each; 100 at most."""


class OutputsTooLarge(TooLarge):
    """More files or bytes than agreed; nothing was collected."""

    code = "outputs_too_large"
    title = "The outputs are larger than agreed"


def collect(root: Path, *, max_files: int, max_bytes: int, store: Path | None = None) -> Collected:
    """List the files below ``root`` with their digests; copy them to ``store`` if it is given.

    A missing or replaced ``root`` has no files. Reads every byte: call it in a thread.

    Raises:
        OutputsTooLarge: there are more than ``max_files`` files or ``max_bytes`` bytes.
        StorageFull: ``store`` has no room.
    """
    files: list[OutputFile] = []
    refused: list[str] = []
    total = 0
    for path, fd in walk(root, refused):
        try:
            size = os.fstat(fd).st_size
            total += size
            if len(files) >= max_files:
                raise OutputsTooLarge(f"The job left more than {max_files} files; pack them.")
            if total > max_bytes:
                raise OutputsTooLarge(f"The job left more than {max_bytes} bytes of outputs.")
            target = store / path if store is not None else None
            digest = copy_file(fd, size, target)
        finally:
            os.close(fd)
        files.append(OutputFile(path=path, size=size, sha256=digest))
    return Collected(tuple(sorted(files, key=lambda f: f.path)), tuple(refused[:100]))


def open_output(root: Path, relative: str) -> BinaryIO:
    """Open one output for reading, whatever the path tries.

    Raises:
        NotFound: there is no such plain file.
    """
    parts = PurePosixPath(relative).parts
    if not parts or relative.startswith("/") or ".." in parts or "\0" in relative:
        raise NotFound("There is no output of that name.")
    fds: list[int] = []
    try:
        fds.append(os.open(root, _FLAGS | os.O_DIRECTORY))
        for part in parts[:-1]:
            fds.append(os.open(part, _FLAGS | os.O_DIRECTORY, dir_fd=fds[-1]))
        fd = os.open(parts[-1], _FLAGS, dir_fd=fds[-1])
    except OSError as error:
        raise NotFound("There is no output of that name.") from error
    finally:
        for directory in fds:
            os.close(directory)
    if _objection(os.fstat(fd)) is not None:
        os.close(fd)
        raise NotFound("There is no output of that name.")
    return os.fdopen(fd, "rb")


def walk(root: Path, refused: list[str]) -> Generator[tuple[str, int], None, None]:
    """Yield path and open descriptor of each acceptable file; the caller closes it.

    Raises:
        OutputsTooLarge: there are more than 100,000 entries.
    """
    try:
        top = os.open(root, _FLAGS | os.O_DIRECTORY)
    except OSError:
        return
    try:
        yield from _walk_directory("", top, refused, count())
    finally:
        os.close(top)


def _walk_directory(
    prefix: str, directory: int, refused: list[str], entries: Iterator[int]
) -> Iterator[tuple[str, int]]:
    """Only the directories on the way down are open: a job can't use up the seller's files."""
    with os.scandir(directory) as listing:
        for entry in listing:
            if next(entries) >= _MAX_ENTRIES:
                raise OutputsTooLarge(f"The job left more than {_MAX_ENTRIES} files; pack them.")
            path = prefix + entry.name
            opened = _open_entry(path, entry.name, directory, refused)
            if opened is None:
                continue
            if not stat.S_ISDIR(os.fstat(opened).st_mode):
                yield path, opened
                continue
            try:
                yield from _walk_directory(f"{path}/", opened, refused, entries)
            finally:
                os.close(opened)


def _open_entry(path: str, name: str, directory: int, refused: list[str]) -> int | None:
    shown = ascii(path[:80])
    if not _can_be_handed_on(path):
        refused.append(f"{shown} has a name that can't be handed on.")
        return None
    if path.count("/") >= _MAX_DEPTH:
        refused.append(f"{shown} lies too deep.")
        return None
    try:
        fd = os.open(name, _FLAGS, dir_fd=directory)
    except OSError as error:
        why = "is a link" if error.errno == errno.ELOOP else f"can't be read ({error.strerror})"
        refused.append(f"{shown} {why}.")
        return None
    objection = _objection(os.fstat(fd), directory=os.fstat(directory))
    if objection is not None:
        os.close(fd)
        refused.append(f"{shown} {objection}.")
        return None
    return fd


def _can_be_handed_on(path: str) -> bool:
    try:
        long = len(path.encode()) > _MAX_PATH_BYTES
        return not long and path.isprintable() and safe_relative_path(path) == path
    except ValueError:
        return False


def _objection(facts: os.stat_result, directory: os.stat_result | None = None) -> str | None:
    if directory is not None and facts.st_dev != directory.st_dev:
        return "lies on another file system"
    if stat.S_ISDIR(facts.st_mode):
        return None if directory is not None else "is a directory"
    if not stat.S_ISREG(facts.st_mode):
        return "is not a plain file"
    if facts.st_nlink > 1:
        return "has more than one name"
    if facts.st_size > facts.st_blocks * 512 * _SPARSE_RATIO + _SPARSE_FREE:
        return "is sparse"
    return None


def copy_file(fd: int, size: int, target: Path | None) -> str:
    """The digest of ``size`` bytes, which are written to ``target`` on the way.

    Raises:
        StorageFull: it can't be written.
    """
    digest = hashlib.sha256()
    try:
        with _sink(target) as sink:
            left = size
            while left > 0 and (chunk := os.read(fd, min(_CHUNK, left))):
                digest.update(chunk)
                left -= len(chunk)
                if sink is not None:
                    sink.write(chunk)
    except OSError as error:
        raise StorageFull(f"The outputs can't be kept: {error.strerror}.") from error
    return digest.hexdigest()


@contextmanager
def _sink(target: Path | None) -> Iterator[BinaryIO | None]:
    if target is None:
        yield None
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        yield file
