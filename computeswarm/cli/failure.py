"""The last resort: any exception becomes one sentence and an exit code; no traceback is shown."""

from __future__ import annotations

import errno
import json
import sqlite3
import sys
import tempfile
import time
import traceback

from computeswarm.core.errors import ComputeSwarmError, StorageFull
from computeswarm.core.text import clean_line

_FULL = (errno.ENOSPC, errno.EDQUOT)


class UnexpectedError(ComputeSwarmError):
    """A bug of ours; the details are in a file."""

    code = "unexpected"
    title = "Something unexpected happened"


def show(problem: ComputeSwarmError, *, as_json: bool) -> None:
    """One JSON object on stdout with ``--json``, otherwise one sentence on stderr."""
    try:
        if as_json:
            print(json.dumps({"error": problem.to_problem()}, default=str), flush=True)  # noqa: T201
        else:
            print(clean_line(problem.detail, limit=1_000), file=sys.stderr, flush=True)  # noqa: T201
    except OSError:
        return  # whoever would have read it has left, and the exit code still tells


def as_problem(error: Exception) -> ComputeSwarmError:
    """The error a person is told of."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, ComputeSwarmError):
        return error
    if _is_full(error):
        where = getattr(error, "filename", None)
        place = f" on which {where} lies" if where else ""
        return StorageFull(f"The disk{place} is full; free some space and try again.")
    if isinstance(error, OSError) and error.filename and error.strerror:
        return ComputeSwarmError(
            f"{error.filename}: {error.strerror}; check the path and try again."
        )
    return UnexpectedError(
        f"Something unexpected happened ({type(error).__name__}); {_write_details(error)}."
    )


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in _FULL
    return isinstance(error, sqlite3.OperationalError) and "disk is full" in str(error)


def _write_details(error: Exception) -> str:
    # the command line is left out on purpose: people type secrets into --env
    text = "".join(traceback.format_exception(error))
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix=f"computeswarm-{stamp}-", suffix=".log", delete=False, encoding="utf-8"
        ) as file:
            file.write(text)
    except OSError as problem:
        return f"the details could not be written down either ({problem.strerror})"
    return f"the details are in {file.name}"
