"""``nodes --watch`` and ``jobs --history``, as a person and as a program run them."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from buying_world import World, world

from computeswarm.core.crypto import PrivateKey
from computeswarm.core.ids import new_job_id
from computeswarm.core.jobs import SUBMISSION_KIND, JobSubmission
from computeswarm.core.nodes import RECORD_KIND
from computeswarm.core.sessions import enrol
from computeswarm.core.signing import Signed

CHAIN_ID = 84532


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def post(there: World, path: str, body: dict[str, Any]) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.post(there.market + path, json=body) as reply,
    ):
        assert reply.status == 201, await reply.text()


async def list_another(there: World, name: str, price: int, seq: int = 1) -> str:
    key = PrivateKey(bytes(31) + b"\x0b")
    record = there.seller.node.info.model_copy(
        update={
            "wallet": key.address,
            "name": name,
            "price_per_hour": price,
            "seq": seq,
            "issued_at": int(time.time()),
        }
    )
    signed = Signed.make(key, RECORD_KIND, CHAIN_ID, record)
    enrolment, _ = enrol(key, signed, there.market, time.time())
    await post(there, "/api/v1/nodes/register", enrolment.model_dump(mode="json"))
    return str(record.node_id)


async def test_a_program_gets_a_snapshot_and_then_each_change(there: World) -> None:
    process = await there.start("nodes", "price<9", "--watch", "--json")
    assert process.stdout is not None

    async def line() -> dict[str, Any]:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            document: dict[str, Any] = json.loads(await process.stdout.readline())
        return document

    assert (await line())["type"] == "link"
    snapshot = await line()
    assert (snapshot["type"], len(snapshot["nodes"]), snapshot["total"]) == ("snapshot", 1, 1)
    node_id = await list_another(there, "other", 700_000)
    listed = await line()
    assert (listed["type"], listed["node"]["node_id"]) == ("listed", node_id)
    assert listed["node"]["record"]["price_per_hour"] == 700_000
    await list_another(there, "other", 9_000_000, seq=2)
    assert await line() == {"type": "hidden", "node_id": node_id}
    await there.interrupt(process)
    async with asyncio.timeout(60):
        _, err = await process.communicate()
    assert process.returncode == 130
    assert b"Traceback" not in err


async def test_a_list_on_a_terminal_is_drawn_anew(there: World) -> None:
    master, slave = pty.openpty()
    process = await there.start("nodes", "--watch", stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    loop = asyncio.get_running_loop()
    seen = b""

    async def until(text: bytes) -> None:
        nonlocal seen
        async with asyncio.timeout(60):
            while text not in seen:
                seen += await loop.run_in_executor(None, os.read, master, 65_536)

    await until("1 nodes · live".encode())
    node_id = await list_another(there, "other", 700_000)
    await until("2 nodes · live".encode())
    await until(node_id.encode())
    await there.interrupt(process)
    async with asyncio.timeout(60):
        await process.wait()
    os.close(master)
    assert process.returncode == 130


async def test_lines_go_where_no_terminal_is(there: World) -> None:
    process = await there.start("nodes", "--watch")
    assert process.stdout is not None
    async with asyncio.timeout(60):
        while b"NODE" not in await process.stdout.readline():
            pass
        await process.stdout.readline()
        node_id = await list_another(there, "other", 700_000)
        line = (await process.stdout.readline()).decode()
    assert "listed" in line
    assert node_id in line
    await there.interrupt(process)
    async with asyncio.timeout(60):
        await process.communicate()


async def test_a_wrong_query_is_no_stream(there: World) -> None:
    ended = await there.cli("nodes", "vrma>=24", "--watch")
    assert ended.code == 125
    ended = await there.cli("nodes", "--watch", "--facets")
    assert (ended.code, ended.out) == (125, b"")


async def test_the_history_is_read_from_the_market(there: World) -> None:
    empty = await there.cli("jobs", "--history")
    assert (empty.code, empty.out) == (0, b"The market knows of no job of this wallet.\n")
    job = JobSubmission(
        job_id=new_job_id(),
        node_id=there.seller.node.node_id,
        buyer=there.key.address,
        spec_hash="0x" + "ab" * 32,
        price_per_hour=5,
        max_seconds=60,
        issued_at=int(time.time()),
    )
    signed = Signed.make(there.key, SUBMISSION_KIND, CHAIN_ID, job)
    await post(there, "/api/v1/jobs/submit", signed.model_dump(mode="json"))
    listed = (await there.cli("jobs", "--history")).out.decode().splitlines()
    assert listed[1].split()[:4] == [job.job_id[:12], "bought", job.node_id, "created"]
    document = json.loads((await there.cli("jobs", "--history", "--json")).out)
    assert document["wallet"] == there.key.address
    assert [one["job_id"] for one in document["jobs"]] == [job.job_id]
    wrong = await there.cli("jobs", "--history", "job-1")
    assert wrong.code == 125
