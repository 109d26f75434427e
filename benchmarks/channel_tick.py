"""A tick of a payment channel over HTTP, against a bare aiohttp POST.

    python -m benchmarks.channel_tick [--turns 150]

The tick is posted to the seller of ``computeswarm demo`` for a job that runs meanwhile: he checks
the voucher's signature and sums and has it written down before he answers (a crash takes nothing
back; the disk has it within a second). The bare handler, in a
process of its own too, parses the same body and answers with as many bytes. Turn by turn, over one
kept connection each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

import aiohttp
import uvloop
from aiohttp import web

from computeswarm.buyer.client import Buyer
from computeswarm.buyer.journal import JobRecord
from computeswarm.buyer.purchase import access, slice_purpose
from computeswarm.buyer.spec import plan_job
from computeswarm.core.channels import SCHEME
from computeswarm.core.clock import SystemClock
from computeswarm.core.money import parse_usdc
from computeswarm.core.settings import Paths, Settings
from computeswarm.core.states import JobState
from computeswarm.core.x402 import HEADER_RESPONSE_V2, SettleResponse, decode_header
from computeswarm.payments.channels.payer import ChannelPayer
from computeswarm.payments.guard import SpendingPolicy
from computeswarm.payments.journal import PaymentJournal
from computeswarm.payments.payer import Payer
from computeswarm.payments.wallet import load_wallet, resolve_password

GOAL = 5.0
BUDGET = parse_usdc("1")
JOB_SECONDS = 1_800
SCRIPT = "import time\nprint('up', flush=True)\ntime.sleep(1800)\n"


async def bare() -> None:
    """A child: the least that answers a POST, until its input ends."""

    async def answer(request: web.Request) -> web.Response:
        await request.json()
        return web.Response(body=b" " * int(request.query["size"]))

    app = web.Application()
    app.router.add_post("/jobs/{job_id}/payments", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


async def post(
    http: aiohttp.ClientSession, url: str, headers: dict[str, str], body: bytes
) -> tuple[int, str]:
    """One POST; the size of its answer, and the receipt in it."""
    async with http.post(url, data=body, headers=headers) as reply:
        content = await reply.read()
        assert reply.status == 200, (reply.status, content[:300])
        return len(content), reply.headers.get(HEADER_RESPONSE_V2, "")


async def running_job(buyer: Buyer, script: Path) -> JobRecord:
    """A job of the demo's seller, paid by a channel, that runs."""
    node = (await buyer.candidates())[0]
    plan = await asyncio.to_thread(plan_job, script, max_seconds=JOB_SECONDS)
    record = await buyer.start(await buyer.quote(node, plan, scheme=SCHEME), budget=BUDGET)
    while record.view is None or record.view.state is not JobState.RUNNING:
        await asyncio.sleep(0.05)
        record = await buyer.refresh(record.job_id)
    return record


async def compare(signer: ChannelPayer, record: JobRecord, port: int, n: int) -> None:
    path = f"/jobs/{record.job_id}/payments"
    ways = {"bare": f"http://127.0.0.1:{port}{path}", "tick": record.endpoint.rstrip("/") + path}
    own = {"Content-Type": "application/json", **access(record).headers}
    times: dict[str, list[float]] = {"bare": [], "tick": [], "whole": []}
    size, at = 1_000, record.view.slices_paid if record.view else 1
    async with aiohttp.ClientSession() as http:
        for turn in range(-10, n):
            began = time.perf_counter()
            purpose = slice_purpose(record, at)
            headers = {**own, **signer.voucher(purpose).headers()}
            body = json.dumps({"slice": at}).encode()
            signed = time.perf_counter()
            size, receipt = await post(http, ways["tick"], headers, body)
            answered = time.perf_counter()
            signer.settled(purpose, SettleResponse.model_validate(decode_header(receipt)))
            done = time.perf_counter()
            await post(http, ways["bare"] + f"?size={size}", headers, body)
            bare_done = time.perf_counter()
            at += 1
            if turn >= 0:  # the first turns warm up
                times["bare"].append(bare_done - done)
                times["tick"].append(answered - signed)
                times["whole"].append(done - began)
    medians = {way: statistics.median(spent) * 1e3 for way, spent in times.items()}
    base = medians["bare"]
    print(f"bare aiohttp POST                     {base:6.2f} ms")
    print(f"a tick, posted and answered           {medians['tick']:6.2f} ms")
    print(f"with signing and the buyer's journal  {medians['whole']:6.2f} ms")
    ratio, whole = medians["tick"] / base, medians["whole"] / base
    print(f"ratio {ratio:.2f} x (goal {GOAL:g}), with the buyer's side {whole:.2f} x")


async def measure(ready: dict[str, str], port: int, turns: int) -> None:
    home = ready["home"]
    paths = Paths.find({"COMPUTESWARM_HOME": home})
    settings = Settings.load(environ={"COMPUTESWARM_HOME": home}, paths=paths)
    password = resolve_password(settings, environ={})
    key = await asyncio.to_thread(load_wallet, paths.wallet, password)
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "wait.py")
        script.write_text(SCRIPT)
        async with Buyer(settings, paths, key) as buyer:
            record = await running_job(buyer, script)
            journal, clock = PaymentJournal(paths.buyer / "payments.db"), SystemClock()
            policy = SpendingPolicy.from_settings(settings)
            payer = Payer(key, settings.chain, journal, policy, clock)
            signer = ChannelPayer(payer, key, settings.chain, journal, clock)
            try:
                await compare(signer, record, port, turns)
            finally:
                journal.close()
                await buyer.cancel(record.job_id)


async def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=150)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bare:
        await bare()
        return 0
    environ = {k: v for k, v in os.environ.items() if not k.startswith("COMPUTESWARM_")}
    demo = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "computeswarm", "demo", "--headless",
        stdout=PIPE, stderr=DEVNULL, env=environ,
    )  # fmt: skip
    floor = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.channel_tick", "--bare", stdin=PIPE, stdout=PIPE
    )
    try:
        assert demo.stdout is not None
        assert floor.stdout is not None
        ready = json.loads(await asyncio.wait_for(demo.stdout.readline(), 120))
        port = int(await asyncio.wait_for(floor.stdout.readline(), 60))
        await measure(ready, port, given.turns)
    finally:
        for child in (demo, floor):
            child.send_signal(signal.SIGTERM)
        await asyncio.gather(demo.wait(), floor.wait())
    return 0


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
