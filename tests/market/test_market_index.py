"""Columns find the very nodes, in the very order, that ``core.query`` finds one by one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from market_rows import START, make_record, make_row

from computeswarm.core.pages import Facets
from computeswarm.core.query import FIELDS, SORTABLE, Kind, parse
from computeswarm.market.index import Search, matching
from computeswarm.market.index import pages as paging
from computeswarm.market.index.masks import mask
from computeswarm.market.index.plan import plan
from computeswarm.market.rows import Lease
from computeswarm.market.table import NodeTable

LABELS = st.sampled_from(
    ["RTX 4090", "rtx-4090", "A100 80GB", "H100", "", "é4", "MI300X", "ÄÖ", "日本"]
) | st.text(max_size=8)
VERSIONS = st.sampled_from(["", "550.54.14", "550.144", "535", "CUDA 12.4", "x"])
GIB = st.sampled_from([0, 24 * 2**30, 24_564 * 2**20, 80 * 2**30, 2**60])
GPU = st.fixed_dictionaries(
    {
        "vendor": st.sampled_from(["nvidia", "amd", "apple", "other"]),
        "model": LABELS,
        "memory_bytes": GIB,
        "driver": VERSIONS,
        "runtime": VERSIONS,
        "tflops": st.sampled_from([0, 1, 165, 989]),
        "capability": st.sampled_from(["", "8.9", "9.0"]),
    }
)
RECORD = st.fixed_dictionaries(
    {
        "gpus": st.lists(GPU, max_size=3).map(tuple),
        "cpu_model": LABELS,
        "cores": st.sampled_from([1, 8, 100_000]),
        "ram": GIB,
        "disk": GIB,
        "isolation": st.sampled_from(["none", "macos", "namespace", "container", "gvisor"]),
        "price_per_hour": st.sampled_from([0, 1, 360_000, 10**15]) | st.integers(0, 9),
        "slice_seconds": st.sampled_from([1, 60, 3600]),
        "max_job_seconds": st.sampled_from([1, 600, 30 * 86400]),
        "images": st.lists(LABELS, max_size=3).map(tuple),
        "region": st.sampled_from(["", "eu-fra", "EU-ams", "us-east", "é"]) | st.text(max_size=4),
        "network": st.booleans(),
    }
)
LEASE = st.builds(
    Lease,
    counter=st.integers(0, 9),
    last_seen=st.integers(START, START + 50).map(float),
    lease_until=st.sampled_from([START + 60.0, START + 150.0]),
    alive_seconds=st.integers(0, 50).map(float),
    queued=st.integers(0, 2),
    running=st.integers(0, 2),
    status=st.integers(0, 3),
)
NOW = START + 100.0


def words(kind: str) -> st.SearchStrategy[str]:
    number = st.sampled_from(["0", "1", "0.36", "24", "64", "80", "1000000", "0.5", "12", "550.54"])
    known = FIELDS[kind]
    if known.kind is Kind.TEXT:
        text = st.sampled_from(
            ["4090", "rtx", "a100", "eu", "fra", "rig", "rig1", "nd", "0x", "0x000", "é", "0", "d1"]
        )
        return st.lists(text, min_size=1, max_size=3).map(lambda v: f"{kind}:{'|'.join(v)}")
    if known.kind is Kind.FLAG:
        return st.just(kind)
    if known.choices:
        choice = st.sampled_from(known.choices)
        if known.kind is Kind.RANK:
            return st.tuples(st.sampled_from([">=", "<", ":"]), choice).map(
                lambda v: f"{kind}{v[0]}{v[1]}"
            )
        return st.lists(choice, min_size=1, max_size=3).map(lambda v: f"{kind}:{'|'.join(v)}")
    compared = st.tuples(st.sampled_from([">=", "<=", ">", "<", ":", "!="]), number).map(
        lambda v: f"{kind}{v[0]}{v[1]}"
    )
    return compared | st.lists(number, min_size=2, max_size=3).map(
        lambda v: f"{kind}:{'|'.join(v)}"
    )


TERM = st.sampled_from(sorted(FIELDS)).flatmap(words) | st.sampled_from(
    [
        "online",
        "offline",
        "idle",
        "gpu",
        "cpu",
        "network",
        "4090",
        "rig",
        "epyc",
        "eu",
        "nd",
        "-4090",
    ]
)
NEGATED = st.tuples(st.sampled_from(["", "", "-"]), TERM).map("".join)
QUERY = st.lists(NEGATED, max_size=3).map(" ".join)
SORT = st.tuples(st.sampled_from(["", "-"]), st.sampled_from(SORTABLE)).map("".join)


def oracle(table: NodeTable, text: str, sort: str) -> list[str]:
    query = parse(text, sort=sort)
    found = []
    for slot in range(table.size):
        if not table.gone(slot):
            seen = table.facts(slot, NOW)
            if query.accepts(seen):
                found.append((query.sort_key(seen), seen.node_id))
    return [node_id for _, node_id in sorted(found)]


async def ids(
    search: Search, text: str, sort: str, *, now: float = NOW, limit: int = 7
) -> list[str]:
    found: list[str] = []
    cursor, total = "", None
    while True:
        query = parse(text, sort=sort)
        body = (await search.page(None, query, now=now, cursor=cursor, limit=limit)).body
        document = json.loads(body)
        found += [node["node_id"] for node in document["nodes"]]
        total = document["total"]
        if not (cursor := document["next"] or ""):
            assert total == len(found) or (0 < total < len(found) and not document["total_exact"])
            return found


@asynccontextmanager
async def closing_search(table: NodeTable, search: Search | None = None) -> AsyncIterator[Search]:
    search = search or Search(table)
    try:
        yield search
    finally:
        await search.close()


OPERATION = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 25), st.tuples(RECORD, LEASE)),
    st.tuples(st.just("remove"), st.integers(0, 25), st.none()),
    st.tuples(st.just("gone"), st.integers(0, 25), st.none()),
    st.tuples(st.just("beat"), st.integers(0, 25), st.integers(0, 2)),
    st.tuples(st.just("apply"), st.integers(0, 25), st.integers(0, 2)),
    st.tuples(
        st.just("count"), st.integers(0, 25), st.tuples(st.integers(0, 9), st.integers(0, 9))
    ),
    st.tuples(st.just("expire"), st.integers(0, 25), st.none()),
)


def perform(table: NodeTable, operation: tuple[str, int, Any]) -> None:
    what, number, value = operation
    record = make_record(number, **(value[0] if what == "put" else {}))
    slot = table.slot(record.node_id)
    if what == "put":
        table.put(make_row(record, number=number + 1, lease=value[1], succeeded=number % 3))
    elif slot is None:
        return
    elif what == "gone":
        table.put(make_row(record, number=number + 1, gone=True))
    elif what == "remove":
        table.remove(slot)
    elif table.gone(slot):
        return
    elif what == "beat":
        changes = {"status": value, "queued": value, "running": 1}
        table.beat(slot, counter=99, now=START + 70.0, lease_until=START + 160.0, **changes)
    elif what == "apply":
        batch = table.lease_rows([slot])
        batch["last_seen"], batch["status"], batch["queued"] = START + 80.0, value, value
        table.apply(batch)
    elif what == "count":
        table.set_counts(slot, *value)
    else:
        table.expire(np.array([slot]))


INDEX = "computeswarm.market.index"
SIZES: dict[str, dict[str, int]] = {
    "counted": {},
    "walked": {
        f"{INDEX}.search._COUNTED": 0,
        f"{INDEX}.plan._FEW": 1,
        "computeswarm.market.slots._FEW_NAMED": 1,
    },
    "apart": {
        f"{INDEX}.search._LOOP_BYTES": 0,
        f"{INDEX}.search._AT_ONCE": 0,
        f"{INDEX}.search._READ_AT_ONCE": 0,
        f"{INDEX}.search.MOST_UNREAD": 99,
        f"{INDEX}.plan._READ_AT_ONCE": 0,
        f"{INDEX}.plan._READ_FOR_FEW": 0,
        f"{INDEX}.plan._FEW": 1,
        f"{INDEX}.masks.BLOCK": 8,
        f"{INDEX}.masks._SPARSE": 2,
        "computeswarm.market.slots._FEW_NAMED": 1,
        "computeswarm.market.texts._QUICK": 8,
        "computeswarm.market.texts.CACHED": 99,
    },
}


@pytest.fixture(params=SIZES)
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A market whose matches are all counted, one too large for that, and one where all that is
    long is done in threads."""
    for name, value in SIZES[request.param].items():
        monkeypatch.setattr(name, value)
    return str(request.param)


@pytest.fixture(autouse=True)
def orders_from_the_second_node_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Orders are for lists too long to be sorted on the spot; here every list is."""
    monkeypatch.setattr(paging, "_FEW_NUMBERS", 1)
    monkeypatch.setattr(paging, "_FEW_TEXTS", 1)


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(st.tuples(RECORD, LEASE), max_size=25),
    st.lists(st.tuples(st.lists(OPERATION, max_size=6), QUERY, SORT), max_size=6),
)
def test_columns_find_what_the_language_finds(
    size: str,
    nodes: list[tuple[dict[str, Any], Lease]],
    steps: list[tuple[list[tuple[str, int, Any]], str, str]],
) -> None:
    table = NodeTable()
    search = Search(table)
    rows = [
        make_row(make_record(number, **values), number=number + 1, lease=lease)
        for number, (values, lease) in enumerate(nodes)
    ]
    if rows:
        table.put_many(rows)

    async def run() -> None:
        for turn, (operations, text, sort) in enumerate(steps):
            for operation in operations:
                perform(table, operation)
            table.refresh(NOW)
            wanted = oracle(table, text, sort)
            assert await ids(search, text, sort) == wanted
            assert table.live() == sum(not table.gone(slot) for slot in range(table.size))
            slots = np.arange(table.size)
            some = matching(table, parse(text), slots)
            assert {table.node_id(slot) for slot in slots[some].tolist()} == set(wanted)
            at = NOW + 2 * turn  # facets of a large market are a second old at most
            counted = Facets.model_validate_json(await search.facets(parse(text), now=at))
            assert counted.total == len(wanted) == sum(one.nodes for one in counted.status)

    async def run_and_close() -> None:
        async with closing_search(table, search):
            await run()

    asyncio.run(run_and_close())


CARDS = ("H100", "A100", "RTX 4090", "RTX 3060", "L4", "MI300X", "T4", "V100", "A10", "L40")


def a_hall() -> NodeTable:
    """Forty nodes, four of each card, no two at one price, some named like a card they lack."""
    table = NodeTable()
    for number in range(40):
        card = {"vendor": "nvidia", "model": CARDS[number % 10], "memory_bytes": 2**34}
        name = f"h100-{number}" if number % 10 == 7 else f"box-{number}"
        changes = {"name": name, "price_per_hour": 1_000 * (40 - number), "region": f"r{number}"}
        lease = Lease(last_seen=START, lease_until=START + 500)
        record = make_record(number, gpus=(card,), **changes)
        table.put(make_row(record, number=number + 1, lease=lease))
    return table


async def test_each_node_is_found_wherever_it_stands(size: str) -> None:
    table = a_hall()
    async with closing_search(table) as search:
        slots = np.arange(table.size)
        for number in range(40):
            price = f"price:{(40 - number) / 1000}"
            for text in (price, f"{price} gpus:1 cores:8 region:r{number}", f"r{number} {price}"):
                wanted = [table.node_id(number)]
                assert await ids(search, text, "price") == wanted
                assert slots[matching(table, parse(text), slots)].tolist() == [number]


async def test_a_card_is_walked_to_its_end_and_so_are_those_who_only_have_its_name(
    size: str,
) -> None:
    table = a_hall()
    async with closing_search(table) as search:
        for text in ("gpu:h100", "gpu:t4|l40", "h100", "h100|t4", "gpu:v100 h100", "-gpu:h100"):
            for sort in ("price", "-price", "name", "vram"):
                wanted = oracle(table, text, sort)
                assert await ids(search, text, sort, limit=3) == wanted


def test_a_plan_finds_no_text_that_came_after_it() -> None:
    """Its hits end where the texts ended when it was made, and entries beyond are not the last."""
    table = a_hall()
    made = plan(table, parse("gpu:" + "|".join(card.replace(" ", "") for card in CARDS)))
    card = {"vendor": "nvidia", "model": "B200", "memory_bytes": 2**34}
    slot = table.put(
        make_row(make_record(77, gpus=(card,)), number=78, lease=Lease(last_seen=START))
    )
    assert mask(made, table.columns, table.size)[slot - 1]
    assert not mask(made, table.columns, table.size)[slot]
