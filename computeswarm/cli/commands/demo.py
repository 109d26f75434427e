"""``computeswarm demo``: everything on this machine, then the terminal app."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from computeswarm.cli.context import Context
from computeswarm.cli.options import add_settings
from computeswarm.core.errors import ExitCode

if TYPE_CHECKING:
    from computeswarm.tui.backend import Backends
    from computeswarm.tui.draft import ExampleJob

_EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "A chain with test money, a market, a seller on this machine, a buyer with 10,000 USDC.\n"
        "All of it ends with the demo. State goes to a throwaway folder, or to COMPUTESWARM_HOME."
    )
    parser.add_argument(
        "--headless",
        action="store_true",
        help="no terminal app: print one line of JSON when ready, and serve until Ctrl+C",
    )
    parser.add_argument(
        "--mode", choices=("buyer", "seller"), default="buyer", help="the side shown first"
    )
    parser.add_argument(
        "--engine", choices=("auto", "py-evm", "anvil"), default="auto", help="what runs the chain"
    )
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)
    add_settings(parser, "executor", "price", "slice_seconds", "theme")


def run(context: Context) -> int:
    home = context.args.home or os.environ.get("COMPUTESWARM_HOME", "")
    return _headless(context, home) if context.args.headless else _with_app(context, home)


def _with_app(context: Context, home: str) -> int:
    from computeswarm.cli.demo.child import HeadlessChild
    from computeswarm.tui.memory import FILE, Memory
    from computeswarm.tui.run import run_tui

    args = context.args
    flags = ["--engine", args.engine]
    flags += ["--home", home] if home else []
    for name in ("executor", "price", "slice_seconds"):
        if (given := getattr(args, name)) is not None:
            flags += ["--" + name.replace("_", "-"), given]
    with HeadlessChild("demo", *flags) as child:

        async def connect() -> Backends:
            ready = await child.ready()
            from computeswarm.core.settings import Paths, Settings
            from computeswarm.tui.backends.connect import live_connect

            environ = {"COMPUTESWARM_HOME": ready["home"]}
            paths = Paths.find(environ)
            return await live_connect(Settings.load(environ=environ, paths=paths), paths)()

        # a throwaway home is made anew each time: nothing of it is remembered
        memory = Memory(Path(home).expanduser() / FILE if home else None)
        return run_tui(
            context.settings,
            context.paths,
            mode=args.mode,
            connect=connect,
            example=_example(),
            memory=memory,
        )


def _example() -> ExampleJob | None:
    """The example job, where the source tree is at hand."""
    from computeswarm.tui.draft import ExampleJob

    script = _EXAMPLES / "monte_carlo.py"
    # long enough to watch: some seconds
    return ExampleJob(script, args=("60000000",)) if script.exists() else None


def _headless(context: Context, home: str) -> int:
    from computeswarm.cli.demo.child import ending_with
    from computeswarm.cli.demo.home import demo_home
    from computeswarm.cli.demo.stack import demo_stack, ready_line
    from computeswarm.server.serving import run, run_until_signal

    def announce(ready: dict[str, Any]) -> None:
        context.document(ready)
        context.note(
            "Ready. In another terminal:\n"
            f"  export COMPUTESWARM_HOME={ready['home']}\n"
            "  computeswarm nodes\n"
            "  computeswarm run examples/monte_carlo.py\n"
            "Ctrl+C ends everything."
        )

    async def serve() -> None:
        with demo_home(home) as place:
            async with ending_with(context.args.parent):
                stack = demo_stack(place, context.settings, engine=context.args.engine)
                await run_until_signal(stack, ready=lambda s: announce(ready_line(s, place)))

    run(serve())
    return ExitCode.OK
