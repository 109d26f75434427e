"""What a command is given: its arguments, the settings, the folders, and a way to answer."""

from __future__ import annotations

import json
import os
import signal
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TextIO

from computeswarm.core.settings import Paths, Settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Context:
    """One invocation of one command."""

    args: argparse.Namespace
    rest: list[str]
    """What stood after a bare ``--``."""
    settings: Settings
    paths: Paths
    json: bool

    @classmethod
    def make(cls, args: argparse.Namespace, rest: list[str]) -> Self:
        """Load the settings for parsed arguments.

        Raises:
            ConfigError: a setting that can't be used.
        """
        for stream in (sys.stdout, sys.stderr):
            # a terminal that can't show a character gets a "?", not an exception
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")
        environ = dict(os.environ)
        if args.home:
            environ["COMPUTESWARM_HOME"] = args.home
        paths = Paths.find(environ)
        settings = Settings.load(vars(args), environ=environ, paths=paths)
        return cls(args=args, rest=rest, settings=settings, paths=paths, json=args.json)

    def read_settings_again(self) -> Settings:
        """The settings as they stand now: the file may have changed, flags and variables stay.

        Raises:
            ConfigError: a setting that can't be used.
        """
        return Settings.load(vars(self.args), environ=os.environ, paths=self.paths)

    def text(self, line: str = "") -> None:
        """A line for a person, on stdout; silent with ``--json``. Strangers' text comes cleaned."""
        if not self.json:
            print(line)  # noqa: T201 - stdout is this layer's product

    def document(self, value: Any) -> None:
        """A JSON value on one line of stdout, flushed: the answer, or one record of a stream."""
        print(json.dumps(value, ensure_ascii=False), flush=True)  # noqa: T201

    def note(self, line: str) -> None:
        """A line about what is going on, on stderr: for a person, never part of the answer."""
        print(line, file=sys.stderr, flush=True)  # noqa: T201

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Columns for a person; silent with ``--json``. A head that starts with ``>`` aligns right.

        Cells are single lines, already cleaned. A column in which every row says ``-`` is left out:
        80 columns are few.
        """
        if self.json:
            return
        columns = [c for c in zip(head, *rows, strict=True) if set(c[1:]) != {"-"}]
        right = [column[0].startswith(">") for column in columns]
        titles = [column[0].removeprefix(">") for column in columns]
        lines = [titles, *(list(row) for row in zip(*(c[1:] for c in columns), strict=True))]
        widths = [max(cells(cell) for cell in column) for column in zip(*lines, strict=True)]
        for line in lines:
            padded = [
                _pad(cell, width, to_right)
                for cell, width, to_right in zip(line, widths, right, strict=True)
            ]
            self.text("  ".join(padded).rstrip())

    def warn_of_real_money(self) -> None:
        """One red line for a person, where the network's money is worth something."""
        chain = self.settings.chain
        if not chain.real_money or not sys.stderr.isatty():
            return
        able = "is spent and earned" if self.settings.allow_real_money else "is only looked at"
        self.note(self.red(f"REAL MONEY: the network is {chain.title}. Here USDC {able}."))

    def red(self, text: str, stream: TextIO | None = None) -> str:
        """Bold red where the stream (stderr if none is named) is a terminal that wants colours."""
        wants = (stream or sys.stderr).isatty() and not os.environ.get("NO_COLOR")
        return f"\x1b[1;31m{text}\x1b[0m" if wants else text

    @property
    def interactive(self) -> bool:
        """Whether a person can be asked something."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    def agrees(self, question: str) -> bool:
        """A yes or no on the terminal; anything but yes is no.

        Raises:
            KeyboardInterrupt: Ctrl+C, at once.
        """
        sys.stderr.write(f"{question} [y/N] ")
        sys.stderr.flush()
        # asyncio's own handler would wait for the end of this line; here Ctrl+C means no at once
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return sys.stdin.readline().strip().lower() in ("y", "yes")
        finally:
            signal.signal(signal.SIGINT, before)

    @property
    def ask_password(self) -> Callable[[str], str] | None:
        """A hidden prompt on the terminal, or None where nobody sits."""
        if not self.interactive:
            return None
        import getpass

        return getpass.getpass


def _pad(cell: str, width: int, to_right: bool) -> str:
    space = " " * (width - cells(cell))
    return space + cell if to_right else cell + space


def cells(text: str) -> int:
    """Terminal cells a text takes: two for wide characters, none for combining marks."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )
