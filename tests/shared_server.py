"""One server of a kind for all tests of this machine, whoever comes first, until the last has gone.

The first process that needs it starts a keeper under a lock; the keeper holds the server, so that
it ends even where pytest is killed. Two locked files say who is there: ``start`` is held by whoever
begins to use it, ``users`` is shared by all who do.
"""

from __future__ import annotations

import contextlib
import fcntl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

START_SECONDS = 60.0


@contextlib.contextmanager
def using(folder: Path, keeper: str, *, mode: int, answers: Callable[[], bool]) -> Iterator[None]:
    """Have a server of ``folder`` while this lasts; skips the test where none starts.

    Args:
        keeper: the file that is run with the folder, and ends in ``keep``.
        mode: the folder's.
    """
    folder.mkdir(exist_ok=True, mode=mode)
    with (folder / "users").open("a") as users:
        with (folder / "start").open("a") as start:
            fcntl.flock(start, fcntl.LOCK_EX)
            fcntl.flock(users, fcntl.LOCK_SH)
            if not answers():
                _start(folder, keeper, answers)
        yield


def _start(folder: Path, keeper: str, answers: Callable[[], bool]) -> None:
    process = subprocess.Popen(
        [sys.executable, keeper, str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    deadline = time.monotonic() + START_SECONDS
    while not answers():
        if process.poll() is not None or time.monotonic() > deadline:
            log = folder / "log"
            told = log.read_text(errors="replace")[-600:] if log.exists() else f"see {folder}"
            pytest.skip(f"{Path(keeper).stem} does not start here: {told}")
        time.sleep(0.05)


def keep(folder: Path, *, runs: Callable[[], bool], end: Callable[[], None]) -> None:
    """End a server that runs as soon as nobody uses it any more."""
    with (folder / "users").open("a") as users, (folder / "start").open("a") as start:
        while runs():
            time.sleep(1)
            # nobody can begin to use it while we have both locks
            try:
                fcntl.flock(start, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                fcntl.flock(start, fcntl.LOCK_UN)
                continue
            end()
