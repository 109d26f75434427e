"""All nodes in one order, as a permutation that is now and then made anew.

What changed since it was made is set aside and looked at apart, so what is found is never stale.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from computeswarm.market.columns import ABSENT, Array, Columns
from computeswarm.market.index.keys import Place, Sort
from computeswarm.market.table import NodeTable

_ASIDE = -2
_NOWHERE = -1
_FIRST_STEP = 512
_ENOUGH = 4_000
"""Nodes after which it shows whether a walk will find enough."""
_WALKED = 64_000
"""Nodes after which it is quicker to look at those that were found."""
_MERGED = 64
"""Sets of models whose nodes' positions are kept merged."""


class Order:
    """Slots in the order of one sort."""

    def __init__(self, sort: Sort) -> None:
        self.sort = sort
        self._slots = np.zeros(0, np.int32)
        self._keys = np.zeros(0, np.int64)
        self._ids = np.zeros(0, np.uint64)
        self._position = np.full(0, _NOWHERE, np.int32)
        self._by_model = np.zeros(0, np.int32)
        self._model_starts = np.zeros(1, np.int64)
        """Positions by the model's entry, and where those of each begin."""
        self._models_generation = 0
        self._merged: dict[bytes, Array] = {}
        self._aside: list[Array] = []
        self.changed = 0
        """How many slots were set aside."""

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def nbytes(self) -> int:
        """Bytes kept for it."""
        arrays: tuple[Array, ...] = (self._slots, self._keys, self._ids, self._position)
        arrays = (*arrays, self._by_model, *self._merged.values())
        return sum(array.nbytes for array in arrays)

    def build(self, table: NodeTable, columns: Columns, size: int) -> None:
        """Sort all nodes; takes a while and may run beside the loop.

        What changes after ``columns`` and ``size`` were taken from the table, ``touch`` must hear
        of once this is done.
        """
        slots = np.flatnonzero(columns.status[:size] != ABSENT)
        ids = columns.id[slots]
        values = getattr(columns, self.sort.column)[slots]
        if self.sort.text:
            keys = self.sort.ranks(table, values)
        else:
            keys = values.astype(np.int64) * self.sort.sign
        order = np.lexsort((ids, keys))
        self._slots = slots[order].astype(np.int32)
        self._keys = values[order] if self.sort.text else keys[order]
        self._ids = ids[order]
        self._segment(table, columns.gpu[self._slots])
        position = np.full(len(columns), _NOWHERE, np.int32)
        position[self._slots] = np.arange(len(order), dtype=np.int32)
        self._position = position

    def _segment(self, table: NodeTable, models: Array) -> None:
        self._models_generation = table.gpus.texts.generation
        most = int(models.max(initial=0))
        small = models.astype(np.uint16 if most < 2**16 else np.int32)  # sorted by its digits
        self._by_model = np.argsort(small, kind="stable").astype(np.int32)
        self._model_starts = np.searchsorted(models[self._by_model], np.arange(most + 2))

    def of_models(self, table: NodeTable, entries: Array) -> Array | None:
        """Positions of the nodes of some models, in order; None: they can't be told apart."""
        if self._models_generation != table.gpus.texts.generation:
            return None
        entries = entries[entries + 1 < len(self._model_starts)]  # later ones are aside
        starts = self._model_starts
        if len(entries) == 1:
            return self._by_model[starts[entries[0]] : starts[entries[0] + 1]]
        merged = self._merged.get(key := entries.tobytes())
        if merged is None:
            parts = [self._by_model[starts[e] : starts[e + 1]] for e in entries.tolist()]
            merged = np.sort(np.concatenate([np.zeros(0, np.int32), *parts]))
            if len(self._merged) >= _MERGED:
                self._merged.clear()
            self._merged[key] = merged
        return merged

    def touch(self, slots: Array) -> None:
        """Set slots aside whose place may have changed."""
        if not len(slots):
            return
        highest = int(slots.max())
        if highest >= len(self._position):
            grown = np.full(max(highest + 1, 2 * len(self._position)), _NOWHERE, np.int32)
            grown[: len(self._position)] = self._position
            self._position = grown
        new = slots[self._position[slots] != _ASIDE]
        if len(new) * 16 > len(self._position):
            marked = np.zeros(len(self._position), np.bool_)
            marked[new] = True
            new = np.flatnonzero(marked)
        else:
            new = np.sort(new)
            new = new[np.r_[True, new[1:] != new[:-1]]] if len(new) else new
        self._position[new] = _ASIDE
        self._aside.append(new)
        self.changed += len(new)

    def in_order(self, slots: Array) -> Array:
        """For each of some slots whether it is not aside."""
        positions: Array = self._position.take(slots, mode="clip")
        there: Array = positions != _ASIDE
        return there

    def aside(self) -> Array:
        """The slots that were set aside, each once."""
        if len(self._aside) != 1:
            self._aside = [np.concatenate([np.zeros(0, np.int64), *self._aside])]
        return self._aside[0]

    def after(self, table: NodeTable, place: Place) -> int:
        """The first position that comes behind a place, as this order was built."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self.sort.before(place, self._place(table, middle)):
                high = middle
            else:
                low = middle + 1
        return low

    def _place(self, table: NodeTable, position: int) -> Place:
        key = self._keys[position]
        number = int(self._ids[position])
        if self.sort.text:
            return self.sort.texts(table, np.array([key]))[0], number
        return int(key), number

    def walk(
        self,
        accepts: Callable[[Array], Array],
        start: int,
        limit: int,
        most: int,
        positions: Array | None = None,
    ) -> Array:
        """Slots from position ``start`` on that are accepted and not aside: at least ``limit``
        of them, unless there are fewer in the first ``most``. Where there are more than that,
        it ends once it looks as if it would not find enough.

        Args:
            positions: the only ones that are looked at, see ``of_models``.
        """
        slots_in_order = self._slots
        if positions is not None:
            start = int(np.searchsorted(positions, start))
            slots_in_order = positions
        hits: list[Array] = []
        rest = len(slots_in_order) - start
        have, walked, step, end = 0, 0, _FIRST_STEP, start + min(rest, most)
        while start < end and have < limit:
            slots = slots_in_order[start : start + step]
            if positions is not None:
                slots = self._slots[slots]
            slots = slots[self._position[slots] >= 0]
            good = slots[accepts(slots)]
            hits.append(good)
            have += len(good)
            start, step, walked = start + step, step * 2, walked + step
            if most < rest and walked >= _ENOUGH and have * most < limit * walked:
                break  # it does not look as if it would be filled
        return np.concatenate([np.zeros(0, np.int32), *hits])

    def first(self, found: Array, count: int, start: int, limit: int) -> Array:
        """The first ``limit`` slots from position ``start`` on that are found and not aside.

        Args:
            found: the mask of all slots, of which ``count`` are true.
        """
        if count * count > 4 * limit * len(self):  # a walk sees fewer than there are
            slots = self.walk(found.__getitem__, start, limit, _WALKED)
            if len(slots) >= limit:
                return slots[:limit]
        return self._of_few(np.flatnonzero(found), start, limit)

    def _of_few(self, slots: Array, start: int, limit: int) -> Array:
        positions = self._position[slots[slots < len(self._position)]]
        positions = positions[positions >= start]
        if len(positions) > limit:
            positions = np.partition(positions, limit)[:limit]
        positions.sort()
        return self._slots[positions]
