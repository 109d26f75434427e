"""Distinct texts, each kept once however many nodes share it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from computeswarm.core.query import squeeze
from computeswarm.market.columns import Array
from computeswarm.market.facts import ITEMS
from computeswarm.market.texts import EDGE, Texts

_ITEM = ITEMS.encode()


class Dictionary:
    """Numbers for what sellers write where many write the same, such as a GPU's model."""

    def __init__(self, order: Callable[[str], str]) -> None:
        """``order`` gives the text that a list is sorted by."""
        self.texts = Texts()
        self._order = order
        self._entries: dict[str, int] = {}
        self._labels: list[str] = []
        self._users: list[int] = []

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def labels(self) -> Sequence[str]:
        """All of them by entry. It grows only, until ``compact`` makes another: a thread that has a
        copy of a column may go on with it."""
        return self._labels

    def label(self, entry: int) -> str:
        """What the seller wrote, its items parted by ``facts.ITEMS``."""
        return self._labels[entry]

    def ranks(self) -> tuple[Array, list[str]]:
        """The place of each entry in the order of the list, and the texts at these places."""
        keys = [self._order(label) for label in self._labels]
        texts = sorted(set(keys))
        place = {text: rank for rank, text in enumerate(texts)}
        return np.array([place[key] for key in keys], np.int64), texts

    def sort_text(self, entry: int) -> str:
        """What a list is sorted by."""
        return self._order(self._labels[entry])

    def add(self, label: str, users: int = 1) -> int:
        """The entry of a text, which so many more nodes use now."""
        entry = self._entries.get(label)
        if entry is None:
            squeezed = ITEMS.join(squeeze(item) for item in label.split(ITEMS))
            text = squeezed.encode("utf-8", "surrogatepass").replace(_ITEM, EDGE)
            entry = self.texts.extend([text])[0]
            self._entries[label] = entry
            self._labels.append(label)
            self._users.append(0)
        self._users[entry] += users
        return entry

    def drop(self, entry: int) -> None:
        """One node uses it no more."""
        self._users[entry] -= 1
        if not self._users[entry]:
            del self._entries[self._labels[entry]]
            self.texts.drop()

    def compact(self, column: Array) -> None:
        """Forget entries nobody uses and number the others anew, in ``column`` too."""
        kept = np.flatnonzero(np.array(self._users, np.int64))
        self.texts.compact(kept)
        number = np.zeros(len(self._users), np.int32)
        number[kept] = np.arange(len(kept), dtype=np.int32)
        column[:] = number[column]
        self._labels = [self._labels[entry] for entry in kept.tolist()]
        self._users = [self._users[entry] for entry in kept.tolist()]
        self._entries = {label: entry for entry, label in enumerate(self._labels)}
