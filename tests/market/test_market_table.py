"""Nodes as columns: what goes in comes out, newest leases win, and nothing grows without bound."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from market_rows import START, make_record, make_row

from computeswarm.core.nodes import ComputeNode, NodeStatus
from computeswarm.core.query import parse
from computeswarm.market.facts import current, pack, repack
from computeswarm.market.index import Search, matching
from computeswarm.market.rows import LEASE, Lease
from computeswarm.market.table import NodeTable

GPU = {"vendor": "nvidia", "model": "RTX 4090", "memory_bytes": 24 * 2**30}


def fill(table: NodeTable, count: int) -> None:
    table.put_many([make_row(make_record(n), number=n + 1) for n in range(count)])


def test_rows_come_out_as_they_went_in() -> None:
    table = NodeTable()
    lease = Lease(7, START + 1.0, START + 61.0, 5.0, 2, 1, 1)
    rows = [
        make_row(
            make_record(n, gpus=(GPU,) * n, images=("python", "é"), region="eu"),
            number=n + 1,
            lease=lease,
            succeeded=3,
            failed=1,
        )
        for n in range(3)
    ]
    slots = [table.put(row) for row in rows]
    assert [table.row(slot) for slot in slots] == rows
    hot = table.hot
    fill(table, 5_000)  # which moves every column
    assert table.hot is not hot
    assert table.slot_of(2) == table.slot(rows[1].node_id) == slots[1]
    assert table.model(slots[0]) == "cpu"
    assert table.live() == 5_000


def test_what_is_listed_is_a_node() -> None:
    table = NodeTable()
    slot = table.put(make_row(make_record(gpus=(GPU,)), number=1))
    listed = ComputeNode.model_validate_json(table.json(slot, START + 30.0))
    assert listed == table.listed(slot, START + 30.0)
    assert (listed.status, listed.uptime_permille) == (NodeStatus.IDLE, 1000)
    assert table.uptime(slot, START + 120.0) == 500  # the lease was over after half of it


def test_a_heartbeat_renews_and_says_what_it_changed() -> None:
    table = NodeTable()
    slot = table.put(make_row(make_record(), number=1))
    version = table.version
    beat = {"lease_until": START + 90.0, "queued": 0, "running": 0}
    assert not table.beat(slot, counter=1, now=START + 30.0, status=0, **beat)
    assert table.version == version
    assert table.beat(slot, counter=2, now=START + 40.0, status=1, **beat)
    assert table.version > version
    assert (table.hot.alive_seconds[slot], table.hot.counter[slot]) == (40.0, 2)
    assert table.expiring(START + 89.0).tolist() == []
    assert table.expiring(START + 90.0).tolist() == [slot]
    table.expire(table.expiring(START + 90.0))
    assert table.listed(slot, START + 90.0).status is NodeStatus.OFFLINE


def test_the_newest_lease_of_the_present_registration_wins() -> None:
    table = NodeTable()
    fill(table, 4)
    batch = table.lease_rows(np.arange(4))[[0, 0, 1, 2, 3, 3]]
    batch["last_seen"] = [START + 20, START + 10, START - 10, START + 5, START + 5, START + 5]
    batch["counter"] = [5, 9, 5, 5, 6, 7]
    batch["seq"] = [1, 1, 1, 2, 1, 1]  # the third node's is of another registration
    batch["queued"] = [1, 2, 3, 4, 5, 6]
    unknown = np.zeros(2, LEASE)
    unknown["number"] = 99, -1
    taken = table.apply(np.concatenate((unknown, batch)))
    assert taken.tolist() == [0, 3]
    assert table.columns.queued[:4].tolist() == [1, 0, 0, 6]
    assert table.columns.counter[:4].tolist() == [5, 0, 0, 7]
    assert table.apply(batch).tolist() == []


def test_who_left_is_known_but_found_no_more() -> None:
    table = NodeTable()
    record = make_record(7, seq=4)
    slot = table.put(make_row(record, number=3))
    table.put(make_row(record, number=3, gone=True, session_key=b""))
    assert table.slot(record.node_id) == slot
    assert table.gone(slot) and table.live() == 0
    assert (table.hot.seq[slot], table.record(slot), table.session_key(slot)) == (4, b"", b"")
    assert not matching(table, parse("offline"), np.array([slot])).any()
    assert table.apply(table.lease_rows([slot])).tolist() == []
    assert table.row(slot).gone
    table.put(make_row(record, number=3))
    assert table.live() == 1 and not table.gone(slot)
    table.remove(slot)
    assert table.slot(record.node_id) is None and table.slot_of(3) is None
    assert table.put(make_row(make_record(8), number=4)) == slot, "its place is used again"


def test_facts_of_another_version_are_reckoned_anew() -> None:
    row = make_row(make_record(price_per_hour=77))
    old = replace(row, facts=b"\xfe" + row.facts[1:], words="what it was once")
    assert current(row.facts) and not current(old.facts) and not current(b"")
    assert repack(old.node_id, old.record) == (row.facts, row.words)
    table = NodeTable()
    slot = table.put(old)
    assert table.columns.price[slot] == 77
    assert matching(table, parse("rig-0"), np.array([slot])).all()


def test_texts_of_nodes_that_changed_or_left_are_forgotten() -> None:
    table = NodeTable()
    for turn in range(6):
        records = [
            make_record(n, gpus=({**GPU, "model": f"card {turn} {n}"},), region=f"r{turn}{n}")
            for n in range(2_000)
        ]
        table.put_many([make_row(record, number=n + 1) for n, record in enumerate(records)])
    assert len(table.gpus) <= 8_000 and len(table.names) <= 8_000 and len(table.regions) <= 8_000
    for word in ("gpu:card51999", "name:rig1999", "region:r51999", "rig1999"):
        assert matching(table, parse(word), np.arange(2_000)).sum() == 1, word
    assert not matching(table, parse("gpu:card41999"), np.arange(2_000)).any()


async def test_what_strangers_write_is_taken_as_it_is() -> None:
    huge = {"vendor": "other", "model": "X" * 120, "memory_bytes": 2**60, "tflops": 10**6}
    records = [
        make_record(1, gpus=(huge,) * 64, price_per_hour=10**15, ram=2**60, disk=2**60),
        make_record(2, gpus=({**GPU, "model": "\u202e"},), region="\x1b[31m", cpu_model="\0"),
        make_record(3, name="\x1f\x1e|,\xff", images=("", "|", "\x1e")),
        make_record(4, name="a" * 120, cores=100_000),
    ]
    table = NodeTable()
    table.put_many([make_row(record, number=n + 1) for n, record in enumerate(records)])
    search = Search(table)
    for sort in ("price", "-name", "region", "-gpu", "value", "-cost"):
        page = await search.page(None, parse("", sort=sort), now=START, cursor="", limit=50)
        document = json.loads(page.body)
        assert len(document["nodes"]) == document["total"] == 4
        cursor = ""
        for _ in range(4):
            query = parse("", sort=sort)
            page = await search.page(None, query, now=START, cursor=cursor, limit=1)
            cursor = json.loads(page.body)["next"]
        assert cursor is None
    assert (await search.facets(parse("gpus:64"), now=START)).startswith(b'{"total":1,')
    await search.close()


@pytest.mark.parametrize("words", [15, 60])
async def test_a_query_of_many_words_is_answered_or_refused(
    words: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("computeswarm.market.index.plan._READ_AT_ONCE", 0)
    monkeypatch.setattr("computeswarm.market.index.search._READ_AT_ONCE", 0)
    table = NodeTable()
    fill(table, 100)
    search = Search(table)
    query = parse("name:" + "|".join(f"rig{n}" for n in range(words)))
    if words > 16:
        with pytest.raises(Exception, match="fewer"):
            await search.page(None, query, now=START, cursor="", limit=50)
    else:
        page = await search.page(None, query, now=START, cursor="", limit=200)
        wanted = sum(any(f"rig{n}" in f"rig{m}" for n in range(words)) for m in range(100))
        assert json.loads(page.body)["total"] == wanted
    await search.close()


def test_facts_are_small_and_say_what_the_language_says() -> None:
    packed, words = pack("nd-000000000000", make_record(gpus=(GPU,), region="EU-Fra"))
    assert len(packed) <= 96
    assert words.count("\x1f") == 5
