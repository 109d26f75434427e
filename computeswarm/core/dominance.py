"""Which offers nothing else beats: none is as cheap, as fast and as reliable, and better in one.

An offer of unknown speed is compared with nothing: neither marked nor anybody's better.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple


class Offer(NamedTuple):
    """What is compared of an offer; integers, so that equal is equal."""

    price: int
    """Atoms for a GPU and hour: less is better."""
    tflops: int
    """Of its fastest GPU: more is better; 0 is not known."""
    rel: int
    """Reliability in millionths: more is better."""

    def beats(self, other: Offer) -> bool:
        """Whether it is at least as good in all three, and better in one."""
        return (
            self.price <= other.price
            and self.tflops >= other.tflops
            and self.rel >= other.rel
            and self != other
        )


def dominators(offers: Sequence[Offer]) -> list[int | None]:
    """For each offer the place of one that beats it and is itself unbeaten; None for none.

    Those of unknown speed have None, too. Takes n log n.
    """
    found: list[int | None] = [None] * len(offers)
    front = _Front()
    last: Offer | None = None
    beaten_by: int | None = None
    for place in _best_first(offers):
        offer = offers[place]
        if offer != last:  # equal ones share their fate, and don't beat one another
            last, beaten_by = offer, front.better(offer)
            if beaten_by is None:
                front.add(offer, place)
        found[place] = beaten_by
    return found


def _best_first(offers: Sequence[Offer]) -> list[int]:
    """The places in an order where whoever beats an offer stands before it.

    Three stable passes over integers: none holds up others as long as one over tuples would.
    """
    places = [place for place, offer in enumerate(offers) if offer.tflops > 0]
    for column, falls in (("rel", True), ("tflops", True), ("price", False)):
        values = [getattr(offer, column) for offer in offers]
        places.sort(key=values.__getitem__, reverse=falls)
    return places


class _Front:
    """The unbeaten so far, slowest first; the faster of two is the less reliable one."""

    def __init__(self) -> None:
        self._tflops: list[int] = []
        self._rels: list[int] = []
        self._places: list[int] = []

    def better(self, offer: Offer) -> int | None:
        """The place of one that is as fast and as reliable; all in here are as cheap."""
        at = bisect_left(self._tflops, offer.tflops)
        # of all that are as fast, the slowest is the most reliable
        return self._places[at] if at < len(self._rels) and self._rels[at] >= offer.rel else None

    def add(self, offer: Offer, place: int) -> None:
        """Take one in that is unbeaten, and drop those that no longer add anything."""
        at = bisect_left(self._tflops, offer.tflops)
        end = at + 1 if at < len(self._tflops) and self._tflops[at] == offer.tflops else at
        begin = at
        while begin and self._rels[begin - 1] <= offer.rel:
            begin -= 1
        self._tflops[begin:end] = [offer.tflops]
        self._rels[begin:end] = [offer.rel]
        self._places[begin:end] = [place]
