"""Several real markets on one database, a balancer before them, and lines that can be cut."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import aiohttp
from cli_program import command, environment, free_port
from market_fixtures import MarketClient

LIMIT = 60.0
"""Seconds for whatever should take a moment, on a machine that has others to serve."""


async def until(
    what: Callable[[], Awaitable[bool]], seconds: float = LIMIT, *, pause: float = 0.05
) -> float:
    """Wait until something is so; returns how many seconds that took.

    Args:
        pause: seconds between looks; long where each of them counts under a limit.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    while not await what():
        assert loop.time() - began < seconds, f"not so within {seconds} s"
        await asyncio.sleep(pause)
    return loop.time() - began


class Relay:
    """Hands TCP connections on to one of ``targets`` in turn, and can be made to misbehave."""

    def __init__(self, *targets: tuple[str, int]) -> None:
        self.targets = list(targets)
        self._turn = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._refusing = False
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def stall(self) -> None:
        """Keep all connections, and take and give nothing: a network that swallows packets."""
        self._flowing.clear()

    def cut(self) -> None:
        """Close all connections and take no new ones."""
        self._refusing = True
        for task in self._open:
            task.cancel()

    def heal(self) -> None:
        self._refusing = False
        self._flowing.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            if not self._refusing:
                await self._splice(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # either end went, or we cut the line
        finally:
            self._open.discard(task)
            writer.close()

    async def _splice(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await self._connect()
        try:
            await asyncio.gather(self._pump(reader, ours), self._pump(theirs, writer))
        finally:
            ours.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """To the next target that answers, as a load balancer's connection check does."""
        for _ in self.targets:
            self._turn += 1
            host, port = self.targets[self._turn % len(self.targets)]
            with suppress(OSError):
                return await asyncio.open_connection(host, port)
        raise ConnectionRefusedError

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()
        with suppress(OSError):
            writer.write_eof()


@dataclass
class Instance:
    """One ``computeswarm market`` process, and its own line to the database."""

    database: str
    home: Path
    line: Relay
    port: str = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = None
    told: bytes = b""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self, *flags: str) -> None:
        environ = {} if flags else {"COMPUTESWARM_DATABASE": self.database}
        self.process = await asyncio.create_subprocess_exec(
            *command("market", "--port", self.port, "--json", *flags),
            stdout=asyncio.subprocess.PIPE,
            stderr=(self.home / "err").open("ab"),
            env=environment(self.home, **environ),
        )
        assert self.process.stdout is not None
        self.told = await asyncio.wait_for(self.process.stdout.readline(), LIMIT)
        assert self.told, (self.home / "err").read_text()
        assert json.loads(self.told)["market"] == self.url

    async def end(self, number: int = signal.SIGKILL) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)
            await asyncio.wait_for(self.process.wait(), LIMIT)

    @property
    def log(self) -> str:
        return (self.home / "err").read_text()


@dataclass
class Cluster:
    """What a test has: a client of each instance, and one of the balancer."""

    instances: list[Instance]
    clients: list[MarketClient]
    any: MarketClient
    balancer: Relay


@asynccontextmanager
async def cluster(postgres_url: str, folder: Path, count: int = 3) -> AsyncIterator[Cluster]:
    """Markets on one PostgreSQL, each over a line of its own."""
    head, _, database = postgres_url.rpartition("/")
    host = head.rpartition("@")[2].rpartition("//")[2]
    name, _, port = host.rpartition(":")
    async with AsyncExitStack() as stack:
        instances = []
        for number in range(count):
            home = folder / f"market{number}"
            home.mkdir()
            line = await stack.enter_async_context(Relay((name, int(port))))
            own = f"{head.removesuffix(host)}127.0.0.1:{line.port}/{database}"
            instance = Instance(own, home, line)
            stack.push_async_callback(instance.end)
            instances.append(instance)
        await asyncio.gather(*(instance.start() for instance in instances))
        balancer = await stack.enter_async_context(
            Relay(*(("127.0.0.1", int(instance.port)) for instance in instances))
        )
        # a connection for each request: the balancer's turn comes with the connection
        connector = aiohttp.TCPConnector(force_close=True, limit=200)
        timeout = aiohttp.ClientTimeout(total=LIMIT)
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=connector, timeout=timeout)
        )
        yield Cluster(
            instances,
            [MarketClient(session, instance.url) for instance in instances],
            MarketClient(session, f"http://127.0.0.1:{balancer.port}"),
            balancer,
        )
