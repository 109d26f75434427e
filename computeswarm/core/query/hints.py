"""The sentences that say what is wrong with a query, and what was probably meant."""

from __future__ import annotations

from computeswarm.core.errors import InvalidQuery
from computeswarm.core.query.fields import FLAGS, NAMES
from computeswarm.core.query.kinds import Field, Kind
from computeswarm.core.text import clean_line

SORT = "sort"
"""The word that gives an order, written like a field."""


def example_of(field: Field) -> str:
    """A word with the field's name in it."""
    return field.example if field.name != "text" else "text:ryzen"


def unreadable(field: Field, text: str) -> str:
    """What is wrong with a value of a field that is compared."""
    shown = clean_line(text)
    if field.choices:
        close = nearest(text.lower(), field.choices)
        hint = f"did you mean {close}?" if close else f"use one of {', '.join(field.choices)}."
        return f"{shown!r} is no {field.name}; {hint}"
    if field.kind is Kind.VERSION:
        return f"{shown!r} is not a version; write it like {field.example}."
    unit = f" ({field.unit})" if field.unit else ""
    return f"{shown!r} is not a number{unit}; write it like {field.example}."


def unknown(key: str) -> str:
    """That there is no such field, and which was meant."""
    close = nearest(key.lower(), (*NAMES, *FLAGS, SORT))
    if close is None:
        names = ", ".join(dict.fromkeys(field.name for field in NAMES.values()))
        return f"{clean_line(key)!r} is not known; use one of {names}."
    known = NAMES.get(close) or FLAGS.get(close)
    name = known.name if known else SORT
    return f"{clean_line(key)!r} is not known; did you mean {name}?"


def nearest(word: str, names: tuple[str, ...]) -> str | None:
    """The name that is most like a word, if one is."""
    from difflib import get_close_matches  # only where something went wrong

    return next(iter(get_close_matches(word[:40], names, n=1)), None)


def invalid(text: str, position: int, length: int, sentence: str) -> InvalidQuery:
    """The error for that part of a query."""
    word = clean_line(text[position : position + min(length, 60)])
    return InvalidQuery(sentence, position=position, length=length, word=word)
