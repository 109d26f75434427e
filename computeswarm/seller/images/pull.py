"""Pulling an image by its digest, said in lines that a buyer can wait by."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import IO, Any

from computeswarm.core.text import clean_line
from computeswarm.seller.executors.docker.engine import Engine, saying
from computeswarm.seller.images.image import ImageError
from computeswarm.seller.images.sharing import Tell

TELL_SECONDS = 1.0
STALL_SECONDS = 300.0
"""Without a word from the engine, which verifies a large layer in silence."""
_MIB = 2**20
_FULL = "no space left on device"


async def pull(engine: Engine, reference: str, tell: Tell, *, stall: float = STALL_SECONDS) -> None:
    """Have the engine fetch an image. Cancelling ends that; what came of it is used next time.

    Args:
        reference: ``repository@sha256:…``.
        tell: told how far it is, at most once in ``TELL_SECONDS``.
        stall: seconds of silence after which it is given up.

    Raises:
        ImageError: it can't be had, and why.
        ExecutorError: the engine refuses, or doesn't answer.
    """
    layers = Layers()
    last = time.monotonic()
    tell(f"Pulling the image {clean_line(reference, limit=120)}.")
    loop = asyncio.get_running_loop()
    try:
        async with (
            asyncio.timeout(stall) as patience,
            saying("The image can't be pulled"),
            aclosing(creating(engine, {"fromImage": reference})) as steps,
        ):
            async for step in steps:
                patience.reschedule(loop.time() + stall)
                layers.count(step)
                if layers.known and time.monotonic() - last >= TELL_SECONDS:
                    last = time.monotonic()
                    tell(layers.text())
    except TimeoutError as error:
        raise ImageError(f"The image can't be pulled: nothing came for {stall:g} s.") from error


async def creating(
    engine: Engine, query: Mapping[str, str], data: IO[bytes] | None = None
) -> AsyncGenerator[dict[str, Any], None]:
    """What the engine says while it makes an image. To be closed, which ends the making: the
    client's own methods leave the connection open where they are cancelled.

    Raises:
        ImageError: the engine says that it can't.
    """
    headers = {"Content-Type": "application/x-tar"} if data is not None else {}
    making = engine.client._query("images/create", "POST", params=query, data=data, headers=headers)
    async with making as reply:
        try:
            async for line in reply.content:
                step = json.loads(line)
                if "error" in step:
                    raise ImageError(reason(str(step["error"])))
                yield step
        finally:
            reply.close()


def reason(said: str) -> str:
    """What the engine said, as one sentence."""
    if _FULL in said:
        return "The seller's disk is full: there is no room for the image."
    return f"The image can't be had: {clean_line(said, limit=300).rstrip('.')}."


class Layers:
    """How much of each layer has come."""

    def __init__(self) -> None:
        self._done: dict[str, int] = {}
        self._size: dict[str, int | None] = {}
        self._unpacking = False

    @property
    def known(self) -> bool:
        """Whether there is anything to say."""
        return any(self._size.values())

    def count(self, step: Mapping[str, Any]) -> None:
        """Take note of a line of the engine's."""
        name, status = str(step.get("id", ""))[:64], step.get("status")
        detail = step.get("progressDetail") or {}
        if status in ("Pulling fs layer", "Waiting"):
            self._size.setdefault(name, None)
        elif status == "Downloading" and detail.get("total"):
            self._done[name] = int(detail.get("current", 0))
            self._size[name] = int(detail["total"])
        elif status in ("Verifying Checksum", "Download complete", "Pull complete"):
            self._size[name] = self._done[name] = self._size.get(name) or 0
        elif status == "Extracting":
            self._unpacking = True

    def text(self) -> str:
        """One line: megabytes of all layers."""
        done, size = sum(self._done.values()), sum(each or 0 for each in self._size.values())
        more = "at least " if None in self._size.values() else ""
        if self._unpacking and done >= size and not more:
            return f"Unpacking the image of {size / _MIB:.1f} MiB."
        return f"Pulling the image: {done / _MIB:.1f} of {more}{size / _MIB:.1f} MiB."
