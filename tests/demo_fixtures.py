"""A whole demo (chain, market, seller, buyer) as one real process."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from cli_program import Done, command, environment, run, serving

REPOSITORY = Path(__file__).resolve().parents[1]
_CACHE = REPOSITORY / ".cache" / f"images-{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class Demo:
    """A running demo and its home."""

    ready: dict[str, Any]
    home: Path
    pid: int

    def cli(self, *args: str, limit: float = 120.0, **env: str) -> Done:
        """A command as the demo's buyer types it, in the source tree."""
        return run(*args, home=self.home, limit=limit, cwd=REPOSITORY, **env)

    def buy(self, *args: str, limit: float = 120.0) -> tuple[Done, dict[str, Any]]:
        """``run --json --yes`` that succeeds, and its receipt."""
        done = self.cli("run", "--json", "--yes", *args, limit=limit)
        assert done.code == 0, done.out[-2000:] + done.err[-2000:]
        receipt = json.loads(done.out.splitlines()[-1])
        assert receipt["type"] == "receipt"
        return done, receipt

    def market(self, path: str) -> Any:
        """The market's answer to a GET."""
        with urlopen(self.ready["market"] + path, timeout=30) as reply:
            return json.load(reply)


@contextmanager
def running_demo(home: Path, *flags: str, **env: str) -> Iterator[Demo]:
    """A demo on a home that is kept."""
    with serving("demo", "--headless", *flags, home=home, **env) as (ready, process):
        yield Demo(ready, home, process.pid)


@pytest.fixture(scope="session")
def python_ml() -> Path:
    """A folder of images with ``python-ml`` built; kept between runs, since torch is big."""
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (_CACHE / "seller/images/python-ml/image.json").exists():
            built = subprocess.run(
                command("images", "build", "python-ml"),
                capture_output=True,
                text=True,
                env=environment(_CACHE),
                check=False,
            )
            if built.returncode:
                pytest.skip(f"torch can't be installed here: {built.stderr.strip()[-300:]}")
    return _CACHE / "seller/images"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo for the tests of one module."""
    with running_demo(tmp_path_factory.mktemp("demo")) as running:
        yield running
