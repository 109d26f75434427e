"""Finding the wanted command, and turning what goes wrong into a sentence and an exit code.

This module is on the path of ``computeswarm --help``, so it imports almost nothing: the command's
module, the settings and argparse itself load only once a command is known.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from computeswarm import __version__
from computeswarm.core.errors import ComputeSwarmError, ExitCode, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from computeswarm.cli.context import Context

COMMANDS = {
    "demo": "everything on this machine: chain, market, seller, funded buyer",
    "nodes": "list and search what is for rent",
    "prices": "what sellers ask for each GPU, now and over time",
    "run": "run a script on a rented machine",
    "jobs": "list your jobs",
    "logs": "show what a job printed",
    "cancel": "stop a job and get the unused rest back",
    "outputs": "fetch the files a job wrote",
    "pay": "buy from any x402 server on the internet",
    "channels": "list the deposits that pay for jobs, and bring them home",
    "seller": "rent this machine out",
    "earnings": "what renting out brought, cost and left",
    "market": "run a market",
    "devnet": "run a local chain with test money",
    "images": "build and check the images that jobs run in",
    "wallet": "make, import or show your wallet, and its balance",
    "ledger": "what was paid, came back and is owed; and an audit of it",
    "doctor": "what this machine can do, and what to fix",
}
"""Names and one-line help; the module of each is ``computeswarm.cli.commands.<name>``."""

EXIT_PIPE_CLOSED = 141
"""As a shell reports a program ended by SIGPIPE: whoever read our output has left."""

_EPILOG = """\
Without a command the terminal app opens (--mode seller for the seller's side).
Each command has --help and --json. State lies in your user folders, or in COMPUTESWARM_HOME.

Exit codes: the job's own for `run`; 124 budget or time spent, 125 an error of ComputeSwarm's or
a wrong command line, 126 refused by policy, 130 interrupted.
"""


def entry() -> None:
    """The installed program."""
    _fill_closed_streams()
    sys.exit(main(sys.argv[1:]))


def _fill_closed_streams() -> None:
    """A stream that was closed before we began (``>&-``) is one that nobody reads.

    Lowest descriptor first: each opens as the very one that is missing, so that no database or
    socket gets a number to which a child or a library may print.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115


def main(argv: Sequence[str]) -> int:
    """Run one command line and give its exit code. Nothing is raised but ``SystemExit``."""
    wants_json = "--json" in _own_part(argv)
    try:
        code = _dispatch(list(argv))
        sys.stdout.flush()
    except BrokenPipeError:
        # the interpreter flushes once more at exit; let that go nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE_CLOSED
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            print(file=sys.stderr)  # noqa: T201 - the shell's prompt goes below a question
        return ExitCode.INTERRUPTED
    except Exception as error:
        from computeswarm.cli.failure import as_problem, show

        problem = as_problem(error)
        show(problem, as_json=wants_json)
        return int(problem.exit_code)
    return code


def _dispatch(argv: list[str]) -> int:
    name = argv[0] if argv else ""
    if name in ("-h", "--help", "help"):
        print(_top_help(), end="")  # noqa: T201 - the command line's own output
        return ExitCode.OK
    if name == "--version":
        print(f"computeswarm {__version__}")  # noqa: T201
        return ExitCode.OK
    if name.startswith("-") or not name:
        return _run_command("tui", argv)
    if name not in COMMANDS:
        raise _unknown(name)
    return _run_command(name, argv[1:])


def _run_command(name: str, argv: list[str]) -> int:
    from importlib import import_module

    from computeswarm.cli.context import Context
    from computeswarm.cli.options import make_parser

    module = import_module(f"computeswarm.cli.commands.{name}")
    own = _own_part(argv)
    parser = make_parser(name, COMMANDS.get(name, ""))
    module.configure(parser)
    takes_rest = getattr(module, "TAKES_REST", "")
    args, unknown = parser.parse_known_args(own)
    if unknown:
        hint = takes_rest or "leave it out"
        raise UsageError(
            f"{' '.join(unknown)[:80]!r} is no argument of `{name}`: {hint};"
            f" see `{parser.prog} --help`."
        )
    context = Context.make(args, argv[len(own) + 1 :])
    if context.rest and not takes_rest:
        raise UsageError(f"`{name}` takes nothing after --; leave it out.")
    return _finish(module.run(context), context)


def _finish(result: object, context: Context) -> int:
    """Commands are plain functions or coroutines; both give an exit code."""
    if isinstance(result, int):
        return result
    import asyncio

    return asyncio.run(result)  # type: ignore[arg-type]


def _own_part(argv: Sequence[str]) -> list[str]:
    """What is ours: all before a bare ``--``. argparse would give the rest to the wrong place."""
    items = list(argv)
    return items[: items.index("--")] if "--" in items else items


def _top_help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    head = "Usage: computeswarm [COMMAND] [OPTIONS]\n\nRent GPUs from strangers, pay by the second."
    return "\n".join([head, "", "Commands:", *lines, "", _EPILOG])


def _unknown(name: str) -> ComputeSwarmError:
    from difflib import get_close_matches

    near = get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean `{near[0]}`?" if near else "`computeswarm --help` lists them all."
    return UsageError(f"There is no command {name[:60]!r}; {hint}")
