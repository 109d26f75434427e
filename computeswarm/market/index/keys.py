"""What a list is sorted by: an integer or a text of each node, and the node's id behind it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from computeswarm.core.query import FIELDS, Kind
from computeswarm.market.columns import Array
from computeswarm.market.dictionary import Dictionary
from computeswarm.market.index.plan import COLUMNS
from computeswarm.market.index.ranks import ranks
from computeswarm.market.table import NodeTable
from computeswarm.market.touches import Touched

Key = int | bytes
Place = tuple[Key, int]
"""Where a node stands in a list: its key and its id's number."""

_LEASES = ("queued", "status")
_FIGURES = ("rel", "cost", "uptime", "reputation")


@dataclass(frozen=True, slots=True)
class Sort:
    """One order of the language, ``-`` before its name for the other way round."""

    name: str

    @property
    def column(self) -> str:
        """The column that decides; of entries where the field is a text."""
        column = FIELDS[self.name.removeprefix("-")].column
        return COLUMNS.get(column, column)

    @property
    def text(self) -> bool:
        """Whether keys are texts (in UTF-8, which orders as characters do)."""
        return FIELDS[self.name.removeprefix("-")].kind is Kind.TEXT

    @property
    def sign(self) -> int:
        """-1 where the largest comes first."""
        sign = -1 if self.name.startswith("-") else 1
        return sign * FIELDS[self.name.removeprefix("-")].best

    def moved_by(self, table: NodeTable) -> tuple[Touched, ...]:
        """Changes that may move a node in this order."""
        touches = table.touches
        if self.column in _LEASES:
            return touches.records, touches.leases
        return (touches.records, touches.figures) if self.column in _FIGURES else (touches.records,)

    def integers(self, table: NodeTable, slots: Array) -> Array:
        """Keys of nodes, smallest first, of a sort by integers."""
        values: Array = getattr(table.columns, self.column)[slots]
        return values.astype(np.int64) * self.sign

    def texts(self, table: NodeTable, entries: Array) -> list[bytes]:
        """Keys of entries, of a sort by texts."""
        found = entries.tolist()
        if self.column == "name":
            return [table.lower_names.text(entry) for entry in found]
        dictionary = self._dictionary(table)
        return [_encoded(dictionary.sort_text(entry)) for entry in found]

    def ranks(self, table: NodeTable, entries: Array) -> Array:
        """Integers that order entries as ``texts`` does, turned round where the sort is."""
        if self.column == "name":
            return self.sign * ranks(*table.lower_names.bounds(entries))
        return self.sign * self._dictionary(table).ranks()[0][entries]

    def _dictionary(self, table: NodeTable) -> Dictionary:
        return table.gpus if self.column == "gpu" else table.regions

    def places(self, table: NodeTable, slots: Array) -> list[Place]:
        """Keys and ids of a few nodes, as they are now."""
        ids = table.columns.id[slots].tolist()
        if not self.text:
            return list(zip(self.integers(table, slots).tolist(), ids, strict=True))
        entries = getattr(table.columns, self.column)[slots]
        return list(zip(self.texts(table, entries), ids, strict=True))

    def before(self, one: Place, other: Place) -> bool:
        """Whether one comes before the other; ids rise in either direction."""
        if one[0] == other[0]:
            return one[1] < other[1]
        if self.text and self.sign < 0:
            return bool(one[0] > other[0])  # type: ignore[operator]
        return bool(one[0] < other[0])  # type: ignore[operator]

    def sorted(self, table: NodeTable, slots: Array) -> list[tuple[Place, int]]:
        """A few nodes in order, with their slots."""
        found = list(zip(self.places(table, slots), slots.tolist(), strict=True))
        found.sort(key=lambda item: item[0][1])
        found.sort(key=lambda item: item[0][0], reverse=self.text and self.sign < 0)
        return found


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
