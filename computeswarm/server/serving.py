"""Running an app: a listening socket with sane timeouts, and a clean end on a signal."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Self, TypeVar

from aiohttp import web

from computeswarm.core.errors import ConfigError, PortInUse
from computeswarm.server.connections import (
    MAX_FIELD,
    MAX_FIELDS,
    MAX_LINE,
    Connections,
    ConnectionServer,
)
from computeswarm.server.hot import HOT
from computeswarm.server.notify import ServiceManager

LINGER_SECONDS = 2.0
"""How long the rest of a refused body is read, so that the client sees the answer."""
SHUTDOWN_SECONDS = 5.0
BACKLOG = 1024
OWN_FILES = 512
"""Open files beside connections."""
CONNECTIONS = web.AppKey("connections", Connections)
"""Where an application finds the connections of the server it runs in, for its figures."""

ResultT = TypeVar("ResultT")

_log = logging.getLogger(__name__)
_SAME_SIGNAL_SECONDS = 0.3


class Server:
    """An app on a listening socket: ``async with Server(app) as s: url = await s.start(…)``.

    Args:
        connections: what its connections may take.
    """

    def __init__(self, app: web.Application, *, connections: Connections | None = None) -> None:
        self.connections = app[CONNECTIONS] = connections or Connections()
        self._runner = _Runner(app, self.connections)
        self._socket: socket.socket | None = None

    async def start(self, host: str, port: int) -> str:
        """Listen and return the address, such as ``http://127.0.0.1:8402``; port 0 picks one.

        Raises:
            PortInUse: another program has the port.
            ConfigError: no such host here, or a port only root may take.
        """
        self._socket = _bind(host, port)
        self.connections.fit(make_room(self.connections.limits.total))
        await self._runner.setup()
        self.connections.start()
        await web.SockSite(self._runner, self._socket, backlog=BACKLOG).start()
        return self.url

    @property
    def url(self) -> str:
        """The address to reach the server under; loopback when bound to every interface."""
        if self._socket is None:
            raise RuntimeError("the server is not started")
        host, port = self._socket.getsockname()[:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def close(self) -> None:
        """Stop listening, let running requests end (5 s), run the app's clean-up."""
        await self._runner.cleanup()
        self.connections.stop()
        if self._socket is not None:
            self._socket.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _Runner(web.AppRunner):
    """aiohttp's, with connections of ours."""

    __slots__ = ("_connections", "_options")

    def __init__(self, app: web.Application, connections: Connections) -> None:
        super().__init__(app, handle_signals=False, shutdown_timeout=SHUTDOWN_SECONDS)
        self._connections = connections
        self._options = {
            "access_log": None,
            "keepalive_timeout": connections.limits.idle_seconds,
            "lingering_time": LINGER_SECONDS,
            "auto_decompress": False,  # see ``web.stream_body``
            "max_line_size": MAX_LINE,
            "max_field_size": MAX_FIELD,
            "max_headers": MAX_FIELDS,
        }

    async def _make_server(self) -> ConnectionServer:
        made = await super()._make_server()
        if (hot := self.app.get(HOT)) is not None:
            made.request_handler = hot.before(made.request_handler)  # type: ignore[assignment]
        return ConnectionServer(made, self._connections, **self._options)


def make_room(connections: int) -> int:
    """Let this process have that many connections beside its files; returns how many it may."""
    if sys.platform == "win32":
        return connections
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OWN_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(1, min(connections, wanted - OWN_FILES))


def _bind(host: str, port: int) -> socket.socket:
    if not 0 <= port < 2**16:
        raise ConfigError(f"Port {port} does not exist; choose one from 1024 to 65535.")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise ConfigError(f"{host!r} is no address of this machine; choose another host.") from None
    family, kind, proto, _, address = found[0]
    made = socket.socket(family, kind, proto)
    try:
        if os.name == "posix":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise _bind_error(host, port, error) from None
    made.setblocking(False)
    return made


def _bind_error(host: str, port: int, error: OSError) -> ConfigError | PortInUse:
    number = error.errno
    if number == errno.EADDRINUSE:
        return PortInUse(
            f"Port {port} on {host} is taken by another program; choose another with --port.",
            port=port,
        )
    if number == errno.EACCES:
        return ConfigError(f"Port {port} needs more rights; choose one from 1024 on with --port.")
    if number == errno.EADDRNOTAVAIL:
        return ConfigError(f"{host} is no address of this machine; choose another host.")
    return ConfigError(f"Port {port} on {host} can't be used: {error}.")


def run(main: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Run a server's main coroutine, on uvloop where it is installed."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)


async def run_until_signal(
    service: AbstractAsyncContextManager[ResultT],
    *,
    ready: Callable[[ResultT], None] = lambda _: None,
    reload: Callable[[ResultT], Awaitable[None]] | None = None,
) -> None:
    """Enter ``service``, call ``ready`` with it, and leave it on SIGINT, SIGTERM or SIGHUP.

    A signal during the start stops the start. A second one cuts the leaving short, so a shutdown
    that hangs never needs ``kill -9``. Two at once are one: ``timeout``, ``make`` and terminals
    signal the process and its group alike.

    Args:
        reload: called for a SIGHUP, which then ends nothing.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    manager = ServiceManager()
    stop, again = asyncio.Event(), asyncio.Event()
    first_at: float | None = None
    serving = False

    def on_signal() -> None:
        nonlocal first_at
        if first_at is None:
            first_at = loop.time()
            stop.set()
            if not serving:
                task.cancel()
        elif loop.time() - first_at >= _SAME_SIGNAL_SECONDS:
            task.cancel()

    async def reloads(entered: ResultT) -> None:
        assert reload is not None
        while True:
            await again.wait()
            again.clear()  # before the reading, so that a signal during it has it read once more
            manager.reloading()
            try:
                await reload(entered)
            except Exception:
                _log.exception("reload")  # the service goes on as it was
            manager.ready()

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in signals:
        loop.add_signal_handler(number, on_signal)
    if reload is not None:
        loop.add_signal_handler(signal.SIGHUP, again.set)
    reloading: asyncio.Task[None] | None = None
    try:
        async with manager.watched(), service as entered:
            serving = True
            ready(entered)
            manager.ready()
            if reload is not None:
                reloading = asyncio.create_task(reloads(entered), name="reloads")
            await stop.wait()
            manager.stopping()
            if reloading is not None:
                reloading.cancel()
                await asyncio.gather(reloading, return_exceptions=True)
    except asyncio.CancelledError:
        if first_at is None:
            raise  # cancelled by somebody else
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
