"""Sets of integers as sorted, disjoint closed intervals."""

from __future__ import annotations

from collections.abc import Iterable

Spans = tuple[tuple[int, int], ...]

LEAST, MOST = 0, 2**64 - 1
"""All columns hold integers between these."""
EVERYTHING: Spans = ((LEAST, MOST),)


def union(ranges: Iterable[tuple[int, int]]) -> Spans:
    """The integers that lie in one of the ranges; such as end before they begin are empty."""
    made: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if first > last:
            continue
        if made and first <= made[-1][1] + 1:
            made[-1] = made[-1][0], max(last, made[-1][1])
        else:
            made.append((first, last))
    return tuple(made)


def complement(spans: Spans) -> Spans:
    """All others."""
    made, next_ = [], LEAST
    for first, last in spans:
        made.append((next_, first - 1))
        next_ = last + 1
    return union([*made, (next_, MOST)])


def intersection(one: Spans, other: Spans) -> Spans:
    """The integers in both."""
    return union((max(a, c), min(b, d)) for a, b in one for c, d in other)
