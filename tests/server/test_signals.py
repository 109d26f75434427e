from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

SCRIPT = """
import asyncio, contextlib, sys
from computeswarm.server.serving import run, run_until_signal

@contextlib.asynccontextmanager
async def service():
    if "start" in sys.argv:
        print("ready", flush=True)
        await asyncio.sleep(600)
    yield "thing"
    print("closing", flush=True)
    if "hang" in sys.argv:
        await asyncio.sleep(600)
    await asyncio.sleep(0.05)
    print("closed", flush=True)

run(run_until_signal(service(), ready=lambda s: print("ready", flush=True)))
print("left", flush=True)
"""


def start(*arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_closes_the_service_cleanly(number: signal.Signals) -> None:
    process = start()
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert out == "closing\nclosed\nleft\n"
    assert process.returncode == 0


def test_a_second_signal_ends_a_shutdown_that_hangs() -> None:
    process = start("hang")
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == "closing\n"
    time.sleep(0.5)  # as a person who has waited, unlike the doubled signal below
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert out == "left\n"


def test_a_doubled_signal_is_one() -> None:
    process = start()
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == "closing\n"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert out == "closed\nleft\n"


def test_a_signal_ends_a_start_that_hangs() -> None:
    process = start("start")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert out == "left\n"
