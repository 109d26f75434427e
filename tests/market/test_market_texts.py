"""Words in many texts at once: the same as Python finds one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from computeswarm.market import texts as module
from computeswarm.market.index.ranks import ranks
from computeswarm.market.texts import EDGE, Texts

ITEM = st.text(alphabet="ab1é日", max_size=12)
ENTRY = st.lists(ITEM, min_size=1, max_size=3)


def encoded(entry: list[str]) -> bytes:
    return EDGE.join(item.encode() for item in entry)


def held(entry: list[str], word: bytes) -> bool:
    return word in EDGE + encoded(entry) + EDGE


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(ENTRY, max_size=20), max_size=4),
    st.lists(st.text(alphabet="ab1é日", min_size=1, max_size=4), min_size=1, max_size=5),
    st.booleans(),
    st.data(),
)
def test_words_are_found_wherever_they_are(
    batches: list[list[list[str]]], words: list[str], learns: bool, data: st.DataObject
) -> None:
    texts, entries = Texts(), []
    needles = [w.encode() for w in words]
    needles += [EDGE + needles[0], EDGE + needles[0] + EDGE]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_QUICK", 4 if learns else 10**6)
        patch.setattr(module, "_DENSE", 2)
        patch.setattr(module, "_BLOCK", 16)
        for batch in batches:
            if batch:
                entries += batch
                texts.extend([encoded(entry) for entry in batch])
            if learns:
                texts.learn()
            for needle in needles:
                wanted = [held(entry, needle) for entry in entries]
                assert texts.hits(needle).tolist() == wanted
                some = np.arange(0, len(entries), 2)
                assert texts.holding(some, (needle,)).tolist() == wanted[::2]
        assert [texts.text(n) for n in range(len(texts))] == [encoded(entry) for entry in entries]
        kept = sorted(data.draw(st.sets(st.integers(0, len(entries) - 1)))) if entries else []
        texts.compact(np.array(kept, np.int64))
        left = [entries[n] for n in kept]
        assert [texts.text(n) for n in range(len(texts))] == [encoded(entry) for entry in left]
        texts.extend([b"new"])
        assert texts.hits(needles[0]).tolist() == [*(held(e, needles[0]) for e in left), False]


@settings(deadline=None)
@given(st.lists(st.text(max_size=30) | st.text(alphabet="ab", max_size=30), max_size=30))
def test_ranks_are_the_order_of_the_characters(given_: list[str]) -> None:
    labels = [text.replace("\0", "") for text in given_]
    texts = Texts()
    if labels:
        texts.extend([text.encode("utf-8", "surrogatepass") for text in labels])
    found = ranks(*texts.bounds(np.arange(len(labels)))).tolist()
    for one, rank in zip(labels, found, strict=True):
        for other, other_rank in zip(labels, found, strict=True):
            assert (one < other) == (rank < other_rank)
