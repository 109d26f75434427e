"""A job's stream on our own streams, and what Ctrl+C does meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, BinaryIO, Self

from computeswarm.core.errors import ExitCode
from computeswarm.core.events import JobEvent, OutputEvent, StateEvent
from computeswarm.core.jobs import StreamName
from computeswarm.core.text import StreamDecoder, clean_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from computeswarm.cli.context import Context


class Interrupts:
    """Ctrl+C by count: the first calls ``first``, the second leaves at once.

    Args:
        farewell: what is said on leaving at once: how to carry on.
    """

    def __init__(self, first: Callable[[], None], farewell: Callable[[], str]) -> None:
        self.count = 0
        self._first = first
        self._farewell = farewell

    def __enter__(self) -> Self:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._hit)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)

    def _hit(self) -> None:
        self.count += 1
        if self.count == 1:
            self._first()
            return
        os.write(2, f"{self._farewell()}\n".encode(errors="replace"))
        # a thread may hang in a write to a pipe that nobody reads; the journals are on the disk
        os._exit(ExitCode.INTERRUPTED)


class Printer:
    """Writes a job's events: its raw bytes into pipes and files, clean lines on a terminal.

    With ``--json`` each event is one object a line. Writing happens in a thread: a reader who is
    slow must not keep the next slice from being paid.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._decoders: dict[StreamName, StreamDecoder] = {}
        self.last_seq = 0

    async def show(self, event: JobEvent) -> None:
        """One event.

        Raises:
            BrokenPipeError: our reader has left.
        """
        self.last_seq = max(self.last_seq, event.seq)
        if self._context.json:
            await asyncio.to_thread(self._context.document, event.model_dump(mode="json"))
        elif isinstance(event, OutputEvent):
            data = self._filtered(event.stream, event.raw())
            if data:
                await asyncio.to_thread(_write, _buffer(event.stream), data)
        elif isinstance(event, StateEvent) and not event.state.terminal:
            why = f": {clean_line(event.reason)}" if event.reason else ""
            self._context.note(f"computeswarm: {event.state}{why}")

    async def finish(self) -> None:
        """The last lines, where they have no newline."""
        for stream, decoder in self._decoders.items():
            if lines := decoder.flush():
                await asyncio.to_thread(_write, _buffer(stream), _lines(lines))

    def _filtered(self, stream: StreamName, data: bytes) -> bytes:
        if not (sys.stdout if stream == "stdout" else sys.stderr).isatty():
            return data
        return _lines(self._decoders.setdefault(stream, StreamDecoder()).feed(data))


def _buffer(stream: StreamName) -> BinaryIO:
    return (sys.stdout if stream == "stdout" else sys.stderr).buffer


def _lines(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode(errors="replace")


def _write(target: BinaryIO, data: bytes) -> None:
    target.write(data)
    target.flush()
