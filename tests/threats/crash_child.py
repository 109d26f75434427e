"""A seller in a process of its own that kills itself, as by ``kill -9``, at a named point.

The point is a call of one of the product's own functions, which is wrapped here in the child; the
product knows nothing of it. The children come from a fork server that has the imports already.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any, Literal

from computeswarm.core.settings import Settings

_MODULES = ["computeswarm.server.seller_build", "crash_child"]


@dataclass(frozen=True)
class Point:
    """Where to die: before or after the ``nth`` call of ``target`` (``module:Class.name``).

    ``given`` (a part of the arguments' repr) picks the calls that count.
    """

    target: str
    when: Literal["before", "after"]
    nth: int = 1
    given: str = ""


@dataclass(frozen=True)
class Child:
    """A running seller; ``url`` is empty where he died as he started."""

    url: str
    process: ForkServerProcess

    async def died(self, seconds: float = 30.0) -> bool:
        """Wait for its end; False when it lives on."""
        await asyncio.to_thread(self.process.join, seconds)
        return self.process.exitcode is not None


@asynccontextmanager
async def dying_seller(
    settings: Settings, home: Path, key: str, trusted: list[str], point: Point | None
) -> AsyncIterator[Child]:
    """The seller, until the block is left."""
    context = multiprocessing.get_context("forkserver")
    assert isinstance(context, ForkServerContext)
    context.set_forkserver_preload(_MODULES)
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_serve, args=(theirs, settings, str(home), key, trusted, point), daemon=True
    )
    process.start()
    theirs.close()
    try:
        said = await asyncio.to_thread(_first_word, ours)
        yield Child(said, process)
    finally:
        ours.close()
        process.kill()
        await asyncio.to_thread(process.join)


def _first_word(connection: Connection) -> str:
    """The seller's address; empty where he died before he had one."""
    assert connection.poll(60), "the seller did not start"
    try:
        return str(connection.recv())
    except EOFError:
        return ""


def _serve(
    connection: Connection,
    settings: Settings,
    home: str,
    key: str,
    trusted: list[str],
    point: Point | None,
) -> None:
    from computeswarm.core.crypto import PrivateKey
    from computeswarm.core.settings import Paths
    from computeswarm.server.seller_build import RunningSeller, open_seller
    from computeswarm.server.serving import run, run_until_signal

    if point is not None:
        _arm(point)
    opening = open_seller(
        settings,
        Paths.find({"COMPUTESWARM_HOME": home}),
        PrivateKey.from_hex(key),
        trusted=trusted,
        default_port=0,
    )

    def ready(seller: RunningSeller) -> None:
        connection.send(seller.url)

    run(run_until_signal(opening, ready=ready))


def _arm(point: Point) -> None:
    module, _, path = point.target.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    setattr(owner, name, _deadly(inspect.getattr_static(owner, name), point))


def _deadly(real: Callable[..., Any], point: Point) -> Callable[..., Any]:
    seen = 0

    def due(args: tuple[Any, ...], options: dict[str, Any]) -> bool:
        nonlocal seen
        if point.given and point.given not in repr((args[1:], options)):
            return False
        seen += 1
        return seen == point.nth

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if inspect.iscoroutinefunction(real):

        @functools.wraps(real)
        async def slow(*args: Any, **options: Any) -> Any:
            mine = due(args, options)
            if mine and point.when == "before":
                die()
            result = await real(*args, **options)
            if mine:
                die()
            return result

        return slow

    @functools.wraps(real)
    def quick(*args: Any, **options: Any) -> Any:
        mine = due(args, options)
        if mine and point.when == "before":
            die()
        result = real(*args, **options)
        if mine:
            die()
        return result

    return quick
