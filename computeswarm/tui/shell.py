"""Words for a POSIX shell that mean the same there as here, and do nothing to the terminal."""

from __future__ import annotations

import os
import shlex

from computeswarm.core.errors import BadRequest
from computeswarm.core.text import visible


def quote(word: str) -> str:
    """A word as a shell reads it back; bytes that a terminal would obey are spelled out.

    ``$'…'`` is what bash, zsh and ksh know for that; other words are quoted as everywhere.
    """
    if visible(word) == word:
        return shlex.quote(word)
    spelled = []
    for character in word:
        if character in "\\'":
            spelled.append(f"\\{character}")
        elif visible(character) == character:
            spelled.append(character)
        else:
            spelled += [f"\\{byte:03o}" for byte in os.fsencode(character)]
    return f"$'{''.join(spelled)}'"


def option(name: str, value: str) -> list[str]:
    """An option with its value, also where the value looks like an option itself."""
    return [f"{name}={value}"] if value.startswith("-") else [name, value]


def split(text: str) -> list[str]:
    """The words of a field, quoted as in a shell.

    Raises:
        BadRequest: a quotation mark is not closed.
    """
    try:
        return shlex.split(text)
    except ValueError:
        raise BadRequest("A quotation mark is not closed.") from None


def join(words: list[str]) -> str:
    """A field's text for these words, so that ``split`` gives them back."""
    return shlex.join(words)
