"""The command line as its own process, against a real market and a seller of the test's own."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from buyer_fakes import FakeJob, FakeSeller, serving

from computeswarm.core.chains import BASE_SEPOLIA, ChainInfo
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.imports import import_late
from computeswarm.core.sessions import enrol
from computeswarm.market import open_market
from computeswarm.server.market_app import build_market_app
from computeswarm.server.serving import Server

__all__ = ["Ended", "FakeJob", "World", "on_terminal", "world"]

PASSWORD = "correct horse"


@dataclass
class Ended:
    """A command that has ended."""

    code: int
    out: bytes
    err: str


@dataclass
class World:
    """Where the commands run."""

    home: Path
    folder: Path
    market: str
    seller: FakeSeller
    key: PrivateKey
    env: dict[str, str] = field(default_factory=dict)

    async def start(self, *args: str, **streams: int) -> asyncio.subprocess.Process:
        env = {
            **os.environ,
            "COMPUTESWARM_HOME": str(self.home),
            "COMPUTESWARM_MARKET": self.market,
            "COMPUTESWARM_PASSWORD": PASSWORD,
            **self.env,
        }
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "computeswarm", *args),
            cwd=self.folder,
            env=env,
            preexec_fn=_takes_interrupts,
            **{"stdin": asyncio.subprocess.DEVNULL, "stdout": pipe, "stderr": pipe, **streams},
        )

    async def cli(self, *args: str) -> Ended:
        process = await self.start(*args)
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        assert process.returncode is not None
        assert b"Traceback" not in err
        return Ended(process.returncode, out, err.decode())

    async def interrupt(self, process: asyncio.subprocess.Process) -> None:
        process.send_signal(signal.SIGINT)


def _takes_interrupts() -> None:
    """As a terminal starts programs: what runs in the background of a script ignores SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _store_cheaply(path: Path, key: PrivateKey) -> None:
    """A keystore whose password is fast to try: each test unlocks it several times."""
    keyfile = import_late("eth_keyfile.keyfile")
    document = keyfile.create_keyfile_json(
        key.secret, PASSWORD.encode(), version=3, kdf="scrypt", iterations=2
    )
    path.parent.mkdir()
    path.write_text(json.dumps(document | {"address": key.address[2:].lower()}))


async def on_terminal(there: World, answer: bytes, *args: str) -> Ended:
    """The command with a terminal for all three streams, on which ``answer`` is typed."""
    master, slave = pty.openpty()
    process = await there.start(*args, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    seen, sent = b"", False
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(60):
        while True:
            try:
                data = await loop.run_in_executor(None, os.read, master, 65536)
            except OSError:  # Linux's way to say that the other side has gone
                break
            if not data:
                break
            seen += data
            if not sent and b"[y/N]" in seen:
                os.write(master, answer)
                sent = True
        await process.wait()
    os.close(master)
    assert process.returncode is not None
    return Ended(process.returncode, seen, "")


@asynccontextmanager
async def world(
    tmp_path: Path, *, wallet: bool = True, chain: ChainInfo = BASE_SEPOLIA
) -> AsyncIterator[World]:
    """A market that lists one fake seller, and a home with a wallet."""
    home, folder = tmp_path / "home", tmp_path / "work"
    folder.mkdir()
    (folder / "job.py").write_text("print('hello')\n")
    key = PrivateKey.generate()
    if wallet:
        _store_cheaply(home / "wallet.json", key)
    async with (
        Server(build_market_app(open_market(tmp_path / "market.db", chain=chain))) as server,
        serving(FakeSeller()) as seller,
        aiohttp.ClientSession() as session,
    ):
        market = await server.start("127.0.0.1", 0)
        enrolment, _ = enrol(seller.key, seller.node.record, market, time.time())
        body = enrolment.model_dump(mode="json")
        async with session.post(f"{market}/api/v1/nodes/register", json=body) as reply:
            assert reply.status == 201, await reply.text()
        yield World(home, folder, market, seller, key)
