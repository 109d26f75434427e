"""Changing one thing about a query and leaving the rest as it was typed."""

from __future__ import annotations

from computeswarm.core.errors import InvalidQuery
from computeswarm.core.query.language import parse


def with_word(text: str, word: str) -> str:
    """The query with ``word`` in the place of what it said of the same field.

    What can't be read is given up.

    Raises:
        InvalidQuery: ``word`` can't be read.
    """
    fields = {term.field for term in parse(word).terms}
    try:
        terms = parse(text).terms
    except InvalidQuery:
        return word
    for term in reversed(terms):
        if term.field in fields:
            before, after = text[: term.position], text[term.position + term.length :]
            text = f"{before.rstrip()} {after.lstrip()}".strip()
    return f"{text} {word}".strip()
