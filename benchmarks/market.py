"""Heartbeat and discovery against bare handlers: CPU time of the server process.

    python -m benchmarks.market [--requests 4000] [--rounds 5]

The servers run side by side in their own processes and are measured turn by turn, so the ratios
hold on a noisy machine. The bare aiohttp+uvloop handler decodes the same heartbeat body, by msgspec
as the market does, and answers a discovery with ready bytes of the same length; what the market
does more for a heartbeat is to check who sends it and to keep it. FastAPI under uvicorn, where both
are installed, decodes the same body by its own means, pydantic.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Annotated, Literal

import msgspec
from aiohttp import web

from computeswarm.core.crypto import PrivateKey
from computeswarm.core.market_auth import headers
from computeswarm.core.nodes import (
    RECORD_KIND,
    GPUInfo,
    Hardware,
    Heartbeat,
    HeartbeatReply,
    NodeRecord,
)
from computeswarm.core.sessions import enrol
from computeswarm.core.signing import Signed
from computeswarm.market import Market, open_market
from computeswarm.market.limits import Kind, Limit
from computeswarm.server.market_app import build_market_app
from computeswarm.server.serving import Server, run

NODES = 200
CONNECTIONS = 8
BODY = b'{"status":"busy","queued":1,"running":1,"utilization_pct":97}'
REPLY = b'{"heartbeat_seconds":30,"lease_seconds":90}'
SEARCH = "/api/v1/nodes?q=gpu%3A4090&limit=50"


def record(key: PrivateKey, number: int) -> Signed:
    gpu = GPUInfo(vendor="nvidia", model="RTX 4090", memory_bytes=24 * 2**30)
    made = NodeRecord(
        wallet=key.address,
        name=f"rig-{number}",
        endpoint="https://rig.example:8403",
        hardware=Hardware(cpu_model="Ryzen 9", cpu_cores=16, memory_bytes=2**36, gpus=(gpu,)),
        isolation="namespace",
        price_per_hour=300_000 + number,
        slice_seconds=60,
        max_job_seconds=86_400,
        seq=1,
        issued_at=int(time.time()),
    )
    return Signed.make(key, RECORD_KIND, 84532, made)


async def serve(kind: str, size: int) -> None:
    """A child: print what the parent needs, then answer each line on stdin with the CPU time."""
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            sessions: list[tuple[str, str]] = []
            if kind == "fastapi":
                port = await stack.enter_async_context(fastapi_server())
            else:
                limits = {kind: Limit(10**9, 60) for kind in Kind}  # one client asks for all
                market = open_market(Path(folder) / "market.db", limits=limits)
                app = build_market_app(market) if kind == "market" else bare_app(size)
                server = await stack.enter_async_context(Server(app))
                url = await server.start("127.0.0.1", 0)
                port = int(url.rpartition(":")[2])
                if kind == "market":
                    sessions = await enrolled(market)
            print(json.dumps({"port": port, "sessions": sessions}), flush=True)
            while await asyncio.to_thread(sys.stdin.readline):
                print(time.process_time(), flush=True)


async def enrolled(market: Market) -> list[tuple[str, str]]:
    """The market's nodes, with the keys of their sessions."""
    key, sessions = PrivateKey.generate(), []
    for number in range(NODES):
        enrolment, pending = enrol(key, record(key, number), "http://x", time.time())
        made = await market.register(enrolment)
        sessions.append((made.node.node_id, pending.mac_key(made.market_key).hex()))
    return sessions


class Beat(msgspec.Struct):
    """The heartbeat as the bare handler decodes it."""

    status: Literal["idle", "busy", "draining"]
    queued: Annotated[int, msgspec.Meta(ge=0, le=10**6)] = 0
    running: Annotated[int, msgspec.Meta(ge=0, le=10**6)] = 0
    utilization_pct: Annotated[int, msgspec.Meta(ge=0, le=100)] | None = None


def bare_app(size: int) -> web.Application:
    page, decode = b"x" * size, msgspec.json.Decoder(Beat).decode

    async def heartbeat(request: web.Request) -> web.Response:
        decode(await request.read())
        return web.Response(body=REPLY, content_type="application/json")

    async def nodes(_: web.Request) -> web.Response:
        return web.Response(body=page, content_type="application/json")

    app = web.Application()
    app.router.add_post("/api/v1/nodes/{node_id}/heartbeat", heartbeat)
    app.router.add_get("/api/v1/nodes", nodes)
    return app


@contextlib.asynccontextmanager
async def fastapi_server() -> AsyncIterator[int]:
    """What most would write: uvicorn without its access log, on this loop."""
    import fastapi  # type: ignore[import-not-found, unused-ignore]
    import uvicorn  # type: ignore[import-not-found, unused-ignore]

    app = fastapi.FastAPI()

    async def heartbeat(node_id: str, beat: Heartbeat) -> HeartbeatReply:
        return HeartbeatReply(heartbeat_seconds=30, lease_seconds=90)

    app.post("/api/v1/nodes/{node_id}/heartbeat")(heartbeat)
    made = uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="critical", port=0))
    task = asyncio.create_task(made.serve())
    while not made.started:  # noqa: ASYNC110 - it tells in no other way
        await asyncio.sleep(0.01)
    yield made.servers[0].sockets[0].getsockname()[1]
    made.should_exit = True
    await task


class Child:
    """One server process."""

    def __init__(self, process: asyncio.subprocess.Process, hello: dict[str, object]) -> None:
        self.process = process
        self.port = int(str(hello["port"]))
        self.sessions = hello["sessions"]

    async def cpu(self) -> float:
        """Seconds of CPU it has used so far."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        return float(await self.process.stdout.readline())


@contextlib.asynccontextmanager
async def child(kind: str, size: int = 0) -> AsyncIterator[Child]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.market",
        "--serve",
        kind,
        "--size",
        str(size),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield Child(process, json.loads(await process.stdout.readline()))
    finally:
        process.kill()
        await process.wait()


def heartbeats(sessions: list[tuple[str, str]], start: int, count: int) -> Iterator[bytes]:
    """Requests ready to send; every one has its own counter and MAC."""
    for number in range(count):
        node_id, key = sessions[number % len(sessions)]
        path = f"/api/v1/nodes/{node_id}/heartbeat"
        made = headers(
            node_id, bytes.fromhex(key), method="POST", path=path, counter=start + number, body=BODY
        ).items()
        head = "".join(f"{name}: {value}\r\n" for name, value in made)
        yield (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{head}"
            f"Content-Length: {len(BODY)}\r\n\r\n"
        ).encode() + BODY


def searches(count: int) -> Iterator[bytes]:
    return (f"GET {SEARCH} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for _ in range(count))


async def read_reply(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(head.decode())
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    return await reader.readexactly(length)


async def cost(server: Child, requests: list[bytes]) -> float:
    """Microseconds of server CPU a request."""

    async def talk(mine: list[bytes]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=2**22)
        for request in mine:
            writer.write(request)
            await read_reply(reader)
        writer.close()

    before = await server.cpu()
    # one node's heartbeats stay on one connection: counters must rise in order
    await asyncio.gather(*(talk(requests[n::CONNECTIONS]) for n in range(CONNECTIONS)))
    return (await server.cpu() - before) / len(requests) * 1e6


async def measure(requests: int, rounds: int) -> None:
    async with AsyncExitStack() as stack:
        market = await stack.enter_async_context(child("market"))
        sessions = [(str(a), str(b)) for a, b in market.sessions]  # type: ignore[attr-defined]
        reader, writer = await asyncio.open_connection("127.0.0.1", market.port, limit=2**22)
        writer.write(next(searches(1)))
        size = len(await read_reply(reader))
        writer.close()
        others = {"bare": await stack.enter_async_context(child("bare", size))}
        if find_spec("fastapi") and find_spec("uvicorn"):
            others["FastAPI"] = await stack.enter_async_context(child("fastapi"))
        results: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for number in range(rounds + 1):
            start = 1 + number * requests
            for name, load in (
                ("heartbeat", list(heartbeats(sessions, start, requests))),
                ("discovery", list(searches(requests))),
            ):
                ours = await cost(market, load)
                for other, server in others.items():
                    if (name, other) != ("discovery", "FastAPI"):
                        pair = (ours, await cost(server, load))
                        if number:  # the first round warms up
                            results.setdefault((name, other), []).append(pair)
    for (name, other), pairs in results.items():
        ours, theirs = (median(values) for values in zip(*pairs, strict=True))
        ratio = median(a / b for a, b in pairs)
        line = f"{name:<10} market {ours:6.1f} µs   {other:<8} {theirs:6.1f} µs   ratio {ratio:.2f}"
        print(line)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Market benchmarks, as ratios.")
    parser.add_argument("--requests", type=int, default=4_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", choices=("market", "bare", "fastapi"), help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        run(serve(options.serve, options.size))
    else:
        run(measure(options.requests, options.rounds))
