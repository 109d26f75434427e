"""``nodes`` as a person types it: mistakes are pointed at, and what was asked for is shown."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from buying_world import World, world

from computeswarm.cli.querying import asked_columns, facet_tables, pointed_at
from computeswarm.core.errors import InvalidQuery
from computeswarm.core.pages import FacetCount, Facets
from computeswarm.core.query import parse


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path, wallet=False) as made:
        yield made


async def test_what_was_asked_for_is_shown(there: World) -> None:
    plain = (await there.cli("nodes")).out.decode()
    assert "CORES" not in plain
    asked = await there.cli("nodes", "cores>=2", "--sort=-uptime", "--", "-region:us")
    assert asked.code == 0
    head, row = asked.out.decode().splitlines()
    assert head.split()[-2:] == ["CORES", "UPTIME"]
    assert row.split()[-3:] == ["2", "100.0", "%"]
    document = json.loads((await there.cli("nodes", "--json")).out)
    assert (document["total"], document["total_exact"], document["rejected"]) == (1, True, 0)


async def test_a_mistake_is_pointed_at(there: World) -> None:
    there.env["COMPUTESWARM_MARKET"] = "http://127.0.0.1:9"  # nobody is asked
    for args, wrong in (
        (("nodes", "gpu:4090", "vrma>=24"), "  gpu:4090 vrma>=24\n           ^^^^\n"),
        (("nodes", "--sort", "prize"), "  prize\n  ^^^^^\n"),
        (("run", "job.py", "--yes", "--gpu", "a price<x"), "  a price<x\n          ^\n"),
    ):
        ended = await there.cli(*args)
        assert ended.code == 125
        assert ended.err.startswith(wrong)
        assert not ended.out
    problem = json.loads((await there.cli("nodes", "x vrma>1", "--json")).out)["error"]
    assert (problem["code"], problem["position"], problem["length"]) == ("invalid_query", 2, 4)
    dashed = await there.cli("nodes", "-region:us")
    assert dashed.code == 125
    assert "not region:cn" in dashed.err


async def test_what_is_for_rent_is_counted(there: World) -> None:
    counts = (await there.cli("nodes", "--facets")).out.decode()
    assert counts.startswith("1 node is for rent.")
    assert [line.split() for line in counts.splitlines() if line.startswith("namespace")] == [
        ["namespace", "1"]
    ]
    document = json.loads((await there.cli("nodes", "gpu", "--facets", "--json")).out)
    assert document["total"] == 0
    document = json.loads((await there.cli("nodes", "cpu", "--facets", "--json")).out)
    assert (document["total"], document["status"]) == (1, [{"value": "idle", "nodes": 1}])


async def test_help_has_all_fields(there: World) -> None:
    text = (await there.cli("nodes", "--help")).out.decode()
    assert "tflops>=150" in text
    assert "uptime>=99%" in text


def test_pointing_keeps_its_place_below_odd_text() -> None:
    text = "名前\x1b[31m x vrma>1 y"
    with pytest.raises(InvalidQuery) as caught:
        parse(text)
    line, mark = pointed_at(text, caught.value)
    assert "\x1b" not in line
    assert line.index("vrma") == mark.index("^") - 2  # two letters take two cells each
    assert mark.count("^") == 4
    assert pointed_at("x", InvalidQuery("no place")) == []


def test_counts_have_few_rows() -> None:
    many = tuple(FacetCount(value=f"r{n}\x1b[2J", nodes=100 - n) for n in range(25))
    region, network = facet_tables(
        Facets(total=7, region=many, network=(FacetCount(value="yes", nodes=7),))
    )
    assert region[0] == ("REGION", ">NODES")
    assert region[1][0] == ("r0", "100")
    assert region[1][20:] == [("(5 more)", "390")]
    assert network == (("INTERNET", ">NODES"), [("yes", "7")])


def test_only_what_is_not_there_anyway_gets_a_column() -> None:
    query = parse("gpu:4090 -cuda<12 driver>=550 driver<600 online", sort="value")
    assert asked_columns(query) == ("cuda", "driver", "value")


async def test_anybody_can_check_a_page_of_records_without_the_market(
    there: World, tmp_path: Path
) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{there.market}/api/v1/nodes") as reply,
    ):
        page = await reply.json()
    path = tmp_path / "page.json"
    path.write_text(json.dumps(page))
    ended = await there.cli("nodes", "--verify", str(path), "--market", "http://127.0.0.1:9")
    assert ended.code == 0 and there.seller.key.address in ended.out.decode(), ended.err
    page["nodes"][0]["record"]["document"]["price_per_hour"] = 1
    path.write_text(json.dumps(page))
    ended = await there.cli("nodes", "--verify", str(path), "--json")
    (verdict,) = json.loads(ended.out)["verified"]
    assert (ended.code, verdict["signed"]) == (1, False)
    for wrong in (str(tmp_path / "none.json"), __file__):
        ended = await there.cli("nodes", "--verify", wrong)
        assert ended.code == 125 and "Traceback" not in ended.err
