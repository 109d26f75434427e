"""One real Docker engine for all tests of this machine, started by hand and ended after them.

An engine that answers at the usual socket is used as it is. Otherwise one is started, quietly and
without touching the network, and shared as ``shared_server`` says.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shared_server import keep, using

USUAL = Path("/var/run/docker.sock")
_QUIET = (
    *("--bridge=none", "--iptables=false", "--ip6tables=false"),
    *("--ip-forward=false", "--ip-masq=false"),
)


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(path: str, method: str, url: str, body: Any = None) -> tuple[int, bytes]:
    """One request to the engine, for tests that look at it from outside."""
    line = _Unix(path)
    try:
        data = None if body is None else json.dumps(body)
        line.request(method, url, data, {"Content-Type": "application/json"})
        reply = line.getresponse()
        return reply.status, reply.read()
    finally:
        line.close()


def answers(path: Path) -> bool:
    """Whether an engine answers there."""
    try:
        return ask(str(path), "GET", "/_ping")[0] == 200
    except OSError:
        return False


def _folder() -> Path:
    """One for all workers of this checkout's tests, and short: a socket's path has 107 bytes."""
    return Path(tempfile.gettempdir()) / f"computeswarm-docker-{os.getuid()}"


@contextlib.contextmanager
def engine() -> Iterator[str]:
    """The socket of an engine.

    Skips the test, with the reason, where there can't be one.
    """
    if answers(USUAL):
        yield str(USUAL)
        return
    if shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
        pytest.skip("Docker's engine is not installed (scripts/system.sh does that as root)")
    if os.geteuid() != 0:
        pytest.skip("only root can start Docker's engine")
    folder = _folder()
    path = folder / "socket"
    with using(folder, __file__, mode=0o700, answers=lambda: answers(path)):
        yield str(path)


def _keep(folder: Path) -> None:
    """Run the engine until nobody uses it any more."""
    environ = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    path = folder / "socket"
    for stale in (path, folder / "pid"):
        stale.unlink(missing_ok=True)
    with (folder / "log").open("wb") as log:
        engine = subprocess.Popen(
            [
                *("dockerd", "--data-root", str(folder / "data"), "--exec-root", str(folder / "x")),
                *("-p", str(folder / "pid"), "-H", f"unix://{path}", *_QUIET),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environ,
        )
    while not answers(path) and engine.poll() is None:
        time.sleep(0.05)

    def end() -> None:
        engine.send_signal(signal.SIGTERM)
        engine.wait()
        path.unlink(missing_ok=True)

    keep(folder, runs=lambda: engine.poll() is None, end=end)


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[str]:
    """The socket of the machine's engine, or of one for these tests."""
    with engine() as path:
        yield path


if __name__ == "__main__":
    _keep(Path(sys.argv[1]))
