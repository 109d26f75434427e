"""What watches over a seller sees: health, figures for Prometheus, and logs without secrets."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from metric_rules import broken_rules, families, value
from seller_rig import Rig, spec

from computeswarm.chain.devnet import Devnet
from computeswarm.core.errors import ConfigError
from computeswarm.core.logs import get_logger
from computeswarm.core.metrics import Exposition
from computeswarm.seller.executors.base import Problem
from computeswarm.seller.metrics import metrics
from computeswarm.seller.owner import GpuSample, OwnerFile, OwnerGpu
from computeswarm.server.logs import setup_logging
from computeswarm.server.serving import Server

OpenRig = Callable[..., AbstractAsyncContextManager[Rig]]
TOKEN = "a-token-of-the-settings"
EVIL = 'RTX"} 1\nfake_metric 1 \\ \x1b[31m'


PREFIX = "computeswarm_seller_"


async def scrape(rig: Rig, **headers: str) -> Any:
    return await rig.call("GET", "/metrics", headers=headers)


async def test_prometheus_reads_the_figures_and_nobody_else_does(rig: OpenRig) -> None:
    async with rig(metrics_token=TOKEN) as r:
        job = await r.buy(spec("import time; print(1); time.sleep(1.2)"))
        await job.ended()
        await r.refunded(job)
        r.agent.bookkeeper._usage.write()
        view = await job.view()
        async with asyncio.timeout(30):  # the figures are some seconds old at most
            while r.agent.status().earnings.total.kept != view.cost:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        reply = await scrape(r, Authorization=f"Bearer {TOKEN}")
        assert reply.status == 200
        assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        found = families(reply.body.decode(), PREFIX)
        assert broken_rules(reply.body.decode()) == []
        kinds = {name: family.type for name, family in found.items()}
        assert kinds["jobs_ended"] == kinds["sold_seconds"] == "counter"
        assert kinds["kept_usdc"] == kinds["jobs_running"] == "gauge"
        assert value(found, "jobs_ended", state="succeeded") == 1
        assert value(found, "jobs_ended", state="failed") == 0
        assert value(found, "kept_usdc", window="1d") == view.cost / 1e6
        assert value(found, "price_usdc") == 3.6
        assert value(found, "mood", mood="taking") == 1
        assert sum(sample.value for sample in found["mood"].samples) == 1
        assert value(found, "ready") == 1
        assert value(found, "sold_seconds", unit="cpu") >= 1
        # what nobody measures has no sample, least of all a zero
        assert "electricity_usdc" not in found and "energy_joules" not in found
        assert sum(len(family.samples) for family in found.values()) < 200
        assert job.job_id not in reply.body.decode() and r.buyer.address not in reply.body.decode()

        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
            assert (await scrape(r, **headers)).status == 401
        # through a proxy, the token of the settings opens it, and the owner's does not
        far = {"X-Forwarded-For": "203.0.113.9"}
        assert (await scrape(r, Authorization=f"Bearer {TOKEN}", **far)).status == 200
        owner = OwnerFile.model_validate_json((r.paths.seller / "owner.json").read_bytes()).token
        assert (await scrape(r, Authorization=f"Bearer {owner}")).status == 200
        assert (await scrape(r, Authorization=f"Bearer {owner}", **far)).status == 403


async def test_without_a_token_in_the_settings_only_the_owner_reads_them(rig: OpenRig) -> None:
    async with rig() as r:
        assert (await scrape(r)).status == 401
        assert (await scrape(r, Authorization="Bearer ")).status == 401
    with pytest.raises(ConfigError, match="metrics_token"):
        async with rig(metrics_token="short"):
            pass


def test_a_label_breaks_out_of_nothing() -> None:
    out = Exposition(PREFIX)
    out.add("x", "gauge", "one\ntwo \\", ({"model": EVIL}, 1), ({"model": "b"}, None))
    out.add("empty", "gauge", "none", ({}, None))
    found = families(out.text(), PREFIX)
    assert list(found) == ["x"]
    assert [sample.labels for sample in found["x"].samples] == [{"model": EVIL}]


async def test_the_gpus_figures(rig: OpenRig, monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig() as r:
        status = r.agent.status()
        sample = GpuSample(at=1, utilization_pct=50, power_mw=402_500, temperature_c=71)
        shown = OwnerGpu(
            index=0, model=EVIL[:20], memory_bytes=24 * 2**30, samples=(sample,),
            power_limit_mw=450_000,
        )  # fmt: skip
        monkeypatch.setattr(r.agent, "status", lambda: status.model_copy(update={"gpus": (shown,)}))
        found = families(metrics(r.agent), PREFIX)
        assert value(found, "gpu_power_watts", gpu="0") == 402.5
        assert value(found, "gpu_power_limit_watts", gpu="0") == 450
        assert value(found, "gpu_utilization_ratio", gpu="0") == 0.5
        assert value(found, "gpu_temperature_celsius", gpu="0") == 71
        assert "gpu_memory_used_bytes" not in found


@asynccontextmanager
async def between(devnet: Devnet) -> AsyncIterator[tuple[str, dict[str, bool]]]:
    """A node that can be cut off."""
    line = {"cut": False}
    async with aiohttp.ClientSession() as session:

        async def handle(request: web.Request) -> web.Response:
            if line["cut"]:
                return web.Response(status=503)
            async with session.post(devnet.url, data=await request.read()) as reply:
                body = await reply.read()
            return web.Response(body=body, content_type="application/json")

        app = web.Application()
        app.router.add_post("/", handle)
        async with Server(app) as server:
            yield await server.start("127.0.0.1", 0), line


async def test_health_says_what_is_wrong(rig: OpenRig, devnet: Devnet) -> None:
    async with between(devnet) as (url, line), rig(rpc=url) as r:

        async def health() -> tuple[int, list[str]]:
            reply = await r.call("GET", "/health")
            return reply.status, reply.json["reasons"]

        assert await health() == (200, [])
        r.agent.pause(True)
        assert await health() == (200, [])  # its owner wants it so
        line["cut"] = True
        r.agent._upkeep._gas_at = None
        await r.agent._upkeep.look_at_gas()
        assert await health() == (503, ["chain_unreachable"])
        line["cut"] = False
        r.agent._upkeep._gas_at = None
        await r.agent._upkeep.look_at_gas()
        assert await health() == (200, [])

        check = r.agent.executor.check
        r.agent.executor.check = _broken  # type: ignore[method-assign]
        await r.agent.health.look()
        assert await health() == (503, ["executor_broken"])
        assert any("can't be run" in event.text for event in r.agent.status().events)
        r.agent.executor.check = check  # type: ignore[method-assign]
        await r.agent.health.look()
        assert await health() == (200, [])

        r.agent.gas_wei = 0
        assert await health() == (503, ["no_gas"])
        assert (await r.call("GET", "/health/live")).status == 200
        r.agent.ready = False
        assert await health() == (503, ["starting"])
        r.agent.ready = True


async def test_a_seller_that_no_market_lists_is_not_ready(rig: OpenRig) -> None:
    async with rig(market_url="http://127.0.0.1:9") as r:
        reply = await r.call("GET", "/health")
        assert (reply.status, reply.json["reasons"]) == (503, ["market_unreachable"])
        assert (await r.call("GET", "/health/live")).status == 200


async def _broken() -> list[Problem]:
    return [Problem("the engine is gone", "start it")]


@pytest.fixture
def written() -> Iterator[Callable[[str], io.StringIO]]:
    """Sends events to a text, and leaves logging as it was."""
    root, own = logging.getLogger(), logging.getLogger("computeswarm")
    before = root.handlers[:], root.level, own.level

    def start(log_format: str) -> io.StringIO:
        stream = io.StringIO()
        setup_logging("info", stream, log_format=log_format)
        return stream

    yield start
    root.handlers[:], root.level, own.level = before[0], before[1], before[2]


async def test_logs_tell_of_jobs_and_of_no_secret(
    rig: OpenRig, written: Callable[[str], io.StringIO], tmp_path: Path
) -> None:
    stream = written("json")
    async with rig() as r:
        code = "import os;print('out'+'put-of-the-job', os.environ['WORD'])"
        job = await r.buy(spec(code, env={"WORD": "a-word-in-the-environment"}))
        view = await job.ended()
        token = OwnerFile.model_validate_json((r.paths.seller / "owner.json").read_bytes()).token
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    done = next(event for event in events if event["event"] == "job_completed")
    assert (done["job_id"], done["buyer"], done["exit_code"]) == (job.job_id, r.buyer.address, 0)
    assert (done["duration_ms"], done["cost_atoms"]) == (view.metered_ms, view.cost)
    assert done["paid_atoms"] == done["cost_atoms"] + done["refund_atoms"]
    assert (done["state"], done["level"], done["logger"]) == (
        "succeeded",
        "info",
        "computeswarm.seller",
    )
    assert done["total_ms"] >= done["duration_ms"] and done["time"].endswith("Z")
    steps = [event["state"] for event in events if event["event"] == "job_step"]
    assert steps == ["queued", "starting", "running"]
    for secret in (
        "output-of-the-job",
        "a-word-in",
        token,
        job.key,
        "0x" + r.agent.wallet[2:10] + "0" * 8,
    ):
        assert secret not in stream.getvalue()


def test_text_logs_are_read_by_people_and_forged_by_nobody(
    written: Callable[[str], io.StringIO],
) -> None:
    stream = written("text")
    get_logger("seller").info("job_completed", job_id="job-1", name="a b\n2026 ERROR fake\x1b[31m")
    get_logger("seller").warning("x", note='say "no"', long="y" * 9000)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2 and "\x1b" not in lines[0]
    assert 'INFO    job_completed job_id=job-1 name="a b 2026 ERROR fake"' in lines[0]
    assert r'note="say \"no\""' in lines[1] and len(lines[1]) < 2200
    stream = written("json")
    get_logger("seller").info("x", name="a\nb\x1b")
    assert len(stream.getvalue().splitlines()) == 1
    assert json.loads(stream.getvalue())["name"] == "a\nb\x1b"
    for wrong in ({"log_format": "xml"}, {"level": "loud"}):
        with pytest.raises(ConfigError):
            setup_logging(**wrong)
