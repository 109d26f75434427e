"""The seller's HTTP side against those who mean it no good."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from seller_rig import Rig, open_rig, spec

from computeswarm.chain.devnet import Devnet


@pytest_asyncio.fixture
async def rig(devnet: Devnet, tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_rig(devnet, tmp_path) as made:
        yield made


async def test_it_says_what_it_is(rig: Rig) -> None:
    index = (await rig.call("GET", "/")).json
    assert index["node_id"] == rig.agent.node_id and index["wallet"] == rig.agent.wallet
    assert (await rig.call("GET", "/health")).json["status"] == "ok"
    manifest = (await rig.call("GET", "/x402.json")).json
    assert manifest["payTo"] == rig.agent.wallet
    (item,) = manifest["items"]
    assert item["resource"] == f"{rig.url}/execute"
    assert [way["scheme"] for way in item["accepts"]] == ["exact", "batch-settlement"]
    assert {way["payTo"] for way in item["accepts"]} == {rig.agent.wallet}
    bazaar = item["extensions"]["bazaar"]
    body = bazaar["schema"]["properties"]["input"]["properties"]["body"]
    assert set(body["required"]) == {"spec"} == set(bazaar["info"]["input"]["body"])
    assert body["properties"]["spec"]["$ref"].removeprefix("#/$defs/") in bazaar["schema"]["$defs"]
    paths = (await rig.call("GET", "/openapi.json")).json["paths"]
    assert {"/quotes", "/execute", "/jobs/{id}/stream", "/owner/status"} <= set(paths)


async def test_a_job_opens_only_to_its_key(rig: Rig) -> None:
    bought = await rig.buy(spec("import time;time.sleep(60)"))
    for method, path in (
        ("GET", ""),
        ("GET", "/events"),
        ("GET", "/stream"),
        ("GET", "/outputs"),
        ("GET", "/outputs/a"),
        ("POST", "/cancel"),
        ("POST", "/payments"),
        ("PUT", f"/inputs/{'0' * 64}"),
    ):
        url = f"/jobs/{bought.job_id}{path}"
        for key in ("", "Bearer", "Bearer x", f"Bearer {'0' * 64}", f"Basic {bought.key}"):
            reply = await rig.call(method, url, headers={"Authorization": key})
            assert reply.status == 401, (url, key)
        unknown = f"/jobs/job-{'0' * 20}{path}"
        assert (await rig.call(method, unknown, headers=bought.auth)).status == 404
    assert (await bought.view()).state != "cancelled"


async def test_outputs_are_only_what_is_listed(rig: Rig) -> None:
    code = (
        "import os\nos.symlink('/etc/passwd','outputs/link')\n"
        "os.makedirs('outputs/d e')\nopen('outputs/d e/ü.bin','wb').write(bytes(range(100)))"
    )
    bought = await rig.buy(spec(code))
    early = await bought.call("GET", "/outputs")
    assert early.status in (200, 409)
    await bought.ended()
    listed = (await bought.call("GET", "/outputs")).json
    assert [file["path"] for file in listed["files"]] == ["d e/ü.bin"]
    assert "link" in listed["truncated"]
    whole = await bought.call("GET", "/outputs/d e/ü.bin")
    assert whole.body == bytes(range(100)) and whole.headers["Accept-Ranges"] == "bytes"
    for asked, body in (
        ("bytes=10-19", bytes(range(10, 20))),
        ("bytes=90-", bytes(range(90, 100))),
        ("bytes=-5", bytes(range(95, 100))),
    ):
        part = await bought.call("GET", "/outputs/d e/ü.bin", headers={"Range": asked})
        assert part.status == 206 and part.body == body
    for wrong in ("bytes=200-300", "bytes=x-y", "lines=1-2"):
        reply = await bought.call("GET", "/outputs/d e/ü.bin", headers={"Range": wrong})
        assert reply.status in (200, 400, 416)
    for path in ("link", "..%2f..%2fjobs.db", "%2fetc%2fpasswd", "d e", "%00"):
        assert (await bought.call("GET", f"/outputs/{path}")).status == 404, path


async def test_hostile_bodies_are_cut_and_explained(rig: Rig) -> None:
    for path in ("/quotes", "/execute"):
        huge = await rig.call("POST", path, data=b"[" * (11 * 2**20))
        assert huge.status == 413
        for body in (b"", b"{", b"[]", b"\xff", b'{"spec":{"command":[]}}', b"[" * 100_000):
            reply = await rig.call("POST", path, data=body)
            assert reply.status == 400, body[:20]
            assert reply.headers["Content-Type"] == "application/problem+json"
        for bad in ("../x", "/etc/passwd", "a/../../b", "a\x00b", "outputs", "x" * 500):
            file = {"path": bad, "size": 1, "sha256": "0" * 64}
            reply = await rig.call("POST", path, json={"spec": spec(inputs=[file])})
            assert reply.status in (400, 422), bad


async def test_a_stream_takes_odd_questions(rig: Rig) -> None:
    bought = await rig.buy(spec("print('x')"))
    await bought.ended()
    for since in ("-1", "x", "1e3", "9" * 40):
        assert (await bought.call("GET", f"/events?since={since}")).status == 400
        assert (await bought.call("GET", f"/stream?since={since}")).status == 400
    assert (await bought.call("GET", "/events?since=999999")).json["events"] == []
    url = f"{rig.url}/jobs/{bought.job_id}/stream?since=0&follow=0"
    async with rig.session.ws_connect(url, headers=bought.auth) as socket:
        first = await socket.receive()
        assert '"type":"end"' in first.data
        assert (await socket.receive()).type.name in ("CLOSE", "CLOSING", "CLOSED")
        assert socket.close_code == 1000
