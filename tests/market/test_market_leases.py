from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from market_fixtures import START, Seller

from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import BadRequest
from computeswarm.core.nodes import HeartbeatReply
from computeswarm.market.facts import pack
from computeswarm.market.heartbeats import read_heartbeat
from computeswarm.market.leases import BRAKE_SECONDS, Leases, Pace
from computeswarm.market.rows import Lease, NodeRow
from computeswarm.market.table import NodeTable

OFFLINE = 3
_template = Seller(None, key=PrivateKey(bytes(31) + b"\x07"))  # type: ignore[arg-type]
_RECORD = _template.record()
_FACTS, _WORDS = pack(_RECORD.node_id, _RECORD)
_SIGNED = _template.signed().model_dump_json().encode()


def row(number: int, *, lease_until: float = START + 90, **lease: Any) -> NodeRow:
    held = Lease(lease_until=lease_until, **{"last_seen": float(START), **lease})
    return NodeRow(
        node_id=f"nd-{number:012x}",
        wallet=_RECORD.wallet,
        record=_SIGNED,
        facts=_FACTS,
        words=_WORDS,
        seq=1,
        session_key=b"k" * 32,
        session_until=START + 86_400,
        registered_at=START - 1_000,
        lease=held,
        number=number,
    )


def fleet(count: int) -> NodeTable:
    table = NodeTable()
    table.put_many([row(number) for number in range(1, count + 1)])
    return table


def beat(table: NodeTable, slots: Iterator[int] | range, now: float) -> None:
    for slot in slots:
        counter = table.hot.counter[slot] + 1
        until = now + 90
        table.beat(slot, counter=counter, now=now, lease_until=until, status=0, queued=0, running=0)


@pytest.mark.parametrize(
    ("nodes", "seconds"), [(0, 30), (990_000, 30), (1_000_000, 31), (3_300_000, 100)]
)
def test_a_larger_fleet_is_told_to_beat_less_often(nodes: int, seconds: int) -> None:
    pace = Pace()
    pace.follow(nodes)
    assert (pace.interval_seconds, pace.lease_seconds) == (seconds, 3 * seconds)
    told = [HeartbeatReply.model_validate_json(reply) for reply, _ in pace.replies]
    assert min(t.heartbeat_seconds for t in told) == round(0.9 * seconds)
    assert max(t.heartbeat_seconds for t in told) == round(1.1 * seconds)
    for reply, (_, lease) in zip(told, pace.replies, strict=True):
        assert reply.lease_seconds == lease == 3 * reply.heartbeat_seconds


def test_nodes_that_beat_together_are_told_different_times() -> None:
    pace = Pace()
    assert len({pace.told(slot, 7) for slot in range(100)}) > 5
    assert len({pace.told(3, counter) for counter in range(100)}) > 5


def test_who_goes_offline_is_found_once() -> None:
    leases = Leases(table := fleet(10))
    leases.begin(START)
    assert list(leases.look(START + 89)) == []
    beat(table, range(3), START + 89)
    assert list(leases.look(START + 90)) == list(range(3, 10))
    assert list(leases.look(START + 91)) == []
    assert (leases.online, leases.expired) == (3, 7)


def test_too_many_at_once_are_not_believed_until_they_come_back() -> None:
    leases = Leases(table := fleet(100))
    leases.begin(START)
    beat(table, range(80), START + 60)
    assert list(leases.look(START + 91)) == []
    assert (leases.braked, leases.held, leases.online) == (True, 20, 100)
    beat(table, range(80), START + 120)
    beat(table, range(80, 90), START + 120)  # half of them were only cut off
    assert sorted(leases.look(START + 121)) == list(range(90, 100))
    assert (leases.braked, leases.held, leases.online) == (False, 0, 90)


def test_the_brake_does_not_wait_for_the_first_to_go() -> None:
    """As the market's own network fails, leases end one after the other; nobody is delisted."""
    table = NodeTable()
    table.put_many(
        [row(n, lease_until=START + 60 + n * 0.3, last_seen=START - 30 + n * 0.3)
         for n in range(1, 101)]
    )  # fmt: skip
    leases = Leases(table)
    leases.begin(START)
    for second in range(150):
        assert list(leases.look(START + second)) == []
    assert (leases.held, leases.expired) == (100, 0)


def test_the_brake_ends_by_itself() -> None:
    leases = Leases(table := fleet(100))
    leases.begin(START)
    now, gone = START + 91.0, 0
    while now < START + 91 + BRAKE_SECONDS + 30:
        beat(table, range(80), now)
        gone += len(leases.look(now))
        assert gone == (0 if now < START + 91 + BRAKE_SECONDS else 20)
        now += 10
    assert not leases.braked


def test_a_few_nodes_or_a_small_share_just_go() -> None:
    for count, staying in ((19, 0), (100, 86)):
        leases = Leases(table := fleet(count))
        leases.begin(START)
        beat(table, range(staying), START + 60)
        assert len(leases.look(START + 91)) == count - staying


def test_one_who_knows_that_he_can_not_hear_delists_nobody() -> None:
    leases = Leases(fleet(1))
    leases.begin(START)
    assert list(leases.look(START + 91, blind=True)) == []
    assert list(leases.look(START + 92)) == [0]


def test_a_market_that_was_down_for_an_hour_gives_everybody_two_beats() -> None:
    table = NodeTable()
    rows = [row(n) for n in range(1, 41)]  # there when it went down
    rows += [row(n, lease_until=START - 1.0, last_seen=START - 91.0) for n in range(41, 51)]
    table.put_many(rows)
    back = START + 3_600
    leases = Leases(table)
    leases.begin(back)
    assert leases.online == 40
    assert (table.columns.status[:50] == OFFLINE).sum() == 10
    beat(table, range(36), back + 59)
    assert list(leases.look(back + 59)) == []
    assert list(leases.look(back + 61)) == [36, 37, 38, 39]
    # the hour was not covered: 1,000 s before, the lease of 90 s, and 59 s after
    assert table.hot.alive_seconds[0] == pytest.approx(90 + 59)


def test_one_that_joins_others_gives_nobody_a_longer_lease() -> None:
    table = NodeTable()
    table.put_many([row(1, last_seen=START + 88.0, lease_until=START + 178), row(2)])
    leases = Leases(table)
    leases.begin(START + 89)
    assert leases.online == 2
    assert list(leases.look(START + 90)) == [1]


@pytest.mark.parametrize(("back", "braked"), [(28, False), (20, False), (19, True), (0, True)])
def test_who_went_while_the_market_was_down_is_not_shown_for_long(back: int, braked: bool) -> None:
    leases = Leases(table := fleet(40))
    leases.begin(START + 3_600)
    beat(table, range(back), START + 3_630)
    gone = leases.look(START + 3_661)
    assert (leases.braked, len(gone)) == (braked, 0 if braked else 40 - back)
    beat(table, range(back), START + 3_690)
    if back:
        # the rest of the brake is as ever: silence of those who were here
        later = START + 3_690 + 91
        assert len(leases.look(later)) == 0 and leases.braked


def test_a_late_lease_of_an_old_registration_does_not_count() -> None:
    table = fleet(1)
    late = table.lease_rows(np.array([0]))
    late["counter"], late["last_seen"], late["seq"] = 500, START + 50, 0
    assert len(table.apply(late)) == 0
    assert table.hot.counter[0] == 0
    late["seq"] = 1
    assert list(table.apply(late)) == [0]
    assert table.hot.counter[0] == 500


def test_a_heartbeat_reads_as_its_model_does() -> None:
    assert read_heartbeat(b'{"status":"busy","queued":3,"running":1,"more":[1]}') == (1, 3, 1)
    assert read_heartbeat(b'{"status":"draining"}') == (2, 0, 0)
    for body in (
        b"", b"[]", b'{"status":"offline"}', b'{"status":"idle","queued":-1}', b"\xff",
        b"[" * 9_999, b'{"status":"idle","running":1000001}',
        b'{"status":"idle","utilization_pct":101}',
    ):  # fmt: skip
        with pytest.raises(BadRequest):
            read_heartbeat(body)
