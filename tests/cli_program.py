"""The real program in a process of its own, as a user or another program runs it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT = 60.0


@dataclass(frozen=True)
class Done:
    """How a run ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The problem on stdout of a run with --json."""
        problem: dict[str, Any] = self.json["error"]
        return problem

    def last_sentence(self) -> str:
        """The last line of stderr, where others may have told of progress; no traceback at all."""
        assert "Traceback" not in self.err, self.err
        return self.err.strip().splitlines()[-1]

    def one_sentence(self) -> str:
        """stderr, which must be exactly one line and no traceback."""
        assert "Traceback" not in self.err, self.err
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        return lines[0]


def environment(home: Path | None = None, **more: str) -> dict[str, str]:
    """The test's own environment, with another home and more variables."""
    environ = {**os.environ, **more}
    if home is not None:
        environ["COMPUTESWARM_HOME"] = str(home)
    return environ


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "computeswarm", *args]


def free_port() -> str:
    """A port that was free a moment ago, for commands in which 0 stands for their default."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def run(
    *args: str,
    home: Path | None = None,
    stdin: str = "",
    limit: float = LIMIT,
    cwd: Path | None = None,
    **env: str,
) -> Done:
    """Run a command to its end."""
    done = subprocess.run(
        command(*args),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=limit,
        cwd=cwd,
        env=environment(home, **env),
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@contextmanager
def serving(
    *args: str, home: Path | None = None, **env: str
) -> Iterator[tuple[Any, subprocess.Popen[str]]]:
    """A command that serves: its first line of JSON, and the process, ended by SIGINT."""
    process = subprocess.Popen(
        command(*args),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(home, **env),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield json.loads(line), process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(LIMIT)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            process.stderr.close()
