"""A part of a file as a response body, however slow its reader: nothing of it is held in memory."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any, BinaryIO

from aiohttp import web

SEND_SECONDS = 60.0
"""A reader who takes no byte for so long is gone."""
_STEP_BYTES = 4 * 1024 * 1024
"""What one step in a thread sends at most, to a reader who is as fast as the disk."""
_BLOCK_BYTES = 256 * 1024


async def send_file(
    request: web.Request, reply: web.StreamResponse, file: BinaryIO, start: int, stop: int
) -> None:
    """Answer with the bytes ``start`` to before ``stop``; the reply's head is made already.

    By the kernel where the line is plain (sendfile), which takes no copy through this process.

    Raises:
        ConnectionError: the reader is gone.
    """
    reply.content_length = stop - start
    writer: Any = await reply.prepare(request)
    transport = request.transport
    if start < stop and transport is not None:
        plain = transport.get_extra_info("sslcontext") is None
        if plain and sys.platform == "linux":
            writer.send_headers()
            await _send(transport, file, start, stop)
        else:
            await _copy(reply, file, start, stop)
    await reply.write_eof()


async def _copy(reply: web.StreamResponse, file: BinaryIO, start: int, stop: int) -> None:
    while start < stop:
        count = min(_BLOCK_BYTES, stop - start)
        block = await asyncio.to_thread(os.pread, file.fileno(), count, start)
        if not block:
            raise ConnectionResetError("the file has become shorter")
        start += len(block)
        async with asyncio.timeout(SEND_SECONDS):
            await reply.write(block)


async def _send(transport: asyncio.Transport, file: BinaryIO, start: int, stop: int) -> None:
    loop = asyncio.get_running_loop()
    await _flushed(transport)
    # of our own: the transport may close its descriptor while a thread sends, and the number would
    # be another connection's; and a loop watches a descriptor that is a transport's for nobody else
    line = os.dup(transport.get_extra_info("socket").fileno())
    try:
        while start < stop:
            step = loop.run_in_executor(
                None, _step, line, file.fileno(), start, min(_STEP_BYTES, stop - start)
            )
            try:
                sent = await asyncio.shield(step)
            except asyncio.CancelledError:
                await asyncio.wait({step})
                raise
            start += sent
            if start < stop:
                await _writable(loop, line)
    finally:
        os.close(line)


def _step(line: int, file: int, offset: int, count: int) -> int:
    """Send what the line takes at once."""
    sent = 0
    while sent < count:
        try:
            done = os.sendfile(line, file, offset + sent, count - sent)
        except BlockingIOError:
            break
        if done == 0:
            raise ConnectionResetError("the file has become shorter")
        sent += done
    return sent


async def _flushed(transport: asyncio.Transport) -> None:
    """Until the head, and whatever came before it on this line, is out."""
    async with asyncio.timeout(SEND_SECONDS):
        pause = 0.0
        while transport.get_write_buffer_size():
            await asyncio.sleep(pause)
            pause = min(0.05, pause + 0.001)
    if transport.is_closing():
        raise ConnectionResetError("the reader is gone")


async def _writable(loop: asyncio.AbstractEventLoop, line: int) -> None:
    ready = loop.create_future()
    loop.add_writer(line, _set, ready)
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await ready
    except TimeoutError:
        raise ConnectionResetError("the reader takes nothing") from None
    finally:
        loop.remove_writer(line)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
