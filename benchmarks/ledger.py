"""The books: listing 100,000 lines against SQLite and csv alone, and auditing 10,000.

    python -m benchmarks.ledger [--rows 100000] [--audit 10000]

The audit runs against a node of ours in a process of its own that answers from memory, so that the
time is the auditor's and the wire's. Peak memory is the program's own, from the kernel.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import multiprocessing
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from aiohttp import web

from computeswarm.chain.abi import address_word, uint_word
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.usdc import AUTHORIZATION_USED_TOPIC, TRANSFER_TOPIC
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.settings import Paths
from computeswarm.payments.claims import ClaimStore
from computeswarm.payments.ledger.audit import Auditor
from computeswarm.server.serving import Server

SELLER, BUYER = "0x" + "5e" * 20, "0x" + "b0" * 20
TOKEN = BASE_SEPOLIA.usdc.address
AMOUNT = 10
BEGIN = 1_700_000_000


def fill(path: Path, count: int) -> None:
    """So many settled payments, one in each block."""
    ClaimStore(path).close()
    given = json.dumps({"from_": BUYER, "to": SELLER})
    db = sqlite3.connect(path)
    with db:
        db.executemany(
            "INSERT INTO claims (chain_id, token, payer, nonce, binding, subject, pay_to, amount,"
            " authorization, signature, state, tx, created_at, settled_at)"
            " VALUES (84532,?,?,?,'b',?,?,?,?,x'','consumed',?,?,?)",
            (
                (
                    *(TOKEN, BUYER, f"0x{n:064x}", f"job-{n:020x}", SELLER, AMOUNT, given),
                    *(f"0x{n:064x}", BEGIN + n, BEGIN + n),
                )
                for n in range(1, count + 1)
            ),
        )
        db.executemany(
            "INSERT INTO receipts (tx, block, block_hash, gas_used, gas_price, own, final)"
            " VALUES (?,?,?,90000,10,1,1)",
            ((f"0x{n:064x}", n, f"0x{n:064x}") for n in range(1, count + 1)),
        )
    db.close()


def run_cli(home: Path, *flags: str) -> tuple[float, float]:
    """Seconds of wall time, and MiB at the peak, of one command in a process of its own."""
    code = (
        "import sys; from computeswarm.cli.main import main;"
        f"main(['ledger', '--home', {str(home)!r}, *{list(flags)!r}]);"
        # not getrusage: that peak is the parent's own where it was higher before the exec
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'));"
        "print(peak.split()[1], file=sys.stderr)"
    )
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True
    )
    return time.perf_counter() - begun, int(done.stderr.split()[-1]) / 1024


def bare(path: Path) -> float:
    """The same columns by SQLite and the csv module alone."""
    begun = time.perf_counter()
    db = sqlite3.connect(path)
    rows = db.execute(
        "SELECT settled_at, subject, payer, pay_to, amount, tx FROM claims ORDER BY 1"
    )
    with Path("/dev/null").open("w") as sink:
        csv.writer(sink).writerows(rows)
    db.close()
    return time.perf_counter() - begun


def _word(address: str) -> str:
    return "0x" + address_word(address).hex()


def receipt(number: int) -> dict[str, Any]:
    """A settlement of ours, as nodes show it."""
    used = {
        "address": TOKEN,
        "topics": [AUTHORIZATION_USED_TOPIC, _word(BUYER), f"0x{number:064x}"],
        "data": "0x",
    }
    return {
        "transactionHash": f"0x{number:064x}",
        "status": "0x1",
        "blockNumber": hex(number),
        "blockHash": f"0x{number:064x}",
        "gasUsed": "0x1",
        "effectiveGasPrice": "0x1",
        "logs": [used, moved(number)],
    }


def moved(number: int) -> dict[str, Any]:
    """Its transfer."""
    return {
        "address": TOKEN,
        "topics": [TRANSFER_TOPIC, _word(BUYER), _word(SELLER)],
        "data": "0x" + uint_word(AMOUNT).hex(),
        "blockNumber": hex(number),
        "transactionHash": f"0x{number:064x}",
    }


def node(count: int, ready: Connection) -> None:
    """A chain of so many settlements, one in each block."""

    def block(tag: str) -> dict[str, str]:
        number = count if tag == "latest" else int(tag, 16)
        return {
            "number": hex(number),
            "hash": f"0x{number:064x}",
            "timestamp": hex(BEGIN + number),
        }

    def logs(query: dict[str, Any]) -> list[Any]:
        if query["topics"][1] is not None:
            return []  # the seller sends nothing
        first, last = int(query["fromBlock"], 16), int(query["toBlock"], 16)
        return [moved(number) for number in range(max(1, first), min(count, last) + 1)]

    methods: dict[str, Callable[[Any], Any]] = {
        "eth_chainId": lambda _: hex(BASE_SEPOLIA.chain_id),
        "eth_getBlockByNumber": lambda params: block(params[0]),
        "eth_getTransactionReceipt": lambda params: receipt(int(params[0], 16)),
        "eth_getLogs": lambda params: logs(params[0]),
        "eth_call": lambda params: f"0x{int(params[1], 16) * AMOUNT:064x}",
    }

    def answer(call: Any) -> Any:
        result = methods[call["method"]](call["params"])
        return {"jsonrpc": "2.0", "id": call["id"], "result": result}

    async def handle(request: web.Request) -> web.Response:
        asked = json.loads(await request.read())
        if isinstance(asked, list):
            return web.json_response([answer(call) for call in asked])
        return web.json_response(answer(asked))

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/", handle)
        async with Server(app) as server:
            ready.send(await server.start("127.0.0.1", 0))
            await asyncio.Event().wait()

    asyncio.run(serve())


async def audit(paths: Paths, url: str) -> float:
    """Seconds of an audit that has to be clean."""
    begun = time.perf_counter()
    async with RpcClient(url) as rpc:
        found = await Auditor(paths, BASE_SEPOLIA, rpc).run()
    assert found.clean, found.reports[0].differences[:3]
    return time.perf_counter() - begun


def list_books(rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder) / "small", Path(folder) / "large"
        fill(small / "seller" / "payments.db", 1_000)
        fill(large / "seller" / "payments.db", rows)
        plain = bare(large / "seller" / "payments.db")
        _, base = run_cli(small, "--csv")
        for flags in (("--csv",), ("--json",), (), ("--limit", "20")):
            seconds, peak = run_cli(large, *flags)
            name = " ".join(flags) or "table"
            print(
                f"ledger {name:<10} {rows:,} rows: {seconds:5.2f} s, {rows / seconds:9,.0f} rows/s,"
                f" {seconds / plain:4.1f} x bare; peak {peak:.0f} MiB ({peak - base:+.0f} MiB"
                " against 1,000 rows)"
            )


def audit_books(count: int) -> None:
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(
        target=node, args=(count, there), daemon=True
    )
    child.start()
    try:
        url = here.recv()
        with tempfile.TemporaryDirectory() as folder:
            paths = Paths.find({"COMPUTESWARM_HOME": folder})
            fill(paths.seller / "payments.db", count)
            seconds = asyncio.run(audit(paths, url))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"audit {count:,} entries: {seconds:.2f} s, {count / seconds:,.0f}/s, {peak:.0f} MiB")
    finally:
        child.kill()
        child.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--audit", type=int, default=10_000)
    args = parser.parse_args()
    list_books(args.rows)
    audit_books(args.audit)


if __name__ == "__main__":
    main()
