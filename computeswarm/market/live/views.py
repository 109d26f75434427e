"""What each kind of reader is told of a batch: encoded once, however many read it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from computeswarm.core.query import Query, Term
from computeswarm.market.live.nodes import Nodes, Slots
from computeswarm.market.live.subscription import event

MAX_REMEMBERED = 256
"""Views that remember what they show, a byte a node each; further ones say more than they must."""
_SHOWN, _HIDDEN = 1, 2  # 0: nobody knows


class Documents:
    """The events of nodes as they stand now, each made once a batch."""

    def __init__(self, nodes: Nodes, now: float) -> None:
        self._nodes, self._now = nodes, now
        self._listed: dict[int, bytes] = {}
        self._pulses: dict[int, bytes] = {}
        self._hidden: dict[int, bytes] = {}

    def listed(self, slot: int) -> bytes:
        found = self._listed.get(slot)
        if found is None:
            if self._nodes.gone(slot):  # since the batch began; the next one will say so
                return b""
            node = self._nodes.listing(slot, self._now)
            found = self._listed[slot] = event("listed", b'{"type":"listed","node":%b}' % node)
        return found

    def pulse(self, slot: int) -> bytes:
        found = self._pulses.get(slot)
        if found is None:
            if self._nodes.gone(slot):
                return b""
            document = self._nodes.pulse(slot, self._now)
            name = "offline" if document.startswith(b'{"type":"offline"') else "changed"
            found = self._pulses[slot] = event(name, document)
        return found

    def hidden(self, slot: int) -> bytes:
        found = self._hidden.get(slot)
        if found is None:
            if self._nodes.gone(slot):
                return b""
            found = self._hidden[slot] = gone("hidden", self._nodes.node_id(slot))
        return found

    def forget(self) -> None:
        """Let go of what was made."""
        for made in (self._listed, self._pulses, self._hidden):
            made.clear()


def gone(kind: str, node_id: str) -> bytes:
    """The event of a node that is out of view."""
    return event(kind, b'{"type":"%b","node_id":"%b"}' % (kind.encode(), node_id.encode()))


class View:
    """What the readers of one query have been shown, so that they are told no more than they must.

    A reader that came later found the same by its search, so one memory serves all of them.
    """

    def __init__(self, query: Query, *, remembers: bool) -> None:
        self.query = query
        self.readers = 0
        self._states: npt.NDArray[np.uint8] | None = np.zeros(0, np.uint8) if remembers else None

    @property
    def remembers(self) -> bool:
        return self._states is not None

    def events(
        self, slots: Slots, full: npt.NDArray[np.bool_], nodes: Nodes, made: Documents
    ) -> Iterable[bytes]:
        """Events of slots that changed.

        Args:
            full: where more than the pulse may be new, or the node may have been out of view and
                back, or in view and out, since the batch before: a search then may have seen it.
        """
        found = nodes.matches(self.query, slots)
        if self._states is None:
            whole, pulse, hide = found, np.zeros_like(found), ~found
        else:
            known = self._known(slots)
            before = known[slots]
            whole = found & (full | (before != _SHOWN))
            pulse = found & ~whole
            hide = ~found & (full | (before != _HIDDEN))
            known[slots] = np.where(found, _SHOWN, _HIDDEN)
        yield from map(made.hidden, slots[hide].tolist())
        yield from map(made.listed, slots[whole].tolist())
        yield from map(made.pulse, slots[pulse].tolist())

    def _known(self, slots: Slots) -> npt.NDArray[np.uint8]:
        assert self._states is not None
        most = int(slots.max(initial=-1)) + 1
        if most > len(self._states):
            grown = np.zeros(max(most, 2 * len(self._states)), np.uint8)
            grown[: len(self._states)] = self._states
            self._states = grown
        return self._states


class Views:
    """The views that are read now, one for each query."""

    def __init__(self) -> None:
        self._views: dict[tuple[tuple[Term, ...], bool], View] = {}

    def enter(self, query: Query) -> View:
        """One more reader for a query."""
        view = self._views.get(key := _key(query))
        if view is None:
            remembered = sum(view.remembers for view in self._views.values())
            view = self._views[key] = View(query, remembers=remembered < MAX_REMEMBERED)
        view.readers += 1
        return view

    def leave(self, view: View) -> None:
        """One less; the last one takes the view's memory along."""
        view.readers -= 1
        if not view.readers:
            del self._views[_key(view.query)]


def _key(query: Query) -> tuple[tuple[Term, ...], bool]:
    """What two queries share that find the same, in whatever order."""
    return query.terms, query.shows_offline
