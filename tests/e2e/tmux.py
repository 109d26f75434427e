"""A program in a real tmux, driven by keys alone and read as a person sees it."""

from __future__ import annotations

import shlex
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

LIMIT = 120.0


@dataclass(frozen=True)
class Tmux:
    """One window of a tmux server of its own."""

    socket: str

    def _run(self, *words: str) -> str:
        done = subprocess.run(
            ["tmux", "-L", self.socket, *words], capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def keys(self, *names: str) -> None:
        """Press keys by tmux's names: ``n``, ``Enter``, ``Escape``, ``Tab``."""
        for name in names:
            self._run("send-keys", "-t", "0", name)

    def text(self, words: str) -> None:
        """Type words."""
        self._run("send-keys", "-t", "0", "-l", words)

    @property
    def screen(self) -> str:
        """What stands on the screen."""
        return self._run("capture-pane", "-p", "-t", "0")

    def ask(self, format_: str) -> str:
        """One of tmux's own variables."""
        return self._run("display-message", "-p", "-t", "0", format_).strip()

    def until(self, *texts: str, gone: str = "", limit: float = LIMIT) -> str:
        """Wait until the screen shows all of ``texts`` and no ``gone``; the screen."""
        end = time.monotonic() + limit
        while True:
            shown = self.screen
            if all(text in shown for text in texts) and not (gone and gone in shown):
                return shown
            assert time.monotonic() < end, f"never came: {texts}, without {gone!r}\n{shown}"
            time.sleep(0.1)

    def resize(self, columns: int, rows: int) -> None:
        """Another size of the terminal."""
        self._run("resize-window", "-t", "0", "-x", str(columns), "-y", str(rows))


@contextmanager
def tmux(
    command: list[str], *, cwd: Path, env: Mapping[str, str], columns: int = 120, rows: int = 40
) -> Iterator[Tmux]:
    """Run a command in a shell, in a terminal of that size; all of it ends with the block.

    The shell says ``left N`` (the exit code) once the command is over.
    """
    name = f"walk-{uuid.uuid4().hex[:8]}"
    line = f"{shlex.join(command)}; echo left $?; stty -a | grep -o -- '-*icanon'; read -r _"
    words = ["tmux", "-L", name, "-f", "/dev/null", "new-session", "-d"]
    words += ["-x", str(columns), "-y", str(rows), "bash", "--norc", "-c", line]
    subprocess.run(words, check=True, cwd=cwd, env=dict(env), timeout=30)
    terminal = Tmux(name)
    try:
        yield terminal
    finally:
        subprocess.run(["tmux", "-L", name, "kill-server"], capture_output=True, timeout=30)
