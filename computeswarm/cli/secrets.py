"""Secrets for a job: from the environment, a file or a hidden prompt, never from the command line.

What stands on a command line is in the shell's history and readable for every user of the machine.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from computeswarm.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from computeswarm.cli.context import Context


def read_secrets(context: Context, given: Sequence[str]) -> dict[str, str]:
    """The values of ``--secret NAME`` and ``--secret NAME=@FILE``.

    Raises:
        UsageError: a value on the command line, a name twice, or no value anywhere. No sentence
            repeats what may be a secret.
        BadRequest: a file that can't be read, or a value that can't be a secret.
    """
    from computeswarm.buyer.secrets import secret_of_file
    from computeswarm.core.sealing import check_secret

    found: dict[str, str] = {}
    for entry in given:
        name, equals, rest = entry.partition("=")
        if not name.isascii() or not name.isidentifier():
            raise UsageError("--secret takes NAME or NAME=@FILE; a name has letters, digits and _.")
        if equals and not rest.startswith("@"):
            raise UsageError(
                f"A secret's value doesn't belong on the command line, where others can read it: "
                f"export {name} and give --secret {name}, or give --secret {name}=@FILE."
            )
        if name in found:
            raise UsageError(f"--secret {name} is given twice; leave one out.")
        value = secret_of_file(name, Path(rest[1:])) if equals else _of_environment(context, name)
        check_secret(name, value)
        found[name] = value
    return found


def _of_environment(context: Context, name: str) -> str:
    if (value := os.environ.get(name)) is not None:
        return value
    if (ask := context.ask_password) is not None:
        return ask(f"Secret {name}: ")
    raise UsageError(f"The secret {name} is not set; export it, or give --secret {name}=@FILE.")
