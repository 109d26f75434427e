"""Starting an engine as a child that can't outlive us, however we end."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import platform
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import IO

from computeswarm.core.errors import ConfigError, PortInUse

_PR_SET_PDEATHSIG = 1
_STOP_SECONDS = 3.0
_IS_LINUX = sys.platform == "linux"
_LIBC = ctypes.CDLL(None, use_errno=True) if _IS_LINUX else None
_MACHINES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_SOURCE_TREE = Path(__file__).resolve().parents[3]


def find_anvil() -> Path | None:
    """The anvil binary: COMPUTESWARM_ANVIL, then PATH, then the source tree's npm packages.

    npm's own ``anvil`` command is a script that starts the binary; it is passed over, because the
    binary would survive the script.

    Raises:
        ConfigError: COMPUTESWARM_ANVIL names no program.
    """
    if named := os.environ.get("COMPUTESWARM_ANVIL"):
        if not _is_binary(Path(named)):
            raise ConfigError(f"COMPUTESWARM_ANVIL is {named!r}, which is no program; correct it.")
        return Path(named)
    found = shutil.which("anvil")
    if found and _is_binary(Path(found)):
        return Path(found)
    system = f"{platform.system().lower()}-{_MACHINES.get(platform.machine(), 'unknown')}"
    for root in (_SOURCE_TREE, _SOURCE_TREE / "contracts"):
        candidate = root / f"node_modules/@foundry-rs/anvil-{system}/bin/anvil"
        if _is_binary(candidate):
            return candidate
    return None


def _is_binary(path: Path) -> bool:
    if not path.is_file() or not os.access(path, os.X_OK):
        return False
    with path.open("rb") as file:
        return file.read(2) != b"#!"


def listen(host: str, port: int) -> socket.socket:
    """A listening socket on a loopback address.

    Raises:
        ConfigError: not a loopback address; a devnet's keys are public, so it stays at home.
        PortInUse: somebody else listens there.
    """
    if host not in ("127.0.0.1", "localhost", "::1"):
        raise ConfigError(f"A devnet only listens on 127.0.0.1, not on {host}.")
    family = socket.AF_INET6 if host == "::1" else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise PortInUse(
            f"Port {port} can't be used ({error.strerror}); choose another, or stop what uses it."
        ) from None
    listener.setblocking(False)
    return listener


def _die_with_parent(parent: int) -> None:
    """Runs in the child before exec: the kernel kills it when the thread that started it ends."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


class Child:
    """A running engine, and what it complained about."""

    def __init__(self, process: asyncio.subprocess.Process, complaints: IO[bytes]) -> None:
        self._process = process
        self._complaints = complaints

    @property
    def pid(self) -> int:
        """The engine's process."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.returncode

    def last_words(self) -> str:
        """The last line it wrote to standard error."""
        self._complaints.seek(0)
        lines = self._complaints.read().decode("utf-8", "replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "it gave no reason")[:300]

    async def stop(self) -> None:
        """Ask the child to end, then make it."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        self._complaints.close()


async def spawn(*command: str, pass_fds: tuple[int, ...] = ()) -> Child:
    """Start a child with a pipe as its input, in a session of its own.

    Its complaints go to a file, since a TUI may own our standard error. A Ctrl+C in the terminal
    reaches us only: jobs can still be settled on the chain while we shut down. On Linux the kernel
    ends the child with us; elsewhere the end of its input has to do.
    """
    parent = os.getpid()
    complaints = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=complaints,
        pass_fds=pass_fds,
        start_new_session=True,
        preexec_fn=lambda: _die_with_parent(parent),
    )
    return Child(process, complaints)
