"""One real PostgreSQL for all tests of this machine, a fresh database for each test.

It listens on 127.0.0.1 only, and is shared as ``shared_server`` says. Tests that stop, kill or
restart a server have one of their own (``lone_postgres``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from shared_server import keep, using

START_SECONDS = 60.0
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "jit": "off",
    "log_min_messages": "fatal",
}


def programs() -> Path:
    """The folder of ``initdb`` and ``postgres``.

    Skips the test, with the reason, where there is none.
    """
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name))
    for place in reversed(places):
        if (place / "initdb").exists() and (place / "postgres").exists():
            return place
    found = shutil.which("initdb")
    if found is None:
        pytest.skip("PostgreSQL is not installed (scripts/system.sh does that as root)")
    return Path(os.path.realpath(found)).parent


def _unprivileged() -> tuple[str, ...]:
    """What makes a program run as somebody PostgreSQL agrees to, and end with its parent."""
    ends = ("setpriv", "--pdeathsig", "INT")
    if os.geteuid() != 0:
        return ends
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            ids = ("--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups")
            return (*ends, *ids)
    pytest.skip("PostgreSQL refuses root, and there is no user 'postgres' or 'nobody'")


class Postgres:
    """A server in a folder of its own. ``port`` and ``password`` stay over restarts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.user = "market"
        self.password = "a%b/c:" + secrets.token_hex(4)  # what a URL has to spell otherwise
        self.port = _free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres") -> str:
        """How to reach a database of it."""
        password = self.password.replace("%", "%25").replace("/", "%2F").replace(":", "%3A")
        return f"postgresql://{self.user}:{password}@127.0.0.1:{self.port}/{database}"

    def make(self) -> None:
        """Lay its files out."""
        who = _unprivileged()
        self.data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            uid, gid = int(who[4]), int(who[6])
            os.chown(self.data, uid, gid)
        secret = self.folder / "password"
        secret.write_text(self.password)
        secret.chmod(0o644)
        options = ("--no-sync", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C")
        command = (
            *(*who, str(programs() / "initdb"), "-D", str(self.data), "-U", self.user),
            *(f"--pwfile={secret}", *options),
        )
        made = subprocess.run(command, capture_output=True, cwd="/", check=False)
        if made.returncode:
            pytest.skip(f"PostgreSQL can't lay out its files here: {made.stderr[-600:]!r}")

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(*_unprivileged(), str(programs() / "postgres"), "-D", str(self.data)),
                    *(f"--port={self.port}", *settings),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                log_end = (self.folder / "log").read_text(errors="replace")[-600:]
                pytest.skip(f"PostgreSQL does not start here: {log_end}")
            time.sleep(0.05)

    def answers(self) -> bool:
        """Whether it lets us in."""
        with ThreadPoolExecutor(1) as thread:  # the caller may run on a loop
            return thread.submit(asyncio.run, _answers(self.url())).result()

    def stop(self) -> None:
        """Stop all its processes where they are (SIGSTOP)."""
        self._signal(signal.SIGSTOP)

    def cont(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process is not None:
            self._signal(signal.SIGKILL)
            self.process.wait()
            deadline = time.monotonic() + START_SECONDS
            while self._processes() and time.monotonic() < deadline:
                time.sleep(0.01)
            (self.data / "postmaster.pid").unlink(missing_ok=True)
            self.process = None

    def end(self, how: signal.Signals = signal.SIGINT) -> None:
        """Shut it down: SIGINT throws its clients out first."""
        if self.process is not None:
            self.cont()
            self.process.send_signal(how)
            self.process.wait()
            self.process = None

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _processes(self) -> list[int]:
        """The server and its children, the server first so that it starts no more of them."""
        assert self.process is not None
        parent = self.process.pid
        children = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(stat[1]) == parent and stat[0] != "Z":
                    children.append(int(entry.name))
        return [*([parent] if self.process.poll() is None else []), *children]


async def _answers(url: str) -> bool:
    import asyncpg

    try:
        made = await asyncpg.connect(url, timeout=5)
    except (OSError, asyncpg.PostgresError, TimeoutError):
        return False
    await made.close()
    return True


async def ask(url: str, *statements: str) -> None:
    """Run statements, for tests that change a database from outside."""
    import asyncpg

    made = await asyncpg.connect(url, timeout=30)
    try:
        for statement in statements:
            await made.execute(statement)
    finally:
        await made.close()


def _free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


@contextlib.contextmanager
def _shared() -> Iterator[str]:
    programs()
    folder = Path(tempfile.gettempdir()) / f"computeswarm-postgres-{os.getuid()}"
    url = folder / "url"

    def answers() -> bool:
        return url.exists() and asyncio.run(_answers(url.read_text()))

    with using(folder, __file__, mode=0o711, answers=answers):
        yield url.read_text()


def _keep(folder: Path) -> None:
    """Run a server until nobody uses it any more."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        Path(place).chmod(0o711)
        server = Postgres(Path(place))
        server.make()
        server.start()
        url = folder / "url.new"
        url.touch(mode=0o600)
        url.write_text(server.url())
        url.rename(folder / "url")

        def runs() -> bool:
            return server.process is not None and server.process.poll() is None

        def end() -> None:
            (folder / "url").unlink(missing_ok=True)
            server.end()

        keep(folder, runs=runs, end=end)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of the machine's server, for whoever makes databases himself."""
    with _shared() as url:
        yield url


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL of a fresh, empty database; several stores may share it."""
    name = f"market_{secrets.token_hex(6)}"
    asyncio.run(ask(postgres_server, f"CREATE DATABASE {name}"))
    yield postgres_server.rpartition("/")[0] + f"/{name}"
    asyncio.run(ask(postgres_server, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def lone_postgres() -> Iterator[Postgres]:
    """A server of the test's own, to stop, kill and start again."""
    programs()
    with tempfile.TemporaryDirectory(prefix="computeswarm-postgres-") as place:
        Path(place).chmod(0o711)
        server = Postgres(Path(place))
        server.make()
        server.start()
        yield server
        server.end()


if __name__ == "__main__":
    _keep(Path(sys.argv[1]))
