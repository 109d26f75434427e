"""Where the values of a job's secrets come from, besides a field that hides what is typed."""

from __future__ import annotations

from pathlib import Path

from computeswarm.core.errors import BadRequest
from computeswarm.core.sealing import check_secret
from computeswarm.core.text import clean_line

READABLE = "The seller can read the secrets as he runs the job; isolation doesn't change that."
"""Said before a job with secrets is bought."""


def secret_of_file(name: str, path: Path) -> str:
    """A file's text without the end of its last line, which editors add.

    Raises:
        BadRequest: it can't be read, or can't be a secret; what it holds is not repeated.
    """
    try:
        text = path.expanduser().read_text("utf-8")
    except OSError as error:
        shown = clean_line(str(path), limit=200)
        raise BadRequest(f"The secret {name}: {shown} can't be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise BadRequest(f"The secret {name} is no valid text; give it in UTF-8.") from None
    value = text.removesuffix("\n").removesuffix("\r")
    check_secret(name, value)
    return value
