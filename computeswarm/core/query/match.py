"""Terms on the facts of one node, and the order of the nodes that were found."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from computeswarm.core.query.facts import Facts
from computeswarm.core.query.fields import FIELDS, SORTABLE
from computeswarm.core.query.kinds import Field, Kind, Look


def number_in(number: int, ranges: Iterable[tuple[int, int]]) -> bool:
    """Whether a number lies in one of the ranges, both ends included."""
    return any(first <= number <= last for first, last in ranges)


def found_in(field: Field, node: Facts, words: Iterable[str]) -> bool:
    """Whether one of the words, squeezed, is in one of the node's texts.

    A bare word may also be the beginning of an id. Not the middle: a model's number stands in
    the ids of strangers by the hundred.
    """
    holds = _LOOKS[field.look]
    texts = field.texts(node)
    for word in words:
        if any(holds(text, word) for text in texts):
            return True
        if field.name == "text" and found_in(FIELDS["id"], node, (word,)):
            return True
    return False


_LOOKS: dict[Look, Callable[[str, str], bool]] = {
    Look.CONTAINS: lambda text, word: word in text,
    Look.PREFIX: lambda text, word: text.startswith(word),
    Look.EXACT: lambda text, word: text == word,
}


def _sort_key(field: Field) -> Callable[[Facts], int | str]:
    if field.kind is Kind.TEXT:
        return lambda node: str(getattr(node, field.column)).lower()
    return lambda node: field.best * field.number(node)


SORT_KEYS: dict[str, Callable[[Facts], int | str]] = {
    name: _sort_key(FIELDS[name]) for name in SORTABLE
}
"""Best first: cheap before dear, much memory before little. ``sort:-price`` turns it round."""
