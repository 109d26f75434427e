"""Bare ``computeswarm``: the terminal app."""

from __future__ import annotations

import argparse

from computeswarm.cli.context import Context
from computeswarm.cli.options import add_settings


def configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = "computeswarm [OPTIONS]"
    parser.description = "The terminal app. `computeswarm --help` lists the commands."
    parser.add_argument(
        "--mode", choices=("buyer", "seller"), default="buyer", help="the side shown first"
    )
    parser.add_argument(
        "--no-mouse",
        dest="mouse",
        action="store_const",
        const="no",
        help="leave the mouse to the terminal, for selecting text",
    )
    add_settings(parser, "password_file", "theme")


def run(context: Context) -> int:
    # the app's first frame comes before anything of a buyer or a chain is imported
    from computeswarm.tui.run import run_tui

    return run_tui(context.settings, context.paths, mode=context.args.mode)
