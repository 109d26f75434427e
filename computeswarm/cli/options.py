"""Flags that commands share. Their help comes from the settings themselves, so it is said once."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import NoReturn

from computeswarm.core.errors import UsageError
from computeswarm.core.settings import ENV_PREFIX, Settings

EVERYWHERE = ("market", "network", "rpc", "log_level")
_METAVARS = {
    "market": "URL",
    "network": "NAME",
    "rpc": "URL",
    "port": "PORT",
    "database": "URL",
    "facilitator": "URL",
    "rpc_confirm": "URL",
    "password_file": "FILE",
    "log_level": "LEVEL",
}


class Parser(argparse.ArgumentParser):
    """argparse, with its complaints as our errors: exit code 2 belongs to jobs."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message[:1].upper()}{message[1:]}; see `{self.prog} --help`.")


def make_parser(name: str, summary: str) -> Parser:
    """The parser of one command, with the flags that every command has."""
    prog = "computeswarm" if name == "tui" else f"computeswarm {name}"
    parser = Parser(
        prog=prog,
        description=f"{summary[:1].upper()}{summary[1:]}." if summary else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    shared = parser.add_argument_group("everywhere")
    shared.add_argument("--json", action="store_true", help="print JSON and nothing else")
    shared.add_argument("--home", metavar="DIR", help="folder for all state (COMPUTESWARM_HOME)")
    add_settings(shared, *EVERYWHERE)
    shared.add_argument(
        "--real-money",
        dest="allow_real_money",
        action="store_const",
        const=True,
        help="spend and earn real money (COMPUTESWARM_ALLOW_REAL_MONEY)",
    )
    return parser


def add_settings(parser: argparse._ActionsContainer, *names: str) -> None:
    """Add ``--name-of-setting`` for each, with the setting's own help and variable."""
    known = {field.name: field for field in fields(Settings)}
    for name in names:
        field = known[name]
        kind = "N" if isinstance(field.default, int) else "TEXT"
        kind = "yes|no" if isinstance(field.default, bool) else kind
        # the value stays text: Settings converts it, as it does for variables and the file
        parser.add_argument(
            "--" + name.replace("_", "-"),
            dest=name,
            metavar=_METAVARS.get(name, kind),
            help=f"{field.metadata['help']} ({ENV_PREFIX}{name.upper()})",
        )
