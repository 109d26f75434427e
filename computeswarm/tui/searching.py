"""What the filter bar adds to the market's language: ``is:favourite``, which no market has to know.

The app asks for the favourites by their ids. Those that are offline are shown, too, unless the
query itself speaks of the status: whoever marked a node wants to see that it is away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

WORD = "is:favourite"
_WORD = re.compile(r"(?<!\S)is\s*[:=]\s*(?:favourites?|favorites?|fav)(?!\S)", re.IGNORECASE)
_SORT = re.compile(r"(?<!\S)sort\s*(?:[:=]\s*\S*)", re.IGNORECASE)
_EVERY_STATUS = "status:idle|busy|draining|offline"
_DIGITS = 12
"""Of an id, behind its ``nd-``."""
_MOST_IDS = 50


def completions(text: str, known: Mapping[str, Sequence[str]]) -> list[str]:
    """Words that the last word of ``text`` may become, likeliest first."""
    from computeswarm.core import query  # after the first frame: brings the models

    found = query.completions(text, known)
    word = text.rpartition(" ")[2].lower()
    own = [WORD] if word and WORD.startswith(word) and word != WORD else []
    return [*own, *found]


def _blank(pattern: re.Pattern[str], text: str) -> str:
    """Spaces where the pattern is, outside of quotes: all other words keep their places."""
    pieces = re.split(r'("[^"]*")', text)
    pieces[::2] = [pattern.sub(lambda word: " " * len(word[0]), piece) for piece in pieces[::2]]
    return "".join(pieces)


def split(text: str) -> tuple[str, bool]:
    """The market's part of a query, each word at its place; and whether favourites are wanted."""
    rest = _blank(_WORD, text)
    return rest, rest != text


def without_sort(text: str) -> str:
    """The query without its own order."""
    return _blank(_SORT, text)


def queries(text: str, favourites: Iterable[str]) -> list[str]:
    """Queries of the market that together find the favourites that match ``text``."""
    from computeswarm.core.query import MAX_LENGTH, parse  # after the first frame

    text = " ".join(text.split()) if '"' not in text else text.strip()
    base = f"{text} {_EVERY_STATUS}" if not _has_status(text) else text
    room = max(1, min(_MOST_IDS, (MAX_LENGTH - len(base) - 4) // (_DIGITS + 1)))
    ids = sorted(node_id.removeprefix("nd-")[:_DIGITS] for node_id in favourites)
    groups = [ids[at : at + room] for at in range(0, len(ids), room)]
    asked = [f"id:{'|'.join(group)} {base}".strip() for group in groups]
    for query in asked:
        parse(query)  # a long one fails here, with a sentence of its own
    return asked


def _has_status(text: str) -> bool:
    from computeswarm.core.query import parse

    return any(term.field == "status" for term in parse(text).terms)
