"""Which offers nothing else beats, against the definition taken word by word."""

from __future__ import annotations

import random
import time

from hypothesis import given
from hypothesis import strategies as st

from computeswarm.core.dominance import Offer, dominators

small = st.builds(Offer, st.integers(0, 6), st.integers(0, 6), st.integers(0, 6))
wide = st.builds(Offer, st.integers(0, 10**12), st.integers(0, 2500), st.integers(0, 1_000_000))


def _beats(one: Offer, other: Offer) -> bool:
    as_good = one.price <= other.price and one.tflops >= other.tflops and one.rel >= other.rel
    better = one.price < other.price or one.tflops > other.tflops or one.rel > other.rel
    return as_good and better


@given(st.lists(small, max_size=40) | st.lists(wide, max_size=40))
def test_an_offer_is_marked_exactly_where_none_beats_it(offers: list[Offer]) -> None:
    found = dominators(offers)
    known = [offer for offer in offers if offer.tflops]
    for offer, by in zip(offers, found, strict=True):
        beaten = bool(offer.tflops) and any(_beats(other, offer) for other in known)
        assert (by is not None) == beaten
        if by is not None:
            assert _beats(offers[by], offer)
            assert found[by] is None  # whoever is named is worth going to
            assert offers[by].beats(offer)


def test_many_offers_are_told_apart_in_n_log_n() -> None:
    dice = random.Random(4)
    # all on the front: cheaper is slower or less reliable
    offers = [Offer(n, n + 1, dice.randrange(10**6)) for n in range(50_000)]
    began = time.perf_counter()
    dominators(offers)
    assert time.perf_counter() - began < 5  # pairs would take minutes
