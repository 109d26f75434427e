"""Three markets on one PostgreSQL behind HAProxy, with the configuration that is delivered."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cli_program import free_port, serving

CONFIG = Path(__file__).resolve().parents[2] / "deploy" / "haproxy" / "market.cfg"
PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
WAIT = 30.0


@dataclass(frozen=True)
class Balanced:
    url: str
    markets: list[subprocess.Popen[str]]


@contextmanager
def balanced(folder: Path, database: str, **settings: str) -> Iterator[Balanced]:
    program = shutil.which("haproxy", path=PATH)
    if program is None:
        pytest.skip("HAProxy is not installed")
    env = {f"COMPUTESWARM_{name.upper()}": value for name, value in settings.items()}
    env |= {"COMPUTESWARM_DATABASE": database, "COMPUTESWARM_TRUSTED_PROXIES": "127.0.0.1"}
    with ExitStack() as stack:
        urls, processes = [], []
        for number in range(3):
            home = folder / f"market{number}"
            hello, process = stack.enter_context(
                serving("market", "--json", "--port", free_port(), home=home, **env)
            )
            urls.append(hello["market"])
            processes.append(process)
        bind = f"127.0.0.1:{free_port()}"
        addresses = {f"MARKET{n}": url.partition("//")[2] for n, url in enumerate(urls, 1)}
        proxy = subprocess.Popen(
            [program, "-db", "-f", str(CONFIG)],
            env={**os.environ, "BIND": bind, **addresses},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            _ready(f"http://{bind}", proxy)
            yield Balanced(f"http://{bind}", processes)
        finally:
            proxy.kill()
            proxy.wait()
            assert proxy.stderr is not None
            proxy.stderr.close()


def _ready(url: str, proxy: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + WAIT
    while True:
        try:
            if httpx.get(f"{url}/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert proxy.poll() is None, proxy.stderr.read() if proxy.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_haproxy_finds_no_fault() -> None:
    program = shutil.which("haproxy", path=PATH)
    if program is None:
        pytest.skip("HAProxy is not installed")
    names = {"BIND": "127.0.0.1:18080"} | {f"MARKET{n}": f"127.0.0.1:{n}" for n in (1, 2, 3)}
    done = subprocess.run(
        [program, "-c", "-f", str(CONFIG)],
        env={**os.environ, **names},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr


def _first_of_a_stream(url: str) -> str:
    with httpx.stream("GET", f"{url}/api/v1/changes?topics=stats", timeout=WAIT) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        return next(line for line in stream.iter_lines() if line.startswith("event:"))


def test_streams_come_through_and_a_killed_market_costs_only_what_it_was_answering(
    postgres_url: str, tmp_path: Path
) -> None:
    answers: list[tuple[float, int]] = []
    over = threading.Event()

    def read(url: str) -> None:
        with httpx.Client() as client:
            while not over.is_set():
                try:
                    status = client.get(f"{url}/api/v1/nodes?limit=5").status_code
                except httpx.TransportError:
                    status = 0
                answers.append((time.monotonic(), status))

    with balanced(tmp_path, postgres_url, limits="read=off") as world:
        began = time.monotonic()
        assert _first_of_a_stream(world.url) == "event: stats"
        assert time.monotonic() - began < 10, "the proxy kept it back"
        readers = [threading.Thread(target=read, args=(world.url,)) for _ in range(4)]
        for reader in readers:
            reader.start()
        _until(lambda: len(answers) > 100)
        killed = time.monotonic()
        world.markets[1].kill()
        _until(lambda: sum(moment > killed + 3 for moment, _ in answers) > 100)
        over.set()
        for reader in readers:
            reader.join(WAIT)
    bad = [moment - killed for moment, status in answers if status != 200]
    assert len(bad) <= len(readers), bad
    assert all(0 <= moment < 3 for moment in bad), bad


def test_clients_are_told_apart_behind_it_and_cant_pass_for_others(
    postgres_url: str, tmp_path: Path
) -> None:
    with balanced(tmp_path, postgres_url, limits="read=40/10m") as world:
        statuses = []
        for number in range(150):
            lie = {"X-Forwarded-For": f"198.51.100.{number}", "Forwarded": f"for=192.0.2.{number}"}
            statuses.append(httpx.get(f"{world.url}/api/v1/nodes", headers=lie).status_code)
        assert statuses[:30] == [200] * 30
        # three instances; each lets a part pass before it hears from the others
        assert statuses.count(429) >= 20
        assert set(statuses) == {200, 429}
        told = httpx.get(f"{world.url}/api/v1/nodes")
        assert (told.status_code, told.json()["limit"]) == (429, "read per address")
        assert int(told.headers["Retry-After"]) >= 1


def _until(holds: object) -> None:
    assert callable(holds)
    deadline = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)
