"""Where each three letters come in a million texts, so that a rare word is found by a few of them.

Made at once from all texts, in a second of a thread's time and four bytes a letter, and thrown
away when it has got old. Texts that came later are gone through as they are.
"""

from __future__ import annotations

import numpy as np

from computeswarm.market.columns import Array

LETTERS = 3
_CODES = 2**16


class Grams:
    """Entries by the codes of their three-letter parts; different parts may share a code."""

    def __init__(self, data: Array, ends: Array, edge: int) -> None:
        """``data`` holds texts with an ``edge`` before each and after the last, at ``ends``."""
        self.count = len(ends)
        self._edge = bytes((edge,))
        used = int(ends[-1]) if self.count else 0
        data = data[:used]
        codes = _codes(data)
        whole = data != edge
        inside = np.flatnonzero(whole[:-2] & whole[1:-1] & whole[2:])
        codes = codes[inside]
        order = np.argsort(codes, kind="stable")  # by digits, since codes have sixteen bits
        begins = np.zeros(used, np.int32)
        begins[ends[:-1]] = 1
        self._entries = np.cumsum(begins, dtype=np.int32)[inside[order]]
        self._starts = np.concatenate(([0], np.cumsum(np.bincount(codes, minlength=_CODES))))

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return int(self._entries.nbytes + self._starts.nbytes)

    def rarest(self, word: bytes) -> tuple[int, int]:
        """The code of the rarest part of ``word`` and how often it comes; -1 where the word is too
        short to have one."""
        word = word.strip(self._edge)
        if len(word) < LETTERS:
            return -1, 0
        codes = _codes(np.frombuffer(word, np.uint8)).astype(np.int64)
        times = self._starts[codes + 1] - self._starts[codes]
        place = int(np.argmin(times))
        return int(codes[place]), int(times[place])

    def entries(self, code: int) -> Array:
        """Entries with a part of that code, each once."""
        found = self._entries[self._starts[code] : self._starts[code + 1]]
        # the parts of a text stand together, since all were noted in the order of the texts
        return found[np.r_[True, found[1:] != found[:-1]]] if len(found) else found


def _codes(data: Array) -> Array:
    """The code of the three letters from each place on, but for the last two."""
    wide = data.astype(np.uint16)
    return (wide[:-2] * 7 + wide[1:-1] * 1_031 + wide[2:] * 33_797).astype(np.uint16)
