"""A query's terms as conditions on columns, ready to be looked up in any number of rows.

Each distinct text is looked at once here, however many nodes share it; what is left for the rows
are comparisons of integers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from computeswarm.core.query import FIELDS, Kind, Look, Query, Term
from computeswarm.market.columns import Array, Columns
from computeswarm.market.index.spans import (
    EVERYTHING,
    Spans,
    complement,
    intersection,
    union,
)
from computeswarm.market.table import NodeTable
from computeswarm.market.texts import EDGE, Texts

COLUMNS = {"queue": "queued"}
"""Columns whose names differ from those of ``core.query.Facts``."""
_ONLINE, _LISTED = ((0, 2),), ((0, 3),)
_READ_AT_ONCE = 2 * 2**20
"""Bytes of texts; they are gone through in about a millisecond."""
_READ_FOR_FEW = 64 * 1024
_FEW = 8
"""Entries up to which one comparison each is faster than a table of all."""
_HEX = re.compile(r"[0-9a-f]+\Z")
_ID_DIGITS = 12
_WALLET = (("wallet_a", 16), ("wallet_b", 16), ("wallet_c", 8))

Rows = Array | slice


@dataclass(frozen=True, slots=True)
class Within:
    """A column's integer lies in one of some intervals."""

    column: str
    spans: Spans

    def mask(self, columns: Columns, rows: Rows) -> Array:
        """For each row whether it holds."""
        values = getattr(columns, self.column)[rows]
        found: Array | None = None
        for first, last in self.spans:
            if first == last:
                inside = values == first
            elif first <= 0:
                inside = values <= last
            else:
                inside = values >= first
                if last <= np.iinfo(values.dtype).max:
                    inside &= values <= last
            found = inside if found is None else found | inside
        return np.zeros(len(values), np.bool_) if found is None else found

    def weight(self, columns: Columns) -> int:
        """What it costs: bytes read for each row."""
        values: Array = getattr(columns, self.column)
        return int(values.itemsize) * max(1, len(self.spans))


@dataclass(frozen=True, slots=True)
class Spelled:
    """The text that a column points to is one of those that were found."""

    column: str
    hits: Array
    """By entry, with one more that is false for all that came later."""

    def mask(self, columns: Columns, rows: Rows) -> Array:
        """For each row whether it holds."""
        entries = getattr(columns, self.column)[rows]
        found: Array = self.hits.take(entries, mode="clip")
        return found

    def weight(self, _: Columns) -> int:
        """As ``Within.weight``; reads from all over cost more."""
        return 32 if len(self.hits) < 2**15 else 64


@dataclass(frozen=True, slots=True)
class Among:
    """The row is one of a few (at least one), given in order."""

    slots: Array

    def mask(self, columns: Columns, rows: Rows) -> Array:
        """For each row whether it holds."""
        if isinstance(rows, slice):
            found = np.zeros(len(columns.status[rows]), np.bool_)
            first, last = np.searchsorted(self.slots, (rows.start, rows.stop))
            found[self.slots[first:last] - rows.start] = True
            return found
        places = np.searchsorted(self.slots, rows)
        same: Array = self.slots.take(places, mode="clip") == rows
        return same

    def weight(self, _: Columns) -> int:
        """As ``Within.weight``."""
        return 2


@dataclass(frozen=True, slots=True)
class Holding:
    """The text that a column points to holds one of some words: read for these rows only."""

    column: str
    texts: Texts
    words: tuple[bytes, ...]

    def mask(self, columns: Columns, rows: Rows) -> Array:
        """For each row whether it holds."""
        return self.texts.holding(getattr(columns, self.column)[rows], self.words)

    def weight(self, _: Columns) -> int:
        """As ``Within.weight``: it reads the texts."""
        return 1_000


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds."""

    parts: tuple[Within, ...]

    def mask(self, columns: Columns, rows: Rows) -> Array:
        """For each row whether it holds."""
        found = self.parts[0].mask(columns, rows)
        for part in self.parts[1:]:
            found &= part.mask(columns, rows)
        return found

    def weight(self, columns: Columns) -> int:
        """As ``Within.weight``."""
        return sum(part.weight(columns) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Either:
    """One of the parts holds, or none where it is negated; without parts none does."""

    parts: tuple[Part, ...]
    negated: bool

    def mask(self, columns: Columns, rows: Rows) -> Array:
        """For each row whether it holds."""
        found: Array | None = None
        for part in self.parts:
            if isinstance(part, Holding) and found is not None and isinstance(rows, np.ndarray):
                rest = np.flatnonzero(~found)  # texts are read where nothing else holds
                found[rest] = part.mask(columns, rows[rest])
                continue
            mask = part.mask(columns, rows)
            found = mask if found is None else found | mask
        if found is None:
            found = np.zeros(len(columns.status[rows]), np.bool_)
        return ~found if self.negated else found

    def weight(self, columns: Columns) -> int:
        """As ``Within.weight``."""
        return sum(part.weight(columns) for part in self.parts) + 1


Part = Within | Spelled | Among | Holding | All
Condition = Within | Either


@dataclass(frozen=True, slots=True)
class Plan:
    """Conditions that must all hold, the cheapest first."""

    conditions: tuple[Condition, ...]
    late: tuple[Either, ...]
    """Such as read texts row by row: for the few rows for which the others hold."""
    weight: int
    """Bytes read for each row at most."""
    generation: int
    """Of the table's texts, see ``generation``."""

    @property
    def unread(self) -> list[tuple[Texts, bytes]]:
        """Texts and the words that are yet to be looked for in them."""
        parts = [part for either in self.late for part in either.parts]
        holding = [part for part in parts if isinstance(part, Holding)]
        return [(part.texts, word) for part in holding for word in part.words]

    @property
    def all(self) -> tuple[Condition, ...]:
        """Both."""
        return (*self.conditions, *self.late)


class Toll:
    """How much of the texts one query may go through where it is asked."""

    def __init__(self, size: int) -> None:
        self._left = size

    def take(self, size: int) -> bool:
        """Whether so many bytes may be gone through yet."""
        if size > self._left:
            return False
        self._left -= size
        return True


def generation(table: NodeTable) -> int:
    """Changes when entries get new numbers, which makes plans of before wrong."""
    return table.names.generation + sum(d.texts.generation for d in table.dictionaries)


def plan(table: NodeTable, query: Query, *, few: bool = False) -> Plan:
    """What a query asks of the table's columns as they are now.

    Words are looked for in texts as far as that is quick; the rest of them is left for ``late``.

    Args:
        few: it will be asked of a few nodes only, so their own texts had better be read.
    """
    toll = Toll(_READ_FOR_FEW if few else _READ_AT_ONCE)
    numbers: dict[str, Spans] = {"status": _LISTED if query.shows_offline else _ONLINE}
    made: list[Condition] = []
    late: list[Either] = []
    for term in query.terms:
        field = FIELDS[term.field]
        if field.kind is Kind.TEXT:
            either = Either(tuple(_text(table, term, toll)), term.negated)
            slow = any(isinstance(part, Holding) for part in either.parts)
            (late if slow else made).append(either)
            continue
        spans = union(term.ranges)
        column = COLUMNS.get(field.column, field.column)
        numbers[column] = intersection(
            numbers.get(column, EVERYTHING), complement(spans) if term.negated else spans
        )
    made.extend(Within(column, spans) for column, spans in numbers.items())
    columns = table.columns
    made.sort(key=lambda condition: condition.weight(columns))
    weight = sum(condition.weight(columns) for condition in made)
    return Plan(tuple(made), tuple(late), weight, generation(table))


def _lookups(table: NodeTable, term: Term) -> Iterator[tuple[str, Texts, bytes]]:
    """Columns, the texts their entries are of, and what is looked for there."""
    field = FIELDS[term.field]
    places = {
        "gpu": (("gpu", table.gpus.texts),),
        "region": (("region", table.regions.texts),),
        "image": (("images", table.imagesets.texts),),
        "name": (("name", table.names),),
        "text": (
            ("gpu", table.gpus.texts),
            ("region", table.regions.texts),
            ("cpu", table.cpus.texts),
            ("name", table.names),
        ),
    }.get(term.field, ())
    for column, texts in places:
        for word in term.words:
            needle = word.encode("utf-8", "surrogatepass")
            if field.look is not Look.CONTAINS:
                needle = EDGE + needle
            if field.look is Look.EXACT:
                needle += EDGE
            yield column, texts, needle


@dataclass(frozen=True, slots=True)
class Candidates:
    """Where all nodes are that can be found."""

    models: Array
    """Entries of ``table.gpus``: the nodes that have them,"""
    others: Array
    """and these slots."""


def candidates(table: NodeTable, made: Plan) -> Candidates | None:
    """The few models that a plan asks for; None where it asks for none."""
    eithers = (c for c in made.conditions if isinstance(c, Either) and not c.negated)
    found = [one for either in eithers if (one := _candidates(table, either)) is not None]
    return min(found, key=lambda one: len(one.models) + len(one.others), default=None)


def _candidates(table: NodeTable, either: Either) -> Candidates | None:
    models = np.zeros(len(table.gpus), np.bool_)
    others = [np.zeros(0, np.int64)]
    for part in either.parts:
        match part:
            case Within("gpu", spans):
                for first, last in spans:
                    models[first : last + 1] = True
            case Spelled("gpu", hits):
                models[: len(hits) - 1] |= hits[:-1]
            case Within("id", spans) if spans != EVERYTHING:
                rows = slice(0, table.size)
                others.append(np.flatnonzero(part.mask(table.columns, rows)))
            case Among(slots):
                others.append(slots)
            case _:
                return None
    slots = np.concatenate(others)
    slots = np.unique(slots[~models[table.columns.gpu[slots]]])
    return Candidates(np.flatnonzero(models), slots)


def _text(table: NodeTable, term: Term, toll: Toll) -> Iterator[Part]:
    found: dict[str, Array] = {}
    unread: dict[str, tuple[Texts, list[bytes]]] = {}
    for column, texts, needle in _lookups(table, term):
        if not toll.take(texts.toll(needle)):
            unread.setdefault(column, (texts, []))[1].append(needle)
            continue
        hits = texts.hits(needle)
        before = found.get(column)
        # entries may have come between two looks
        found[column] = hits if before is None else _either(before, hits)
    for column, hits in found.items():
        if column == "name":
            slots = table.named(hits)
            if slots is None:
                yield Spelled(column, np.append(hits, False))
            elif len(slots):
                yield Among(slots)
            continue
        entries = np.flatnonzero(hits) if len(hits) < 2**15 or not hits.any() else None
        if entries is None or len(entries) > _FEW:
            yield Spelled(column, np.append(hits, False))
        elif len(entries):
            yield Within(column, union((entry, entry) for entry in entries.tolist()))
    for word in dict.fromkeys(term.words):
        if term.field in ("id", "text"):
            yield from _id(word)
        elif term.field == "wallet":
            yield from _wallet(word)
    for column, (texts, words) in unread.items():
        yield Holding(column, texts, tuple(words))


def _either(one: Array, other: Array) -> Array:
    short, long = sorted((one, other), key=len)
    found = long.copy()
    found[: len(short)] |= short
    return found


def _id(word: str) -> Iterator[Within]:
    """Ids that begin so, with ``nd`` before the digits or without."""
    if "nd".startswith(word):
        yield Within("id", EVERYTHING)
    digits = word.removeprefix("nd")
    if digits and len(digits) <= _ID_DIGITS and _HEX.match(digits):
        yield Within("id", (_prefix(digits, _ID_DIGITS),))


def _wallet(word: str) -> Iterator[Within | All]:
    if "0x".startswith(word):
        yield Within("wallet_a", EVERYTHING)
    digits = word[2:]
    if word.startswith("0x") and len(digits) <= 40 and _HEX.match(digits):
        parts = []
        for column, length in _WALLET:
            if digits:
                parts.append(Within(column, (_prefix(digits[:length], length),)))
            digits = digits[length:]
        yield All(tuple(parts))


def _prefix(digits: str, length: int) -> tuple[int, int]:
    first = int(digits, 16) << 4 * (length - len(digits))
    return first, first + (1 << 4 * (length - len(digits))) - 1
