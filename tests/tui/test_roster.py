"""Pages of a long list put together, and lists ordered and filtered without the market."""

from __future__ import annotations

import random

import pytest
from tui_fake import node

from computeswarm.tui.ordering import LOCAL, only, ordered
from computeswarm.tui.roster import Ask, Roster
from computeswarm.tui.views import Gap, NodePage

NODES = tuple(node(number) for number in range(300))


def _page(begin: int, end: int, following: str) -> NodePage:
    return NodePage(NODES[begin:end], len(NODES), next=following)


def test_between_two_ends_there_is_a_gap_until_they_meet() -> None:
    roster = Roster()
    roster.take(Ask("top", 0), _page(0, 100, "100"))
    assert roster.grow("bottom")
    backwards = NodePage(NODES[:199:-1], len(NODES), next="x")
    roster.take(Ask("bottom", 0), backwards)
    roster.arrange()
    assert roster.rows == [*NODES[:100], Gap(100), *NODES[200:]]
    assert (roster.gap, roster.shown, roster.whole) == (100, 200, False)
    roster.take(Ask("top", 1, "100"), _page(100, 200, "200"))
    roster.arrange()
    assert roster.rows == list(NODES)
    assert roster.whole
    assert not roster.grow("top")


def test_a_page_behind_one_that_moved_is_fetched_again() -> None:
    roster = Roster()
    roster.take(Ask("top", 0), _page(0, 100, "100"))
    roster.take(Ask("top", 1, "100"), _page(100, 200, "200"))
    roster.arrange()
    assert roster.due(0, 20) == [Ask("top", 0)]
    roster.take(Ask("top", 0), _page(1, 101, "101"))  # the first is gone: one more moved up
    assert roster.due(0, 20) == [Ask("top", 0), Ask("top", 1, "101")]
    roster.arrange()
    assert len({row.node_id for row in roster.rows if not isinstance(row, Gap)}) == 199


@pytest.mark.parametrize("sort", sorted(LOCAL))
def test_a_local_order_is_that_of_the_key_and_stable(sort: str) -> None:
    nodes = [NODES[at] for at in random.Random(3).choices(range(300), k=20_000)]
    up, down = ordered(nodes, sort), ordered(nodes, f"-{sort}")
    assert sorted(map(id, up)) == sorted(map(id, nodes))
    # reversed twice, equal ones stand as they stood
    assert ordered(up, sort) == up
    assert ordered(down, f"-{sort}") == down
    if sort in ("price", "cost", "value"):
        assert up == sorted(nodes, key=lambda n: getattr(n, sort))
    if sort in ("rel", "tflops"):
        assert up == sorted(nodes, key=lambda n: getattr(n, sort), reverse=True)


def test_only_some_of_the_nodes_are_kept() -> None:
    wanted = {NODES[7].node_id, NODES[3].node_id, "nd-unknown"}
    assert only(NODES, wanted) == [NODES[3], NODES[7]]
