"""Discovery over HTTP in a market of a million nodes, beside all their heartbeats.

    python -m benchmarks.market_http [--nodes 1000000] [--requests 2000] [--socket-rate 1500]

Against a bare aiohttp handler on uvloop that answers ready bytes of the same size, asked turn by
turn with ours over a connection each, so that the ratio holds on a noisy machine. Asked are
``fresh`` queries (the mix of ``benchmarks.discovery``, each one new, so that none is answered from
what was kept) and ``popular`` ones (ten that many ask). ``beside`` is the bare handler once more,
but on the market's own loop: what it takes longer is what a busy process costs any answer.

Heartbeats of some nodes come over real sockets with real MACs, from a process of their own; those
of all others go into the market's table and its write-behind to SQLite, as those of another
instance would, at the interval the market tells: together 33,000/s at a million nodes. At the end
one in a hundred nodes falls silent, and when each is listed as offline is compared with its lease.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from time import perf_counter
from typing import Any
from urllib.parse import urlencode

from benchmarks.discovery import asks
from benchmarks.fleet.buyers import QUERIES
from benchmarks.fleet.hosting import static_app
from benchmarks.fleet.model import Fleet
from benchmarks.fleet.rows import RowMaker, session_key
from computeswarm.core.market_auth import headers
from computeswarm.server.serving import Server, run

BODIES = (b'{"status":"idle"}', b'{"status":"busy","running":1,"queued":1}')
CONNECTIONS = 8
SOCKET_NODES = 20_000
SILENT_SHARE = 0.01
GOAL = 2.0
EXPIRY_GOAL = 1.1


class Child:
    """A process that answers lines with lines of JSON."""

    def __init__(self, process: asyncio.subprocess.Process, hello: dict[str, Any]) -> None:
        self.process, self.hello = process, hello
        self.url = str(hello.get("url", ""))

    async def ask(self, line: str) -> dict[str, Any]:
        """One line and its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line.encode() + b"\n")
        answer: dict[str, Any] = json.loads(await self.process.stdout.readline())
        return answer


@asynccontextmanager
async def child(*words: str) -> AsyncIterator[Child]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield Child(process, json.loads(await process.stdout.readline()))
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Connection:
    """One connection to a server, kept."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, url: str) -> Connection:
        host, _, port = url.removeprefix("http://").partition(":")
        return cls(*await asyncio.open_connection(host, int(port), limit=2**22))

    async def send(self, request: bytes) -> tuple[bytes, bytes]:
        """The answer's head and body."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        return head, await self._reader.readexactly(length)

    async def timed(self, request: bytes) -> tuple[float, int]:
        """Seconds and bytes of a good answer."""
        started = perf_counter()
        head, body = await self.send(request)
        seconds = perf_counter() - started
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode() + body[:500].decode("utf-8", "replace"))
        return seconds, len(body)

    def close(self) -> None:
        self._writer.close()


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: market\r\n\r\n".encode()


def search(text: str, sort: str) -> bytes:
    return get("/api/v1/nodes?" + urlencode({"q": text, "sort": sort, "limit": 50}))


# the children


async def serve_static(size: int) -> None:
    async with Server(static_app(size)) as server:
        print(json.dumps({"url": await server.start("127.0.0.1", 0)}), flush=True)
        await asyncio.to_thread(sys.stdin.readline)


async def beat(url: str, nodes: int, fleet_nodes: int, rate: float) -> None:
    """Heartbeats over sockets at a rate, round all nodes; says how it went for each line."""
    maker, fleet = RowMaker(Fleet(fleet_nodes), 0.0), Fleet(fleet_nodes)
    ids = [maker.row(fleet.machine(number)).node_id for number in range(nodes)]
    took: list[float] = []
    wrong = 0

    async def talk(first: int) -> None:
        nonlocal wrong
        connection = await Connection.to(url)
        counter, due = (
            int(time.time() * 1000),
            perf_counter(),
        )  # a kept database knows the last ones
        while True:
            counter += 1
            for number in range(first, nodes, CONNECTIONS):
                due += CONNECTIONS / rate
                await asyncio.sleep(max(0.0, due - perf_counter()))
                started = perf_counter()
                head, _ = await connection.send(heartbeat(ids[number], number, counter))
                took.append(perf_counter() - started)
                wrong += not head.startswith(b"HTTP/1.1 200")

    tasks = [asyncio.create_task(talk(first)) for first in range(CONNECTIONS)]
    print("{}", flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        for task in tasks:
            if task.done():
                task.result()
        shown = {"count": len(took), "wrong": wrong, "p99_ms": quantile(took, 0.99) * 1000}
        print(json.dumps(shown), flush=True)
    for task in tasks:
        task.cancel()


def heartbeat(node_id: str, number: int, counter: int) -> bytes:
    path, body = f"/api/v1/nodes/{node_id}/heartbeat", BODIES[(number + counter // 8) % 2]
    key = session_key(number)
    made = headers(node_id, key, method="POST", path=path, counter=counter, body=body).items()
    head = "".join(f"{name}: {value}\r\n" for name, value in made)
    return (
        f"POST {path} HTTP/1.1\r\nHost: market\r\nContent-Type: application/json\r\n{head}"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


# the measurement


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


async def measure(market: Child, nodes: int, requests: int) -> dict[str, list[float]]:
    """Times in seconds: fresh and popular queries of ours, and the static answers."""
    dice, ours = random.Random(1), await Connection.to(market.url)
    fresh = asks(requests + 200, nodes, seed=int(perf_counter()))
    sizes = [(await ours.timed(search(next(fresh).text, "")))[1] for _ in range(100)]
    size = sum(sizes) // len(sizes)
    took: dict[str, list[float]] = {"fresh": [], "popular": [], "beside": [], "static": []}
    beside = await Connection.to((await market.ask(f"static {size}"))["url"])
    async with child("benchmarks.market_http", "--serve-static", str(size)) as static:
        bare = await Connection.to(static.url)
        for number in range(-100, requests):  # the first ones warm up
            for kind, connection, request in (
                ("fresh", ours, search(next(fresh).text, "")),
                ("popular", ours, search(*dice.choice(QUERIES))),
                ("beside", beside, get("/api/v1/nodes")),
                ("static", bare, get("/api/v1/nodes")),
            ):
                seconds, _ = await connection.timed(request)
                if number >= 0:
                    took[kind].append(seconds)
                await asyncio.sleep(0.001)
        bare.close()
    beside.close()
    ours.close()
    print(f"pages of {size / 1000:.0f} kB on average")
    return took


async def expiry(market: Child) -> bool:
    """Let some fall silent and wait for them to go offline."""
    silent = (await market.ask(f"silence {SILENT_SHARE}"))["silent"]
    seconds = (await market.ask("expiry"))["seconds"] + 5
    print(f"{silent} nodes fall silent; waiting {seconds:.0f} s for their leases", flush=True)
    ends = perf_counter() + seconds
    while perf_counter() < ends:
        found = await market.ask("expiry")
        if found["offline"] == found["silent"]:
            break
        await asyncio.sleep(1)
    print(
        f"expiry      {found['offline']} of {found['silent']} offline after {found['least']:.3f} to"
        f" {found['most']:.3f} leases (goal {EXPIRY_GOAL})"
    )
    return bool(found["offline"] == found["silent"])


def tell(took: dict[str, list[float]]) -> None:
    """Print the times, and the goal beside them."""
    base = {share: quantile(took["static"], share) for share in (0.5, 0.99)}
    for kind, values in took.items():
        p50, p99 = quantile(values, 0.5), quantile(values, 0.99)
        line = f"{kind:<11} p50 {p50 * 1000:6.2f} ms   p99 {p99 * 1000:6.2f} ms"
        if kind != "static":
            ratio = p99 / base[0.99]
            line += f"   static ×{p50 / base[0.5]:.2f}   ×{ratio:.2f}"
            if kind != "beside":
                line += f" (goal {GOAL})"
        print(line)


async def main(options: argparse.Namespace) -> bool:
    on_sockets = min(SOCKET_NODES, options.nodes // 10)
    async with AsyncExitStack() as stack:
        folder = options.folder or stack.enter_context(tempfile.TemporaryDirectory())
        market = await stack.enter_async_context(
            child(
                *("benchmarks.fleet.hosting", "--nodes", str(options.nodes), "--folder", folder),
                *("--on-sockets", str(on_sockets)),
                *("--heartbeat-seconds", str(options.heartbeat_seconds)),
            )
        )
        said = market.hello
        print(
            f"{options.nodes} nodes: rows written in {said['fill_seconds']:.1f} s,"
            f" market ready after {said['load_seconds']:.1f} s",
            flush=True,
        )
        beater = await stack.enter_async_context(
            child(
                *("benchmarks.market_http", "--beat", market.url, "--nodes", str(options.nodes)),
                *("--on-sockets", str(on_sockets), "--socket-rate", str(options.socket_rate)),
            )
        )
        before, beats = await market.ask("figures"), await beater.ask("")
        took = await measure(market, options.nodes, options.requests)
        after, more = await market.ask("figures"), await beater.ask("")
        told(before, after, beats, more)
        tell(took)
        good = options.no_expiry or await expiry(market)
        last = await beater.ask("")
        if last["wrong"]:
            print(f"{last['wrong']} heartbeats on sockets were refused")
        return good and not last["wrong"]


def told(
    before: dict[str, Any], after: dict[str, Any], beats: dict[str, Any], more: dict[str, Any]
) -> None:
    """What ran beside."""
    seconds = after["time"] - before["time"]
    table = (after["table_beats"] - before["table_beats"]) / seconds
    sockets = (more["count"] - beats["count"]) / seconds
    cpu = (after["cpu"] - before["cpu"]) / seconds
    print(
        f"beside: {table + sockets:,.0f} heartbeats/s for {seconds:.0f} s, {sockets:,.0f}/s of them"
        f" on sockets (p99 {more['p99_ms']:.2f} ms), {table:,.0f}/s through table and write-behind;"
        f" told interval {after['interval']} s"
    )
    print(
        f"market: {cpu:.0%} of a core, {after['bytes_a_node']:,.0f} bytes a node, indexes"
        f" {after['index_bytes'] / 2**20:,.0f} MiB, search p99 {after['scan_p99'] * 1000:g} ms,"
        f" write-behind p99 {after['flush_p99'] * 1000:g} ms, {after['backlog']} waiting"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--socket-rate", type=float, default=1_500)
    parser.add_argument("--heartbeat-seconds", type=int, default=30)
    parser.add_argument(
        "--folder", default="", help="where a filled database is kept for next time"
    )
    parser.add_argument("--no-expiry", action="store_true", help="leave out the wait for leases")
    parser.add_argument("--serve-static", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--beat", default="", help=argparse.SUPPRESS)
    parser.add_argument("--on-sockets", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_static:
        run(serve_static(options.serve_static))
    elif options.beat:
        run(beat(options.beat, options.on_sockets, options.nodes, options.socket_rate))
    else:
        sys.exit(0 if run(main(options)) else 1)
