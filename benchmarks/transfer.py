"""Inputs up and outputs down, digests checked and kept on disk, against the same bytes from a bare
aiohttp client to a bare aiohttp server that keeps them on disk, alternately in the same run.

    python -m benchmarks.transfer [MIB [ROUNDS]]
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from aiohttp import web

from benchmarks.world import idle_node, world
from computeswarm.buyer.client import Buyer
from computeswarm.buyer.progress import Progress
from computeswarm.buyer.spec import plan_job
from computeswarm.core.money import parse_usdc

GOAL = 0.8
MIB = 2**20
BUDGET = parse_usdc("1")
SCRIPT = "import os; os.rename('data.bin', 'outputs/data.bin'); print('moved')\n"
_BLOCK = 2**18


async def serve(folder: Path) -> None:
    """The bare server: says its port, and ends with its stdin."""

    async def put(request: web.Request) -> web.Response:
        with (folder / "up").open("wb") as out:
            async for chunk in request.content.iter_chunked(_BLOCK):
                out.write(chunk)
        return web.Response()

    async def get(_: web.Request) -> web.StreamResponse:
        return web.FileResponse(folder / "up")

    app = web.Application(client_max_size=2**40)
    app.router.add_put("/", put)
    app.router.add_get("/", get)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


@asynccontextmanager
async def bare_server(folder: Path) -> AsyncIterator[str]:
    """Its address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.transfer", "serve", str(folder)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(await process.stdout.readline())}/"
    finally:
        process.stdin.close()
        await process.wait()


async def bare(session: aiohttp.ClientSession, url: str, data: Path, to: Path) -> list[float]:
    """Seconds up and down."""
    began = time.perf_counter()
    with data.open("rb") as body:
        async with session.put(url, data=body) as reply:
            reply.raise_for_status()
    up = time.perf_counter() - began
    began = time.perf_counter()
    async with session.get(url) as reply:
        with to.open("wb") as out:
            async for chunk in reply.content.iter_chunked(_BLOCK):
                out.write(chunk)
    return [up, time.perf_counter() - began]


async def ours(buyer: Buyer, script: Path, data: Path, to: Path) -> list[float]:
    """Seconds up and down, of a job that hands its input on."""
    node = await idle_node(buyer)
    offer = await buyer.quote(node, await asyncio.to_thread(plan_job, script, inputs=[data]))
    times: list[float] = []

    def report(progress: Progress) -> None:
        if progress.phase == "uploading" and (progress.done == progress.total or not times):
            times.append(time.perf_counter())

    job = await buyer.start(offer, budget=BUDGET, report=report)
    async for _ in buyer.follow(job.job_id):
        pass
    began = time.perf_counter()
    await buyer.outputs(job.job_id, to)
    down = time.perf_counter() - began
    assert (to / "data.bin").stat().st_size == data.stat().st_size
    return [times[-1] - times[0], down]


def fresh(path: Path, mib: int) -> Path:
    """Bytes that nobody has seen: an input that the seller has is not sent again."""
    with path.open("wb") as out:
        for _ in range(mib):
            out.write(os.urandom(MIB))
    return path


async def measure(mib: int, rounds: int) -> None:
    rows: dict[str, list[list[float]]] = {"bare": [], "ours": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        script = folder / "move.py"
        script.write_text(SCRIPT)
        async with (
            world() as made,
            bare_server(folder) as url,
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session,
        ):
            for index in range(-1, rounds):  # one round to warm up
                data = await asyncio.to_thread(fresh, folder / "data.bin", mib)
                pair = {
                    "bare": await bare(session, url, data, folder / "down"),
                    "ours": await ours(made.buyer, script, data, folder / f"out{index}"),
                }
                for key, seconds in pair.items() if index >= 0 else ():
                    rows[key].append(seconds)
    for column, what in enumerate(("upload", "download")):
        rates = {k: mib / statistics.median(row[column] for row in v) for k, v in rows.items()}
        print(f"bare aiohttp {what:9} {rates['bare']:7.0f} MiB/s")
        print(f"ours         {what:9} {rates['ours']:7.0f} MiB/s")
        print(f"ratio {rates['ours'] / rates['bare']:.2f} x (goal {GOAL:g} or more)")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(Path(sys.argv[2])))
    else:
        numbers = [int(word) for word in sys.argv[1:]]
        asyncio.run(measure(*(numbers + [128, 5][len(numbers) :])))
