"""What a service manager hears of a service, and what SIGHUP does."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPT = """
import asyncio, contextlib, sys
from computeswarm.server.serving import run, run_until_signal

@contextlib.asynccontextmanager
async def service():
    yield "thing"

async def reload(entered):
    print("read", entered, flush=True)
    if "fail" in sys.argv:
        raise RuntimeError("a mistake of ours")

again = None if "plain" in sys.argv else reload
run(run_until_signal(service(), ready=lambda s: print("ready", flush=True), reload=again))
print("left", flush=True)
"""
WAIT = 60.0


class Manager:
    """The end of the notification socket that systemd holds."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(WAIT)

    def hears(self) -> str:
        return self._socket.recv(4096).decode()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    name = str(tmp_path / "n") if request.param == "path" else f"@computeswarm-{os.getpid()}"
    made = Manager(name)
    yield made
    made.close()


def start(*arguments: str, **environ: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_the_manager_hears_of_start_reload_and_end(manager: Manager) -> None:
    process = start(NOTIFY_SOCKET=manager.address)
    assert manager.hears() == "READY=1"
    process.send_signal(signal.SIGHUP)
    reloading, clock = manager.hears().splitlines()
    assert reloading == "RELOADING=1"
    assert clock.removeprefix("MONOTONIC_USEC=").isdecimal()
    assert manager.hears() == "READY=1"
    process.send_signal(signal.SIGTERM)
    assert manager.hears() == "STOPPING=1"
    out, _ = process.communicate(timeout=WAIT)
    assert out == "read thing\nleft\n"
    assert process.returncode == 0


def test_the_watchdog_is_fed_while_the_loop_lives(manager: Manager) -> None:
    process = start(NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="20000")
    heard = [manager.hears() for _ in range(4)]
    assert heard.count("READY=1") == 1
    assert heard.count("WATCHDOG=1") == 3
    process.kill()
    process.communicate(timeout=WAIT)


def test_anothers_watchdog_is_not_ours_to_feed(tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "n"))
    process = start(NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="1000", WATCHDOG_PID="1")
    process.send_signal(signal.SIGTERM)
    assert [manager.hears(), manager.hears()] == ["READY=1", "STOPPING=1"]
    process.communicate(timeout=WAIT)
    manager.close()


def test_a_manager_that_is_gone_harms_nothing(tmp_path: Path) -> None:
    process = start(NOTIFY_SOCKET=str(tmp_path / "nobody"))
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=WAIT)
    assert (out, err, process.returncode) == ("left\n", "", 0)


def test_a_reload_that_fails_ends_nothing() -> None:
    process = start("fail")
    assert process.stdout is not None
    for _ in range(2):
        process.send_signal(signal.SIGHUP)
        assert process.stdout.readline() == "read thing\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=WAIT)
    assert (out, process.returncode) == ("left\n", 0)
    assert "a mistake of ours" in err


def test_a_service_without_settings_to_read_again_ends_by_sighup() -> None:
    process = start("plain")
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate(timeout=WAIT)
    assert (out, process.returncode) == ("left\n", 0)
