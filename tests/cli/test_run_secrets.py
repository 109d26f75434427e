"""``run --secret`` and ``--internet`` as a person types them."""

from __future__ import annotations

import asyncio
import os
import pty
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest_asyncio
from buyer_fakes import CHAIN
from buying_world import Ended, FakeJob, World, world

from computeswarm.core.nodes import RECORD_KIND
from computeswarm.core.sealing import purpose, unseal
from computeswarm.core.sessions import enrol
from computeswarm.core.signing import Signed
from computeswarm.core.states import JobState

CANARY = "canary-on-the-command-line"


@pytest_asyncio.fixture
async def there(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


def done(job: FakeJob) -> None:
    job.state(JobState.RUNNING)
    job.end()


def opened(there: World) -> dict[str, str]:
    ((job_id, job),) = there.seller.jobs.items()
    what_for = purpose(job_id, job.request.spec.digest(), there.key.address)
    return unseal(job.request.sealed_secrets, there.seller.key, what_for)


def holds(there: World, needle: bytes) -> list[Path]:
    return [p for p in there.home.rglob("*") if p.is_file() and needle in p.read_bytes()]


async def test_secrets_come_from_the_environment_and_from_files(there: World) -> None:
    there.seller.runs = done
    there.env["HF_TOKEN"] = CANARY
    (there.folder / "key.pem").write_text("-----BEGIN\nline two\n")
    ended = await there.cli(
        "run", "job.py", "--yes", "--json", "--secret", "HF_TOKEN", "--secret", "KEY=@key.pem"
    )
    assert ended.code == 0, ended.err
    assert opened(there) == {"HF_TOKEN": CANARY, "KEY": "-----BEGIN\nline two"}
    assert "HF_TOKEN, KEY. The seller can read the secrets" in ended.err
    assert CANARY not in ended.err and CANARY.encode() not in ended.out
    assert not holds(there, CANARY.encode())


async def test_a_value_on_the_command_line_is_refused_and_not_repeated(there: World) -> None:
    cases = {
        ("--secret", f"TOKEN={CANARY}"): "export TOKEN and give --secret TOKEN",
        ("--secret", f"{CANARY}!"): "--secret takes NAME",
        ("--secret", "NOT_SET_ANYWHERE"): "NOT_SET_ANYWHERE is not set; export it",
        ("--secret", "TOKEN=@missing"): "missing can't be read",
        ("--secret", "TOKEN=@binary"): "no valid text",
        ("--secret", "TOKEN=@empty"): "TOKEN is empty",
        ("--secret", "A=@one", "--secret", "A=@one"): "given twice",
        ("--secret", "A=@one", "--env", "A=2"): "same name",
    }
    (there.folder / "binary").write_bytes(b"\xff" + CANARY.encode())
    (there.folder / "empty").write_text("")
    (there.folder / "one").write_text("1")
    ended = await asyncio.gather(*(there.cli("run", "job.py", "--yes", *args) for args in cases))
    for result, (args, words) in zip(ended, cases.items(), strict=True):
        assert result.code in (2, 125), args
        assert words in result.err, (args, result.err)
        assert CANARY not in result.err
    assert not there.seller.presented


async def test_on_a_terminal_what_is_not_set_is_asked_for_and_not_echoed(there: World) -> None:
    there.seller.runs = done
    master, slave = pty.openpty()
    process = await there.start(
        "run", "job.py", "--yes", "--secret", "TOKEN", stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    seen, sent, loop = b"", False, asyncio.get_running_loop()
    async with asyncio.timeout(60):
        while True:
            try:
                seen += (data := await loop.run_in_executor(None, os.read, master, 65536))
            except OSError:
                break
            if not data:
                break
            if not sent and b"Secret TOKEN: " in seen:
                os.write(master, CANARY.encode() + b"\n")
                sent = True
        await process.wait()
    os.close(master)
    ended = Ended(process.returncode or 0, seen, "")
    assert (ended.code, sent) == (0, True), seen
    assert CANARY.encode() not in seen
    assert opened(there) == {"TOKEN": CANARY}


async def test_the_internet_is_sought_where_it_is_offered(there: World) -> None:
    there.seller.runs = done
    ended = await there.cli("run", "job.py", "--yes", "--internet")
    assert ended.code == 125 and "with the internet" in ended.err
    there.seller.network = True
    record = there.seller.record.model_copy(update={"seq": 2})
    signed = Signed.make(there.seller.key, RECORD_KIND, CHAIN.chain_id, record)
    enrolment, _ = enrol(there.seller.key, signed, there.market, time.time())
    body = enrolment.model_dump(mode="json")
    url = f"{there.market}/api/v1/nodes/register"
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as reply:
        assert reply.status == 201, await reply.text()
    ended = await there.cli("run", "job.py", "--yes", "--internet")
    assert ended.code == 0, ended.err
    ((_, job),) = there.seller.jobs.items()
    assert job.request.spec.network
