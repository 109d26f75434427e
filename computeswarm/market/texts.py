"""Many short texts in one block of bytes, so that a word is looked for in all of them at once.

Numpy compares the block letter by letter without the interpreter's lock, a gigabyte in the time in
which Python would go through a million strings.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

import numpy as np

from computeswarm.market.columns import Array
from computeswarm.market.grams import Grams

_DENSE = 32
"""Bytes a place up to which it is quicker to count through them than to look each place up."""
EDGE = b"\xff"
"""Around each item; no UTF-8 holds it, so no word reaches from one item into another."""
_BLOCK = 256 * 1024
_QUICK = 1024 * 1024
"""Bytes that are gone through in well under a millisecond."""
_MAYBE = 8_000
"""Parts of texts that may hold a word, up to which they are looked at one by one."""
_MAYBE_BYTES = 128
"""What one of them costs, in bytes gone through."""
CACHED = 32
"""Words whose entries are kept, a byte an entry."""
_SPARE = 4_096
"""Dropped entries up to which it is not worth moving the rest."""


class Texts:
    """Texts by entry numbers that only grow, until ``compact`` moves them together."""

    def __init__(self) -> None:
        self.generation = 0
        """Rises when entries get new numbers."""
        self._data = np.zeros(1024, np.uint8)
        self._used = 0
        self._ends = np.zeros(64, np.int64)
        self._count = 0
        self._dropped = 0
        self._hits: OrderedDict[bytes, Array] = OrderedDict()
        self._common = np.zeros(256, np.int64)
        self._grams: Grams | None = None
        self._counted = 0
        """How often each letter comes in so many bytes."""

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Bytes of the texts with their places."""
        grams = self._grams.nbytes if self._grams else 0
        return self._data.nbytes + self._ends.nbytes + grams

    def extend(self, texts: Sequence[bytes]) -> range:
        """Add texts; returns their entries."""
        first, count = self._count, len(texts)
        block = np.frombuffer(EDGE + EDGE.join(texts) + EDGE, np.uint8)
        # the edge that ended the last text begins the next
        start = self._used - 1 if self._used else 0
        self._data = _room(self._data, start + len(block))
        self._data[start : start + len(block)] = block
        self._ends = _room(self._ends, first + count)
        lengths = np.fromiter(map(len, texts), np.int64, count)
        self._ends[first : first + count] = start + np.cumsum(lengths + 1)
        self._used = start + len(block)
        self._count += count
        return range(first, self._count)

    def text(self, entry: int) -> bytes:
        """The text of an entry."""
        start = int(self._ends[entry - 1]) + 1 if entry else 1
        return self._data[start : int(self._ends[entry])].tobytes()

    def bounds(self, entries: Array) -> tuple[Array, Array, Array]:
        """All bytes, and where in them the texts of some entries begin and how long they are."""
        data, ends = self._data[: self._used], self._ends
        starts = np.where(entries > 0, ends[entries - 1], 0) + 1
        return data, starts, ends[entries] - starts

    def toll(self, word: bytes) -> int:
        """About how many bytes ``hits`` would have to go through for a word."""
        before = self._hits.get(word)
        if before is not None:
            return self._after(len(before))
        if self._grams is not None:
            code, times = self._grams.rarest(word)
            if code >= 0 and times <= _MAYBE:
                return self._after(self._grams.count) + _MAYBE_BYTES * times
        return self._used

    def _after(self, count: int) -> int:
        """Bytes of the texts behind the first ``count``."""
        return self._used - (int(self._ends[count - 1]) + 1 if count else 0)

    def learn(self) -> None:
        """Note where each three letters are, if that is worth while; takes a while and may run in
        a thread beside ``extend``."""
        data, ends, generation = self._data, self._ends[: self._count], self.generation
        if self._grams is None or self._after(self._grams.count) > _QUICK:
            grams = Grams(data, ends, EDGE[0])
            if generation == self.generation:
                self._grams = grams

    def hits(self, word: bytes) -> Array:
        """For each entry whether it holds ``word``; may run in a thread beside ``extend``.

        ``EDGE`` in front of a word finds items that begin with it, on both sides equal ones.
        """
        data, ends, count = self._data, self._ends, self._count
        before = self._hits.get(word)
        if before is not None and len(before) == count:
            return before
        done = 0 if before is None else len(before)
        found = np.zeros(count, np.bool_)
        if before is not None:
            found[:done] = before
        elif (grams := self._grams) is not None:
            code, times = grams.rarest(word)
            if code >= 0 and times <= _MAYBE:
                maybe = grams.entries(code)
                found[maybe] = self.holding(maybe, (word,))
                done = grams.count
        if count > done:
            first = int(ends[done - 1]) if done else 0
            for places in self._places(data, word, first, int(ends[count - 1]) + 1):
                found[_entries(ends[:count], places)] = True
        while len(self._hits) >= CACHED:
            self._hits.popitem(last=False)
        self._hits[word] = found
        return found

    def holding(self, entries: Array, words: Sequence[bytes]) -> Array:
        """For each of some entries whether it holds one of ``words``; quick for a few thousand."""
        data, starts, lengths = self.bounds(entries)
        ends = np.cumsum(lengths + 1)
        total = int(ends[-1]) if len(ends) else 0
        # each text with the edge before it
        moved = np.repeat(starts - 1 - (ends - lengths - 1), lengths + 1) + np.arange(total)
        kept = np.concatenate((data[moved], np.frombuffer(EDGE, np.uint8)))
        found = np.zeros(len(entries), np.bool_)
        for word in words:
            for places in self._places(kept, word, 0, len(kept)):
                found[np.searchsorted(ends, places, "right")] = True
        return found

    def _places(self, data: Array, word: bytes, first: int, last: int) -> Iterator[Array]:
        """Where ``word`` begins in ``data[first:last]``, block by block.

        All places are asked for the word's two rarest letters only; for the rest, those that have
        both.
        """
        rarest = sorted(range(len(word)), key=lambda place: self._frequency()[word[place]])
        for start in range(first, last - len(word) + 1, _BLOCK):
            length = min(_BLOCK, last - len(word) + 1 - start)
            mask = np.ones(length, np.bool_)
            for place in rarest[:2]:
                mask &= data[start + place : start + place + length] == word[place]
            places = start + np.flatnonzero(mask)
            for place in rarest[2:]:
                if not len(places):
                    break
                places = places[data[places + place] == word[place]]
            if len(places):
                yield places

    def _frequency(self) -> Array:
        if self._used > 2 * self._counted:
            self._common = np.bincount(self._data[: min(self._used, _QUICK)], minlength=256)
            self._counted = self._used
        return self._common

    def drop(self, count: int = 1) -> None:
        """Note that so many entries are used no more."""
        self._dropped += count

    @property
    def wasteful(self) -> bool:
        """Whether most entries are used no more."""
        return self._dropped > max(_SPARE, self._count // 2)

    def compact(self, entries: Array) -> None:
        """Keep only these entries, which are numbered anew in the order given."""
        starts = np.concatenate(([0], self._ends[: self._count]))[entries]
        lengths = self._ends[entries] - starts
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        moved = np.repeat(starts - (ends - lengths), lengths) + np.arange(total)
        kept = self._data[moved]
        self._data = np.concatenate((kept, np.frombuffer(EDGE, np.uint8)))
        self._used = len(self._data) if len(entries) else 0
        self._ends = np.zeros(max(64, len(entries)), np.int64)
        self._ends[: len(entries)] = ends
        self._count, self._dropped = len(entries), 0
        self._hits = OrderedDict()
        self._grams = None
        self.generation += 1


def _entries(ends: Array, places: Array) -> Array:
    """The entry that each of some places, in order, lies in."""
    first, last = int(places[0]), int(places[-1])
    if last - first > _DENSE * len(places):
        return np.searchsorted(ends, places, "right")
    lowest, highest = np.searchsorted(ends, (first, last), "right").tolist()
    begins = np.zeros(last - first + 1, np.int32)
    begins[0] = lowest
    begins[ends[lowest:highest] - first] = 1
    entries: Array = np.cumsum(begins)[places - first]
    return entries


def _room(array: Array, length: int) -> Array:
    if length <= len(array):
        return array
    made = np.zeros(max(length, 2 * len(array)), array.dtype)
    made[: len(array)] = array
    return made
