"""A job's secrets: they reach the job, and nothing else on the way there or after."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import logging
import resource
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from lone_seller import moved, seller_process
from seller_rig import Bought, Reply, Rig, open_rig, output_of, spec

from computeswarm.buyer.client import Buyer
from computeswarm.buyer.journal import Stage
from computeswarm.buyer.spec import plan_job
from computeswarm.chain.devnet import Devnet
from computeswarm.core.errors import BadRequest, PaymentPending
from computeswarm.core.jobs import ExecuteReply, JobSpec
from computeswarm.core.quotes import Quote
from computeswarm.core.sealing import public_key, purpose, seal
from computeswarm.core.settings import Paths, Settings
from computeswarm.core.states import JobState
from computeswarm.seller.executors.bubblewrap import BubblewrapExecutor
from computeswarm.seller.executors.docker import DockerExecutor
from computeswarm.server.logs import setup_logging

OpenRig = Callable[..., AbstractAsyncContextManager[Rig]]
CANARY = "canary-" + "7f3a9c" * 4
SHOW = "import os,hashlib\nprint(hashlib.sha256(os.environ['TOKEN'].encode()).hexdigest())\n"


@dataclass
class Tap:
    """Passes bytes between a client and a server, and keeps all of them."""

    port: int = 0
    target: tuple[str, int] = ("127.0.0.1", 9)
    seen: bytearray = field(default_factory=bytearray)
    answered: bool = True
    """Otherwise what the server answers is lost."""

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def copy(source: asyncio.StreamReader, to: asyncio.StreamWriter, up: bool) -> None:
            while chunk := await source.read(65536):
                self.seen += chunk
                if not up and not self.answered:
                    break
                to.write(chunk)
                await to.drain()
            to.close()

        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(*self.target)
            await asyncio.gather(
                copy(reader, far_writer, True),
                copy(far_reader, writer, False),
                return_exceptions=True,
            )
            writer.close()


@asynccontextmanager
async def tapped() -> AsyncIterator[Tap]:
    tap = Tap()
    server = await asyncio.start_server(tap.pass_on, "127.0.0.1", 0)
    tap.port = server.sockets[0].getsockname()[1]
    try:
        yield tap
    finally:
        server.close()


def places_with(folder: Path, needle: bytes) -> list[Path]:
    """Every file below, whatever it is, that holds the bytes."""
    return [p for p in folder.rglob("*") if p.is_file() and needle in p.read_bytes()]


@contextlib.contextmanager
def all_logs() -> Any:
    root, stream = logging.getLogger(), io.StringIO()
    own = logging.getLogger("computeswarm")
    before = root.handlers[:], root.level, own.level
    setup_logging("debug", stream)
    try:
        yield stream
    finally:
        root.handlers[:], root.level, own.level = before


async def described(executor: DockerExecutor) -> str:
    """What the engine tells whoever asks about the seller's containers."""
    made = await executor._ours()
    assert made
    return json.dumps([await container.show() for container in made])


@pytest.mark.parametrize("executor", ["process", "bubblewrap", "docker"])
async def test_a_secret_reaches_the_job_and_nothing_else(
    executor: str,
    devnet: Devnet,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problems = await BubblewrapExecutor(tmp_path / "probe").check()
    if executor == "bubblewrap" and problems:
        pytest.skip(str(problems[0]))
    if executor == "docker":
        monkeypatch.setenv("DOCKER_HOST", f"unix://{request.getfixturevalue('docker_engine')}")
    script = tmp_path / "job.py"
    script.write_text(
        SHOW + "mine = b'canary' + b'-7f3a9c'\n"
        "import glob\n"
        "hits = []\n"
        "for path in glob.glob('/proc/[0-9]*/cmdline'):\n"
        "  try: hits += [path] if mine in open(path, 'rb').read() else []\n"
        "  except OSError: pass\n"
        "print(hits, flush=True)\n"
        "import resource, time; print(resource.getrlimit(resource.RLIMIT_CORE)[0], flush=True)\n"
        "time.sleep(1)\n"
    )
    plan = plan_job(script, max_seconds=30, secrets={"TOKEN": CANARY})
    assert CANARY not in repr(plan)
    home, folder = tmp_path / "buyer-home", tmp_path / "all"
    folder.mkdir()
    key = devnet.keys[0]
    async with tapped() as tap, tapped() as market_tap:
        with all_logs() as logs:
            changes: dict[str, Any] = {"executor": executor, "slots": 1}
            async with open_rig(
                devnet, folder, endpoint=f"http://127.0.0.1:{tap.port}", **changes
            ) as r:
                tap.target = ("127.0.0.1", urlsplit(r.url).port or 0)
                market_tap.target = ("127.0.0.1", urlsplit(r.market_url).port or 0)
                first = await r.buy(spec("import time\nprint(1, flush=True)\ntime.sleep(60)"))
                await first.first_output()
                settings = Settings(market=f"http://127.0.0.1:{market_tap.port}", rpc=devnet.url)
                paths = Paths.find({"COMPUTESWARM_HOME": str(home)})
                async with Buyer(settings, paths, key) as buyer:
                    node = await buyer.node(r.agent.node_id)
                    offer = await buyer.quote(node, plan)
                    assert CANARY not in repr(offer)
                    record = await buyer.start(offer, budget=1_000_000)
                    # it waits: on both disks there is the box, and nobody but the seller opens it
                    assert r.agent.desk.store.sealed_secrets(record.job_id)
                    owner = r.agent.status().model_dump_json()
                    assert record.job_id in owner and CANARY not in owner
                    for place in (folder, home):
                        assert places_with(place, CANARY.encode()) == []
                    await first.call("POST", "/cancel")
                    events = []
                    async for event in buyer.follow(record.job_id):
                        if output_of([event]) and isinstance(r.agent.executor, DockerExecutor):
                            assert CANARY not in await described(r.agent.executor)
                        events.append(event)
                    printed = output_of(events).decode().split("\n")
                    assert printed[0] == hashlib.sha256(CANARY.encode()).hexdigest(), printed
                    assert printed[1] == "[]"
                    assert printed[2] == "0"
                    assert resource.getrlimit(resource.RLIMIT_CORE)[0] == 0
                    assert buyer.job(record.job_id).state is JobState.SUCCEEDED
                assert r.agent.desk.store.sealed_secrets(record.job_id) == ""
                assert CANARY not in r.agent.status().model_dump_json()
                for path in ("/health", "/node", "/x402.json", "/openapi.json"):
                    assert CANARY not in (await r.call("GET", path)).text()
        wire = bytes(tap.seen) + bytes(market_tap.seen)
        assert b"sealed_secrets" in bytes(tap.seen) and b"sealed_secrets" not in market_tap.seen
        assert CANARY.encode() not in wire
        assert CANARY not in logs.getvalue() and record.job_id in logs.getvalue()
    for place in (folder, home):
        assert places_with(place, CANARY.encode()) == []


async def test_a_lost_reply_and_a_dead_buyer_carry_the_secrets_again(
    devnet: Devnet, tmp_path: Path
) -> None:
    script = tmp_path / "job.py"
    script.write_text(SHOW)
    plan = plan_job(script, max_seconds=30, secrets={"TOKEN": CANARY})
    paths = Paths.find({"COMPUTESWARM_HOME": str(tmp_path / "buyer-home")})
    async with (
        tapped() as tap,
        open_rig(devnet, tmp_path, endpoint=f"http://127.0.0.1:{tap.port}") as r,
    ):
        tap.target = ("127.0.0.1", urlsplit(r.url).port or 0)
        settings = Settings(market=r.market_url)
        async with Buyer(settings, paths, devnet.keys[0], present_seconds=1.0) as buyer:
            offer = await buyer.quote(await buyer.node(r.agent.node_id), plan)
            ask, count = buyer._seller(offer.node.info.endpoint).execute, 0

            async def losing(body: bytes, payment: Any = None) -> Any:
                nonlocal count
                count += 1
                tap.answered = payment is None
                return await ask(body, payment)

            buyer._seller(offer.node.info.endpoint).execute = losing  # type: ignore[method-assign]
            with pytest.raises(PaymentPending):
                await buyer.start(offer, budget=1_000_000)
            assert count > 2
        tap.answered = True
        async with Buyer(settings, paths, devnet.keys[0]) as later:
            (record,) = await later.resume(offer.job_id)
            assert record.stage in (Stage.PAID, Stage.ENDED)
            events = [event async for event in later.follow(offer.job_id)]
            assert len(output_of(events).strip()) == 64
            assert later.job(offer.job_id).state is JobState.SUCCEEDED
    assert places_with(tmp_path, CANARY.encode()) == []


async def ask(r: Rig, job: dict[str, Any], box: str, job_id: str | None, pay: bool = True) -> Reply:
    signed = await r.quote(job)
    quote = Quote.model_validate(signed.document)
    body = {
        "spec": job,
        "quote": signed.model_dump(mode="json"),
        "access_key": "ab" * 32,
        "sealed_secrets": box,
    } | ({"job_id": job_id} if job_id else {})
    payment = r.payment(quote.slice_amount(0)) if pay else {}
    return await r.call("POST", "/execute", json=body, headers=payment)


def sealed_for(devnet: Devnet, job: dict[str, Any], job_id: str, **values: str) -> str:
    what_for = purpose(job_id, JobSpec.model_validate(job).digest(), devnet.keys[0].address)
    return seal(values, public_key(devnet.keys[1]), what_for)


async def test_secrets_survive_a_killed_seller_while_the_job_waits(
    devnet: Devnet, tmp_path: Path
) -> None:
    job, job_id = spec(SHOW, secrets=["TOKEN"]), f"job-{secrets.token_hex(10)}"
    async with seller_process(devnet, tmp_path, executor="process") as (process, r):
        running = await r.buy(spec("import time\nprint(1, flush=True)\ntime.sleep(600)"))
        await running.first_output()
        reply = await ask(r, job, sealed_for(devnet, job, job_id, TOKEN=CANARY), job_id)
        assert reply.status == 202, reply.body
        view = ExecuteReply.model_validate_json(reply.body).job
        process.kill()
        await process.wait()
    assert places_with(tmp_path, CANARY.encode()) == []
    async with open_rig(devnet, tmp_path) as again:
        waiting = moved(Bought(again, view.job_id, "ab" * 32), again)
        events = [event async for event in waiting.follow()]
        assert len(output_of(events).strip()) == 64
        assert (await waiting.view()).state is JobState.SUCCEEDED
        assert again.agent.desk.store.sealed_secrets(job_id) == ""


async def test_what_can_not_be_opened_is_refused_before_money_is_taken(
    rig: OpenRig, devnet: Devnet
) -> None:
    async with rig() as r:
        before = await r.balance()
        job = spec(SHOW, secrets=["TOKEN"])
        mine, other = (f"job-{secrets.token_hex(10)}" for _ in range(2))
        good = sealed_for(devnet, job, mine, TOKEN=CANARY)
        for box, job_id, status, words in (
            ("", mine, 422, "none came along"),
            (good, None, 422, "job_id of yours"),
            (good, other, 400, "sealed for this node"),  # a box that was copied off the wire
            (sealed_for(devnet, job, mine, OTHER=CANARY), mine, 422, "others than"),
            (sealed_for(devnet, spec("print()"), mine, TOKEN=CANARY), mine, 400, "sealed for"),
            ("not base64", mine, 400, "sealed for"),
        ):
            reply = await ask(r, job, box, job_id)
            assert (reply.status, words in reply.text()) == (status, True), reply.text()
            assert CANARY not in reply.text()
        reply = await ask(r, spec("print()"), good, mine)
        assert reply.status == 422 and "doesn't name" in reply.text()
        # without a payment it is refused at once too, so that nothing is signed for it
        assert (await ask(r, job, "", mine, pay=False)).status == 422
        for name in ("HOME", "PYTHONPATH", "LD_PRELOAD", "PATH"):
            quoted = await r.call("POST", "/quotes", json={"spec": spec("x", secrets=[name])})
            assert quoted.status == 422 and name in quoted.text()
        assert await r.balance() == before
        rows = r.agent.desk.store._db.execute("SELECT COUNT(*) FROM secrets").fetchone()
        assert rows[0] == 0
        assert (await ask(r, job, good, mine)).status == 202
        ended = await Bought(r, mine, "ab" * 32).ended()
        assert ended.state is JobState.SUCCEEDED


async def test_a_box_goes_when_its_job_ends_without_having_run(
    rig: OpenRig, devnet: Devnet
) -> None:
    async with rig() as r:
        running = await r.buy(spec("import time\nprint(1, flush=True)\ntime.sleep(600)"))
        await running.first_output()
        job, job_id = spec(SHOW, secrets=["TOKEN"]), f"job-{secrets.token_hex(10)}"
        assert (
            await ask(r, job, sealed_for(devnet, job, job_id, TOKEN=CANARY), job_id)
        ).status == 202
        assert r.agent.desk.store.sealed_secrets(job_id)
        await Bought(r, job_id, "ab" * 32).call("POST", "/cancel")
        assert r.agent.desk.store.sealed_secrets(job_id) == ""


async def test_a_node_without_a_key_gets_no_secrets(
    rig: OpenRig, devnet: Devnet, tmp_path: Path
) -> None:
    (tmp_path / "job.py").write_text(SHOW)
    plan = plan_job(tmp_path / "job.py", max_seconds=30, secrets={"TOKEN": CANARY})
    async with rig() as r:
        r.agent.offers.secrets_key = ""
        r.agent.market.refresh(record=True)
        settings = Settings(market=r.market_url)
        paths = Paths.find({"COMPUTESWARM_HOME": str(tmp_path / "buyer-home")})
        async with Buyer(settings, paths, devnet.keys[0]) as buyer:
            async with asyncio.timeout(20):
                while (node := await buyer.node(r.agent.node_id)).info.secrets_key:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert await buyer.candidates(max_seconds=30, secrets=True) == []
            offer = await buyer.quote(node, plan)
            with pytest.raises(BadRequest, match="another node"):
                await buyer.start(offer, budget=1_000_000)
            assert buyer.jobs() == []
    assert json.dumps(CANARY).encode() not in b"".join(
        p.read_bytes() for p in tmp_path.rglob("*.db")
    )


async def test_a_job_that_a_channel_pays_gets_them_too(devnet: Devnet, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(SHOW)
    plan = plan_job(tmp_path / "job.py", max_seconds=30, secrets={"TOKEN": CANARY})
    paths = Paths.find({"COMPUTESWARM_HOME": str(tmp_path / "buyer-home")})
    async with open_rig(devnet, tmp_path) as r:
        settings = Settings(market=r.market_url, rpc=devnet.url)
        async with Buyer(settings, paths, devnet.keys[0]) as buyer:
            node = await buyer.node(r.agent.node_id)
            offer = await buyer.quote(node, plan, scheme="batch-settlement")
            await buyer.start(offer, budget=60_000)
            events = [event async for event in buyer.follow(offer.job_id)]
            assert output_of(events).decode().strip() == hashlib.sha256(CANARY.encode()).hexdigest()
            assert buyer.job(offer.job_id).state is JobState.SUCCEEDED
    assert places_with(tmp_path, CANARY.encode()) == []
