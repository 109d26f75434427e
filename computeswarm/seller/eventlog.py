"""A job's events as an append-only file: one JSON object a line, its number the sequence number.

Whoever follows a job reads from the file at his own pace, so a slow follower never slows the job,
and a stream can be resumed after any event, also after a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, BinaryIO

from computeswarm.core.events import EVENT, JobEvent

_STRIDE = 256
PAGE_BYTES = 512 * 1024


class EventLog:
    """One job's log. Written by one, read by many, all on one event loop."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = path
        self._file: BinaryIO = path.open("a+b", buffering=0)
        self._first = 1
        """Number of the first line: higher once the log was shrunk."""
        self._last = 0
        self._size = 0
        self._marks = [0]
        """Where every ``_STRIDE``-th event begins."""
        self._ended = False
        self._pulse = asyncio.Event()
        self._recover()

    @property
    def last_seq(self) -> int:
        """Number of the newest event; 0 when there is none."""
        return self._last

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._size

    @property
    def ended(self) -> bool:
        """The end event has been written."""
        return self._ended

    def append(self, event: type[Any], **members: Any) -> JobEvent:
        """Write an event under the next number.

        Raises:
            OSError: the disk is full; nothing was written.
        """
        made: JobEvent = event(seq=self._last + 1, **members)
        line = EVENT.dump_json(made) + b"\n"
        try:
            self._write(line)
        except OSError:
            self._file.truncate(self._size)
            raise
        self._count(len(line))
        if made.type == "end":
            self._ended = True
        pulse, self._pulse = self._pulse, asyncio.Event()
        pulse.set()
        return made

    def page(self, since: int, *, limit: int = PAGE_BYTES) -> list[bytes]:
        """Events after number ``since``, as JSON, at most about ``limit`` bytes of them."""
        if since >= self._last:
            return []
        since = max(since, self._first - 1)
        passed = since - self._first + 1
        mark = passed // _STRIDE
        skip, position = passed - mark * _STRIDE, self._marks[mark]
        found: list[bytes] = []
        size = 0
        with self._path.open("rb") as file:
            file.seek(position)
            for number, line in enumerate(file):
                if number < skip:
                    continue
                if not line.endswith(b"\n") or since + len(found) >= self._last:
                    break
                found.append(line[:-1])
                size += len(line)
                if size >= limit:
                    break
        return found

    async def pages(self, since: int, *, idle: float) -> AsyncIterator[list[bytes]]:
        """Events after ``since`` as they come, until the end; an empty page after ``idle`` seconds
        without any."""
        while True:
            pulse = self._pulse
            found = self.page(since)
            if found:
                since = max(since, self._first - 1) + len(found)
                yield found
                continue
            if self._ended:
                return
            try:
                async with asyncio.timeout(idle):
                    await pulse.wait()
            except TimeoutError:
                yield []

    def shrink(self) -> None:
        """Keep the newest event only, under its number."""
        if self._last <= self._first:
            return
        (line,) = self.page(self._last - 1)
        part = self._path.with_suffix(".part")
        part.write_bytes(line + b"\n")
        part.replace(self._path)
        self._file.close()
        self._file = self._path.open("a+b", buffering=0)
        self._last, self._size, self._marks = 0, 0, [0]
        self._recover()

    def close(self) -> None:
        """Close the file; followers may read on."""
        self._file.close()

    def _write(self, line: bytes) -> None:
        view = memoryview(line)
        while view:
            view = view[self._file.write(view) :]

    def _count(self, size: int) -> None:
        self._last += 1
        self._size += size
        if (self._last - self._first + 1) % _STRIDE == 0:
            self._marks.append(self._size)

    def _recover(self) -> None:
        """Count what is there, and cut off a last line that a crash left half written."""
        last = b""
        with self._path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                if not last:
                    self._first = EVENT.validate_json(line).seq
                    self._last = self._first - 1
                self._count(len(line))
                last = line
        self._file.truncate(self._size)
        self._ended = bool(last) and EVENT.validate_json(last).type == "end"
