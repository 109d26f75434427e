"""A whole seller: agent, HTTP server and the owner's file, opened and closed together."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import resource
import secrets
import signal
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import ConfigError
from computeswarm.core.settings import Paths, Settings
from computeswarm.seller.agent import SellerAgent
from computeswarm.seller.build import build_seller
from computeswarm.seller.owner import OwnerFile, OwnerStatus
from computeswarm.seller.owner_client import OWNER_FILE
from computeswarm.server.connections import ConnectionLimits, Connections
from computeswarm.server.proxies import Clients, read_networks
from computeswarm.server.seller_app import build_seller_app
from computeswarm.server.serving import Server

DEFAULT_PORT = 8403
_FIRST_TRY_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class RunningSeller:
    """A seller that takes jobs."""

    agent: SellerAgent
    url: str

    def status(self) -> OwnerStatus:
        """What its owner sees."""
        return self.agent.status()


@asynccontextmanager
async def open_seller(
    settings: Settings,
    paths: Paths,
    key: PrivateKey,
    *,
    trusted: Sequence[str] = (),
    grace: float = 0.0,
    default_port: int = DEFAULT_PORT,
    tune: Mapping[str, Any] | None = None,
) -> AsyncIterator[RunningSeller]:
    """A seller; entered once the market lists it, or was found not to answer.

    Leaving lets running jobs finish for ``grace`` seconds and hands back the rest with a full
    refund. When the owner asks for a stop, this process gets a SIGTERM.

    Args:
        trusted: the only wallets served where there is no sandbox.
        default_port: where ``settings.port`` is 0; 0 again picks a free one.
        tune: see ``build_seller``.

    Raises:
        ConfigError, ExecutorError, PortInUse: it can't run like that, and what to do.
    """
    _dump_nothing()
    with _own_folder(paths.seller):
        parts = await build_seller(settings, paths, key, trusted=trusted, tune=tune)
        agent, token = parts.agent, secrets.token_hex(32)
        clients = Clients(read_networks(settings.trusted_proxies))
        room = ConnectionLimits().sized(
            settings.max_connections, settings.max_connections_per_address
        )
        server = Server(
            build_seller_app(agent, token), connections=Connections(room, trusts=clients.trusts)
        )
        async with parts.rpc, server:
            started = False
            try:
                url = await server.start(settings.host, settings.port or default_port)
                await agent.start(url)
                started = True
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_FIRST_TRY_SECONDS):
                        await agent.market.first_try()
                _write_owner_file(paths.seller, OwnerFile(url=url, token=token, pid=os.getpid()))
                stopper = asyncio.create_task(_obey(agent), name="owner-stop")
                try:
                    yield RunningSeller(agent, url)
                finally:
                    stopper.cancel()
            finally:
                (paths.seller / OWNER_FILE).unlink(missing_ok=True)
                await agent.stop(grace if started else 0.0)


async def _obey(agent: SellerAgent) -> None:
    await agent.stop_requested.wait()
    signal.raise_signal(signal.SIGTERM)


@contextmanager
def _own_folder(folder: Path) -> Iterator[None]:
    """Two sellers on one folder would end each other's jobs.

    Raises:
        ConfigError: another one runs there.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "seller.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"A seller runs with {folder} already; stop it, or set another COMPUTESWARM_HOME."
            ) from None
        yield


def _write_owner_file(folder: Path, content: OwnerFile) -> None:
    part = folder / f"{OWNER_FILE}.part"
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content.model_dump_json())
    part.replace(folder / OWNER_FILE)


def _dump_nothing() -> None:
    """The memory of this process holds the wallet's key and jobs' secrets; a crash writes none."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
