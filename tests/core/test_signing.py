from __future__ import annotations

import json

import pytest

from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import BadRequest, ComputeSwarmError, Unauthorized
from computeswarm.core.nodes import (
    RECORD_KIND,
    ComputeNode,
    Hardware,
    Isolation,
    NodeRecord,
    NodeStatus,
    node_id,
    open_record,
)
from computeswarm.core.signing import Signed, canonical_json, parse, parse_json

KEY = PrivateKey(bytes(31) + b"\x01")
OTHER = PrivateKey(bytes(31) + b"\x02")


def record(**changes: object) -> NodeRecord:
    values: dict[str, object] = {
        "wallet": KEY.address,
        "name": "rig",
        "endpoint": "http://127.0.0.1:1",
        "hardware": Hardware(cpu_model="x", cpu_cores=2, memory_bytes=1),
        "isolation": Isolation.NAMESPACE,
        "price_per_hour": 1,
        "slice_seconds": 60,
        "max_job_seconds": 60,
        "seq": 1,
        "issued_at": 1,
    }
    return NodeRecord.model_validate(values | changes)


def test_a_signed_record_survives_the_wire() -> None:
    signed = Signed.make(KEY, RECORD_KIND, 84532, record())
    again = Signed.model_validate_json(signed.model_dump_json())
    assert open_record(again) == record()
    assert again.signer() == KEY.address


def test_members_of_a_later_version_stay_under_the_signature() -> None:
    class Later(NodeRecord):
        extra_member: str = "new"

    later = Later.model_validate(record().model_dump() | {"extra_member": "new"})
    signed = Signed.make(KEY, RECORD_KIND, 84532, later)
    assert open_record(signed) == record()
    del signed.document["extra_member"]
    with pytest.raises(Unauthorized):
        open_record(signed)


@pytest.mark.parametrize("member", ["price_per_hour", "seq", "issued_at"])
def test_a_changed_member_breaks_it(member: str) -> None:
    signed = Signed.make(KEY, RECORD_KIND, 84532, record())
    signed.document[member] += 1
    with pytest.raises(Unauthorized):
        open_record(signed)


def test_another_kind_chain_or_wallet_is_refused() -> None:
    signed = Signed.make(KEY, "quote", 84532, record())
    with pytest.raises(BadRequest):
        open_record(signed)
    as_record = signed.model_copy(update={"kind": RECORD_KIND})
    with pytest.raises(Unauthorized):
        open_record(as_record)
    foreign = Signed.make(OTHER, RECORD_KIND, 84532, record())
    with pytest.raises(Unauthorized):
        open_record(foreign)
    elsewhere = Signed.make(KEY, RECORD_KIND, 84532, record())
    with pytest.raises(Unauthorized):
        open_record(elsewhere.model_copy(update={"chain_id": 8453}))


def test_the_market_can_not_list_one_node_under_anothers_id() -> None:
    signed = Signed.make(KEY, RECORD_KIND, 84532, record())
    node = ComputeNode(
        node_id=node_id(OTHER.address, "rig"),
        status=NodeStatus.IDLE,
        record=signed,
        registered_at=1,
        last_seen=1,
    )
    with pytest.raises(Unauthorized):
        _ = node.info


def test_canonical_json_is_one_spelling_without_floats() -> None:
    assert canonical_json({"b": [1, "é"], "a": None}) == '{"a":null,"b":[1,"é"]}'.encode()
    with pytest.raises(ValueError, match="floats"):
        canonical_json({"a": [{"b": 1.0}]})


def test_a_float_from_a_stranger_is_an_error_not_a_crash() -> None:
    signed = Signed.make(KEY, RECORD_KIND, 84532, record())
    signed.document["x"] = 0.5
    with pytest.raises(Unauthorized):
        signed.signer()


def test_deep_nesting_is_an_error_not_a_crash() -> None:
    raw = json.loads("[" * 500 + "]" * 500)
    signed = Signed.make(KEY, RECORD_KIND, 84532, record())
    signed.document["x"] = raw
    with pytest.raises(ComputeSwarmError):
        open_record(signed)


def test_names_are_cleaned_where_they_enter() -> None:
    assert record(name="\x1b[31mrig\u202e").name == "rig"


@pytest.mark.parametrize(
    "endpoint", ["", "ftp://x", "http://u@host", "http://h/?q", "http://h /x", "javascript:1"]
)
def test_an_endpoint_is_a_plain_http_address(endpoint: str) -> None:
    with pytest.raises(BadRequest):
        parse(NodeRecord, record().model_dump() | {"endpoint": endpoint})


def test_validation_errors_name_the_member_and_hide_the_input() -> None:
    with pytest.raises(BadRequest) as caught:
        parse_json(NodeRecord, b'{"wallet":"\x1b[31msecret"}')
    assert "secret" not in caught.value.detail
    with pytest.raises(BadRequest) as caught:
        parse(NodeRecord, record().model_dump() | {"price_per_hour": "cheap"})
    assert caught.value.detail.startswith("price_per_hour")
