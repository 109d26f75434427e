from __future__ import annotations

import itertools
import json

import pytest
from market_fixtures import CHAIN_ID, START, FakeClock, MarketClient, Seller

from computeswarm.core.crypto import PrivateKey
from computeswarm.core.nodes import RECORD_KIND, ComputeNode, NodeRecord, Registration
from computeswarm.core.signing import Signed


async def test_a_registered_node_is_listed_with_its_signed_record(
    client: MarketClient, seller: Seller
) -> None:
    reply = await client.get("/api/v1/nodes")
    assert reply.json["total"] == 1
    assert reply.json["next"] is None
    node = ComputeNode.model_validate(reply.json["nodes"][0])
    assert node.info.wallet == seller.key.address
    assert (await client.get(f"/api/v1/nodes/{node.node_id}")).json == reply.json["nodes"][0]


async def test_only_the_wallet_itself_registers_and_only_forward(
    client: MarketClient, seller: Seller
) -> None:
    stolen = Signed.make(PrivateKey.generate(), RECORD_KIND, CHAIN_ID, seller.record())
    assert (await seller.register(seller.enrolment(stolen))).status == 401
    enrolment = seller.enrolment()
    assert (await seller.register(enrolment)).status == 201
    again = await seller.register(enrolment)
    assert (again.status, again.json["code"]) == (409, "conflict")
    assert again.json["seq"] == enrolment.record.document["seq"]


@pytest.mark.parametrize("age", [-3_600, 2 * 86_400])
async def test_a_record_of_another_day_or_chain_is_refused(
    client: MarketClient, seller: Seller, age: int
) -> None:
    assert (await seller.register(issued_at=START - age)).status == 422
    foreign = Signed.make(seller.key, RECORD_KIND, 8453, seller.record())
    assert (await seller.register(seller.enrolment(foreign))).status == 422


async def test_a_new_registration_ends_the_old_session(seller: Seller) -> None:
    old = seller.session_key
    assert (await seller.register()).status == 201
    assert (await seller.beat(session_key=old)).status == 401
    assert (await seller.beat()).status == 200


async def test_a_heartbeat_shows_and_can_not_be_replayed(
    client: MarketClient, seller: Seller
) -> None:
    assert (await seller.beat("busy", counter=5)).status == 200
    (node,) = (await client.get("/api/v1/nodes", params={"q": "busy"})).json["nodes"]
    assert node["running"] == 1
    assert (await seller.beat("idle", counter=5)).status == 401
    assert (await seller.beat("idle", counter=4)).status == 401
    assert await client.ids("busy") == [seller.node_id]
    assert (await seller.beat("idle", counter=6)).status == 200
    assert await client.ids("busy") == []


async def test_nobody_beats_for_another_node(client: MarketClient, seller: Seller) -> None:
    other = Seller(client, name="other")
    assert (await other.register()).status == 201
    path, body = f"/api/v1/nodes/{seller.node_id}/heartbeat", b'{"status":"idle"}'
    for node in (other.node_id, seller.node_id):
        assert (await other.call("POST", path, body, node=node)).status == 401
    assert (await client.call("POST", path, data=body)).status == 401
    made = seller.auth("POST", path, body)
    assert (await client.call("POST", path, data=body + b" ", headers=made)).status == 401


@pytest.mark.parametrize("counter", ["", "x", "-1", "²", "9" * 5_000, "1.0"])
async def test_a_strange_counter_is_refused(
    client: MarketClient, seller: Seller, counter: str
) -> None:
    path, body = f"/api/v1/nodes/{seller.node_id}/heartbeat", b'{"status":"idle"}'
    made = seller.auth("POST", path, body) | {"ComputeSwarm-Counter": counter}
    assert (await client.call("POST", path, data=body, headers=made)).status == 401


async def test_a_node_goes_offline_with_its_lease_and_comes_back(
    client: MarketClient, seller: Seller, clock: FakeClock
) -> None:
    clock.time += 89
    assert await client.ids() == [seller.node_id]
    clock.time += 1
    assert await client.ids() == []
    assert await client.ids("offline") == [seller.node_id]
    node = (await client.get(f"/api/v1/nodes/{seller.node_id}")).json
    assert node["status"] == "offline"
    assert (await client.get("/x402.json")).json["items"] == []
    clock.time += 90
    assert (await seller.beat()).status == 200
    assert await client.ids() == [seller.node_id]
    node = (await client.get(f"/api/v1/nodes/{seller.node_id}")).json
    assert node["uptime_permille"] == 500


async def test_a_node_that_left_is_gone_and_its_old_record_stays_dead(
    client: MarketClient, seller: Seller
) -> None:
    old = seller.enrolment()
    assert (await seller.register()).status == 201
    assert (await seller.leave()).status == 204
    assert await client.ids("offline") == []
    reply = await client.get(f"/api/v1/nodes/{seller.node_id}")
    assert (reply.status, reply.json["code"]) == (404, "node_not_found")
    assert (await seller.beat()).status == 404
    assert (await seller.register(old)).status == 409
    assert (await seller.register()).status == 201
    assert await client.ids() == [seller.node_id]


async def test_the_plain_parameters_of_the_original_protocol(
    client: MarketClient, seller: Seller
) -> None:
    async def count(**parameters: str) -> int:
        return int((await client.get("/api/v1/nodes", params=parameters)).json["total"])

    assert await count(gpu_type="RTX 4090", min_vram_gb="24", max_price="0.36") == 1
    assert await count(gpu_type="A100") == 0
    assert await count(min_vram_gb="25") == 0
    assert await count(max_price="0.35") == 0
    assert await count(available="true") == 1
    await seller.beat("busy")
    assert await count(available="true") == 0
    assert (await client.get("/api/v1/nodes", params={"max_price": "low"})).status == 400


async def test_a_query_error_points_at_the_word(client: MarketClient) -> None:
    reply = await client.get("/api/v1/nodes", params={"q": "gpu vram>=lots"})
    assert (reply.status, reply.json["code"]) == (400, "invalid_query")
    assert (reply.json["position"], reply.json["word"]) == (10, "lots")


async def test_two_queries_that_only_look_alike_are_kept_apart(
    client: MarketClient, seller: Seller
) -> None:
    assert (await client.get("/api/v1/nodes?q=rig&limit=1")).status == 200
    assert (await client.get("/api/v1/nodes?q=rig%26limit=1")).json["total"] == 0


async def test_an_unchanged_list_is_not_sent_twice(
    client: MarketClient, seller: Seller, clock: FakeClock
) -> None:
    first = await client.get("/api/v1/nodes")
    tag = {"If-None-Match": first.headers["ETag"]}
    again = await client.get("/api/v1/nodes", headers=tag)
    assert (again.status, again.body) == (304, b"")
    await seller.beat("busy")
    changed = await client.get("/api/v1/nodes", headers=tag)
    assert changed.status == 200
    assert changed.headers["ETag"] != first.headers["ETag"]


async def test_the_manifest_is_what_x402_clients_read(client: MarketClient, seller: Seller) -> None:
    (item,) = (await client.get("/x402.json")).json["items"]
    assert item["resource"] == "http://127.0.0.1:9/execute"
    (accepted,) = item["accepts"]
    assert accepted["payTo"] == seller.key.address
    assert accepted["amount"] == "6000"  # 0.36 an hour for 60 s
    assert accepted["network"] == "eip155:84532"


async def test_discovery_lists_what_signed_records_say(
    client: MarketClient, seller: Seller
) -> None:
    async def found(**wanted: str) -> list[str]:
        answer = (await client.get("/discovery/resources", params=wanted)).json
        assert answer["pagination"]["total"] >= len(answer["items"])
        return [item["resource"] for item in answer["items"]]

    here = ["http://127.0.0.1:9/execute"]
    assert await found() == here
    payee = seller.key.address.lower()
    assert await found(type="http", payTo=payee, limit="1", network="eip155:84532") == here
    for wanted in ({"type": "mcp"}, {"offset": "1"}, {"scheme": "upto"}, {"network": "eip155:1"}):
        assert await found(**wanted) == []
    for query in ("limit=0", "limit=101", "offset=-1", "limit=x"):
        assert (await client.get(f"/discovery/resources?{query}")).status == 400


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b'{"kind":"node-record"}', 400),
        (b"[" * 50_000, 400),
        (b"x" * 65_537, 413),
        (b"\xff\xfe", 400),
    ],
)
async def test_bad_bodies_get_a_sentence(client: MarketClient, body: bytes, status: int) -> None:
    for path in ("/api/v1/nodes/register", "/api/v1/jobs/submit"):
        reply = await client.call("POST", path, data=body)
        assert reply.status == status
        assert reply.headers["Content-Type"] == "application/problem+json"
        assert reply.json["detail"]


async def test_a_bad_heartbeat_names_the_member(seller: Seller) -> None:
    path = f"/api/v1/nodes/{seller.node_id}/heartbeat"
    reply = await seller.call("POST", path, json.dumps({"status": "offline"}).encode())
    assert reply.status == 400
    assert "status" in reply.json["detail"]


async def test_every_route_is_in_the_document_and_answers(
    client: MarketClient, seller: Seller
) -> None:
    document = (await client.get("/openapi.json")).json
    listed = {f"{m.upper()} {path}" for path, item in document["paths"].items() for m in item}
    assert listed >= {
        "GET /",
        "GET /health",
        "GET /health/live",
        "GET /health/ready",
        "GET /api/v1/stats/prices",
        "GET /x402.json",
        "GET /discovery/resources",
        "GET /openapi.json",
        "GET /metrics",
        "POST /api/v1/nodes/register",
        "GET /api/v1/nodes",
        "GET /api/v1/nodes/{node_id}",
        "POST /api/v1/nodes/{node_id}/heartbeat",
        "POST /api/v1/nodes/{node_id}/revoke",
        "DELETE /api/v1/nodes/{node_id}",
        "POST /api/v1/jobs/submit",
        "GET /api/v1/jobs/{job_id}",
        "PATCH /api/v1/jobs/{job_id}",
        "GET /api/v1/stats",
    }
    refs = {word for word in json.dumps(document).split('"') if word.startswith("#/components")}
    assert {ref.rpartition("/")[2] for ref in refs} <= set(document["components"]["schemas"])
    for path in ("/", "/health", "/metrics"):
        assert (await client.get(path)).status == 200
    assert 'nodes_active{model="RTX 4090"} 1' in (await client.get("/metrics")).body.decode()


async def test_the_reply_to_a_registration_is_whole(client: MarketClient) -> None:
    reply = await Seller(client).register()
    registration = Registration.model_validate_json(reply.body)
    assert (registration.heartbeat_seconds, registration.lease_seconds) == (30, 90)
    assert reply.headers["Cache-Control"] == "no-store"


async def test_nobody_takes_an_id_by_finding_one_that_collides(
    client: MarketClient, seller: Seller, monkeypatch: pytest.MonkeyPatch
) -> None:
    thief = Seller(client, seq=itertools.count(10_000))
    wanted = seller.node_id
    monkeypatch.setattr("computeswarm.core.nodes.node_id", lambda wallet, name: wanted)
    reply = await thief.register()
    assert reply.status == 409
    assert (await seller.beat()).status == 200


async def test_a_record_too_large_for_everybody_elses_page_is_refused(client: MarketClient) -> None:
    seller = Seller(client)
    record = seller.record().model_dump(mode="json") | {"padding": "x" * 20_000}

    class Padded(NodeRecord):
        padding: str

    signed = Signed.make(seller.key, RECORD_KIND, CHAIN_ID, Padded.model_validate(record))
    assert (await seller.register(seller.enrolment(signed))).status == 413
    assert await client.ids() == []
