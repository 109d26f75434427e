from __future__ import annotations

import json
from typing import Any

import pytest
from node_records import node_record

from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import BadRequest
from computeswarm.core.nodes import RECORD_KIND
from computeswarm.core.records import check_records
from computeswarm.core.signing import Signed

OWNER, THIEF = PrivateKey(b"\x03" * 32), PrivateKey(b"\x07" * 32)


def signed(key: PrivateKey = OWNER, name: str = "rig") -> dict[str, Any]:
    return Signed.make(key, RECORD_KIND, 84532, node_record(OWNER.address, name)).model_dump(
        mode="json"
    )


def test_records_are_found_in_whatever_a_market_answers() -> None:
    one, node_id = signed(), node_record(OWNER.address).node_id
    node = {"node_id": node_id, "status": "idle", "record": one}
    for value in (
        one,
        node,
        [one],
        {"nodes": [node], "next": None},
        {"node": node, "market_key": ""},
        {"record": one, "session": {}},
        json.loads(json.dumps({"nodes": [{"record": one, "more": 1}]})),
    ):
        (found,) = check_records(value)
        assert (
            found.record == node_record(OWNER.address)
            and found.chain_id == 84532
            and not found.problem
        )
    empties: list[Any] = [{}, [], None, 5, "x", {"nodes": []}, [[[[[one]]]]]]
    for empty in empties:
        with pytest.raises(BadRequest, match="no signed record"):
            check_records(empty)


def test_each_lie_of_a_market_shows() -> None:
    good = signed()
    changed = json.loads(json.dumps(good))
    changed["document"]["price_per_hour"] = 1
    lies = [
        {"record": changed},
        {"record": signed(THIEF)},
        {"record": good | {"chain_id": 8453}},
        {"record": good | {"kind": "quote"}},
        {"record": good | {"signature": "0x" + "00" * 65}},
        {"record": good, "node_id": node_record(OWNER.address, "other").node_id},
        {"record": good, "node_id": "\x1b[31mnd-0"},
        {"record": None},
        {"record": {"document": {}, "signature": ""}},
    ]
    true = {"record": good, "node_id": node_record(OWNER.address).node_id}
    found = check_records({"nodes": [true, *lies, true]})
    assert [bool(one.record) for one in found] == [True] + [False] * len(lies) + [True]
    assert all(one.problem.isprintable() and one.problem for one in found[1:-1])
    assert all("\x1b" not in one.listed_as for one in found)
