"""``demo --headless``: what it says, who else can use it, and that it leaves nothing behind."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cli_program import environment, run, serving

WAIT = 60.0


def _eventually(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def _is_open(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def throwaway(tmp_path: Path) -> dict[str, str]:
    """The environment of a demo whose throwaway folders are ours to look at."""
    return {"TMPDIR": str(tmp_path), "COMPUTESWARM_HOME": ""}


def _homes(tmp_path: Path) -> list[Path]:
    return list(tmp_path.glob("computeswarm-demo-*"))


def test_it_says_where_everything_is_and_ends_with_a_signal(
    tmp_path: Path, throwaway: dict[str, str]
) -> None:
    with serving("demo", "--headless", **throwaway) as (ready, process):
        assert ready["chain_id"] == 84532
        (home,) = _homes(tmp_path)
        assert ready["home"] == str(home)
        other = run("nodes", "--json", home=home)
        assert other.code == 0, other.err
        (node,) = other.json["nodes"]
        assert node["record"]["wallet"] == ready["seller_wallet"]
        assert node["record"]["endpoint"] == ready["seller"]
        balance = run("wallet", "balance", "--json", home=home).json
        assert balance["address"] == ready["buyer"]
        assert balance["usdc_atoms"] == 10_000 * 10**6
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT) == 0
    assert not _homes(tmp_path)
    assert not any(_is_open(ready[name]) for name in ("rpc", "market", "seller"))


def test_killed_it_takes_the_chain_along_and_the_next_one_clears_up(
    tmp_path: Path, throwaway: dict[str, str]
) -> None:
    with serving("demo", "--headless", **throwaway) as (first, process):
        process.kill()
        process.wait(WAIT)
        _eventually(lambda: not _is_open(first["rpc"]), "the chain outlived its demo")
    assert len(_homes(tmp_path)) == 1
    with serving("demo", "--headless", **throwaway) as (second, _):
        assert [str(home) for home in _homes(tmp_path)] == [second["home"]]


_APP = """
import asyncio, json, time
from computeswarm.cli.demo.child import HeadlessChild
child = HeadlessChild("demo")
print(json.dumps(asyncio.run(child.ready())), flush=True)
time.sleep(600)
"""


def test_killing_the_app_ends_the_demo_behind_it(tmp_path: Path, throwaway: dict[str, str]) -> None:
    argv = [sys.executable, "-c", _APP]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment(**throwaway)) as app:
        assert app.stdout is not None
        ready = json.loads(app.stdout.readline())
        assert _is_open(ready["market"])
        app.kill()
    _eventually(lambda: not _is_open(ready["market"]), "the demo outlived its app")
    _eventually(lambda: not _homes(tmp_path), "the demo left its folder behind")
    _eventually(lambda: not _is_open(ready["rpc"]), "the chain outlived the demo")


def test_two_demos_share_no_home(tmp_path: Path) -> None:
    with serving("demo", "--headless", home=tmp_path) as (ready, _):
        assert ready["home"] == str(tmp_path)
        second = run("demo", "--headless", home=tmp_path)
        assert second.code == 125
        assert "already" in second.one_sentence()
    # what was asked for stays, and another demo goes on with the same wallet
    with serving("demo", "--headless", home=tmp_path) as (again, _):
        assert again["buyer"] == ready["buyer"]


def test_a_real_home_is_left_alone(tmp_path: Path) -> None:
    run("wallet", "new", home=tmp_path, COMPUTESWARM_PASSWORD="pw")
    done = run("demo", "--headless", home=tmp_path)
    assert done.code == 125
    assert "own wallet" in done.one_sentence()
