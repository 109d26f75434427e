"""Queries on the command line: a mistake is pointed at, and what was asked for gets a column."""

from __future__ import annotations

from typing import TYPE_CHECKING

from computeswarm.core.errors import InvalidQuery
from computeswarm.core.text import clean, clean_line

if TYPE_CHECKING:
    from computeswarm.cli.context import Context
    from computeswarm.core.nodes import ComputeNode
    from computeswarm.core.pages import Facets
    from computeswarm.core.query import Query

_ALWAYS = {"id", "name", "gpu", "gpus", "vram", "price", "status", "isolation", "region", "text"}
"""Fields that the list of nodes shows in any case."""
_HEADS = {
    "value": "USDC/TFLOPS·h",
    "cost": "COST/h",
    "rel": "RELIABLE",
    "reputation": "REPUTATION",
    "max_time": "LONGEST",
    "image": "IMAGES",
    "network": "INTERNET",
}
_LEFT = {"image", "wallet", "vendor", "network"}
_FACETS = {"model": "GPU", "vram": "VRAM (GiB)", "gpus": "GPUS", "network": "INTERNET"}
_MOST_ROWS = 20


def read_query(context: Context, text: str, *, sort: str = "") -> Query:
    """A query that was typed, and its order. With a mistake in it, the word is pointed at first.

    Raises:
        InvalidQuery: nobody can read it.
    """
    from computeswarm.core.query import parse

    try:
        parse("", sort=sort)
    except InvalidQuery as error:
        _point(context, sort, error)
        raise
    try:
        return parse(text, sort=sort)
    except InvalidQuery as error:
        _point(context, text, error)
        raise


def _point(context: Context, text: str, error: InvalidQuery) -> None:
    for line in () if context.json else pointed_at(text, error):
        context.note(line)


def pointed_at(text: str, error: InvalidQuery) -> list[str]:
    """The query, and carets below the part that can't be read; nothing where that is unknown."""
    position, length = error.extra.get("position"), error.extra.get("length")
    if not isinstance(position, int) or not isinstance(length, int) or position < 0:
        return []
    from computeswarm.cli.context import cells

    parts = (text[:position], text[position : position + max(length, 0)], text[position + length :])
    before, word, after = (" ".join(clean(part).split("\n")) for part in parts)
    mark = " " * cells(before) + "^" * max(1, cells(word))
    return [f"  {before}{word}{after}", f"  {mark}"]


def asked_columns(query: Query) -> tuple[str, ...]:
    """The fields that were asked about and need a column, in the order they were."""
    fields = [*(term.field for term in query.terms), query.sort.removeprefix("-")]
    return tuple(field for field in dict.fromkeys(fields) if field not in _ALWAYS)


def heads(fields: tuple[str, ...]) -> tuple[str, ...]:
    """The headings of such columns; numbers stand to the right."""
    return tuple(
        ("" if field in _LEFT else ">") + _HEADS.get(field, field.upper()) for field in fields
    )


def cells_of(fields: tuple[str, ...], node: ComputeNode) -> tuple[str, ...]:
    """What a node has in them."""
    from computeswarm.core.query import FIELDS, facts_of, shown

    facts = facts_of(node)
    return tuple(shown(FIELDS[field], facts) for field in fields)


def facet_tables(facets: Facets) -> list[tuple[tuple[str, str], list[tuple[str, str]]]]:
    """A head and rows for each kind of count, the most frequent values first."""
    tables = []
    for name, counts in facets:
        if name == "total" or not counts:
            continue
        rows = [(clean_line(one.value, limit=60) or "?", f"{one.nodes:,}") for one in counts]
        if len(rows) > _MOST_ROWS:
            rest = sum(one.nodes for one in counts[_MOST_ROWS:])
            rows[_MOST_ROWS:] = [(f"({len(rows) - _MOST_ROWS} more)", f"{rest:,}")]
        tables.append(((_FACETS.get(name, name.upper()), ">NODES"), rows))
    return tables
