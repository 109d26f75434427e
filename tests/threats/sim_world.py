"""A whole small world in one thread: the real chain engine, a whole seller, our buyer, no sockets.

Everything is the product's own but what stands between the parts: time, HTTP, JSON-RPC's
transport and the sandbox. Latencies and faults come from a seeded generator, so a run can be
repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, patch

import aiohttp
from aiohttp.test_utils import make_mocked_request
from sim_loop import PROCESS, Process, SimLoop, connect_in_process

import computeswarm.seller.agent
import computeswarm.seller.build
from computeswarm.buyer.client import Buyer
from computeswarm.buyer.http.base import Answer, Peer
from computeswarm.chain.abi import address_word, selector, uint_word
from computeswarm.chain.artifacts import load_artifact
from computeswarm.chain.devnet.keys import faucet_key
from computeswarm.chain.devnet.pyevm import params
from computeswarm.chain.devnet.pyevm.node import Node
from computeswarm.chain.devnet.pyevm.server import RpcServer
from computeswarm.chain.errors import RpcUnavailable
from computeswarm.chain.multicall import MULTICALL3
from computeswarm.chain.nodes import Nodes
from computeswarm.chain.tx import sign_transaction
from computeswarm.chain.usdc import AUTHORIZATION_USED_TOPIC, TRANSFER_TOPIC
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.channels import BATCH_SETTLEMENT, DEPOSIT_COLLECTOR
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.nodes import ComputeNode, Hardware, Isolation, NodeStatus
from computeswarm.core.settings import Paths, Settings
from computeswarm.seller.agent import SellerAgent
from computeswarm.seller.executors.base import OUTPUTS_DIR, Exit, Launch, Limits
from computeswarm.seller.gpus import Inventory
from computeswarm.server.seller_app import build_seller_app

ENDPOINT = "http://seller.sim"
USDC = BASE_SEPOLIA.usdc.address
CONTRACTS = {
    USDC: "TestUSDC",
    BATCH_SETTLEMENT: "BatchSettlement",
    DEPOSIT_COLLECTOR: "ERC3009DepositCollector",
    MULTICALL3: "Multicall3",
}
MINT = selector("mint(address,uint256)")
GAS_WEI = 10**18
FINAL_DEPTH = 20
"""Blocks after which one is final here; the devnet itself is content with two."""
HARDWARE = Hardware(cpu_model="Simulated", cpu_cores=2, memory_bytes=2**33)


class SimNode(Node):
    """The embedded chain in the simulation's time."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        super().__init__(BASE_SEPOLIA.chain_id)

    def now(self) -> int:
        return int(self._loop.wall()) + self._time_offset


class Chain:
    """The chain, and what it shows of the pinned USDC."""

    def __init__(self, loop: SimLoop) -> None:
        self.node = SimNode(loop)
        self.server = RpcServer(self.node)
        self._nonces: Counter[str] = Counter()
        self._faucet = faucet_key()
        self.ask("anvil_setBalance", self._faucet.address, hex(GAS_WEI))
        for address, contract in CONTRACTS.items():
            code = self.ask("eth_call", {"data": load_artifact(contract)["bytecode"]}, "latest")
            self.ask("anvil_setCode", address, code)
        self._first = self._highest = 0

    def keep(self) -> None:
        """No reorganisation goes below this."""
        self._first = self.node.head.header.block_number

    def ask(self, method: str, *params: Any) -> Any:
        """A request of nobody's."""
        document = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer = self.server.answer(json.dumps(document).encode())
        assert "result" in answer, answer
        return answer["result"]

    def send(self, key: PrivateKey, to: str, data: bytes) -> None:
        """A transaction of somebody outside the simulation's processes; it may revert."""
        signed = sign_transaction(
            key,
            chain_id=BASE_SEPOLIA.chain_id,
            nonce=int(self.ask("eth_getTransactionCount", key.address, "latest"), 16),
            to=to,
            data=data,
            value=0,
            gas=200_000,
            max_fee=10**9,
            priority_fee=10**6,
        )
        self.ask("eth_sendRawTransaction", "0x" + signed.raw.hex())

    def fund(self, address: str, *, atoms: int = 0, wei: int = 0) -> None:
        """Money from nowhere."""
        if atoms:
            self.send(self._faucet, USDC, MINT + address_word(address) + uint_word(atoms))
        if wei:
            self.ask("anvil_setBalance", address, hex(wei))

    def take_back(self, blocks: int) -> None:
        """A reorganisation; what its transactions did is undone, and nobody sends them again."""
        head = int(self.node.head.header.block_number)
        self._highest = max(self._highest, head)
        height = max(self._first, self._highest - FINAL_DEPTH, head - blocks)
        self.node._snapshots.append(height)
        assert self.node.revert(len(self.node._snapshots))

    def balance(self, address: str) -> int:
        """Atoms."""
        data = selector("balanceOf(address)") + address_word(address)
        return int(self.ask("eth_call", {"to": USDC, "data": "0x" + data.hex()}, "latest"), 16)

    def used(self) -> set[str]:
        """The nonces of all authorizations that were used."""
        topic = bytes.fromhex(AUTHORIZATION_USED_TOPIC[2:])
        return {"0x" + log.topics[2].hex() for log in self.node.logs if log.topics[:1] == (topic,)}

    def moved(self, from_: str, to: str) -> int:
        """Atoms that went from one to another."""
        wanted = (
            bytes.fromhex(TRANSFER_TOPIC[2:]),
            bytes(address_word(from_)),
            bytes(address_word(to)),
        )
        logs = (log for log in self.node.logs if log.topics == wanted)
        return sum(int.from_bytes(log.data) for log in logs)


class SimRunning:
    """A job: ``job SECONDS CODE`` prints a line, and ends so."""

    pid = 1
    truncated = False

    def __init__(self, seconds: float, code: int) -> None:
        self._seconds, self._code = seconds, code
        self._ended = asyncio.Event()
        self._exit: Exit | None = None

    async def output(self) -> AsyncIterator[tuple[str, bytes]]:
        await asyncio.sleep(0.05)
        yield "stdout", b"up\n"
        await self._ended.wait()

    async def wait(self) -> Exit:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._seconds):
                await self._ended.wait()
        self._exit = self._exit or Exit(self._code)
        self._ended.set()
        return self._exit

    async def terminate(self, grace: float) -> Exit:
        self._exit = self._exit or Exit(None, 15)
        self._ended.set()
        return self._exit

    async def kill(self) -> Exit:
        return await self.terminate(0)


@dataclass
class SimSpace:
    """A folder."""

    job_id: str
    path: Path

    async def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


class SimExecutor:
    """Starts nothing, and remembers what it was told to start."""

    name = "process"
    isolation = Isolation.NONE
    owner_only = False

    def __init__(self, world: World, folder: Path) -> None:
        self._world, self._folder = world, folder

    async def check(self) -> list[Any]:
        return []

    async def reap(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    async def close(self) -> None:
        await self.reap()

    async def expect(self, *_: Any) -> None:
        pass

    async def prepare(self, job_id: str, limits: Limits, **_: Any) -> SimSpace:
        path = self._folder / job_id
        (path / OUTPUTS_DIR).mkdir(parents=True)
        return SimSpace(job_id, path)

    async def start(self, launch: Launch) -> SimRunning:
        self._world.starts[launch.job_id] += 1
        self._world.on_start(launch.job_id)
        _, seconds, code = launch.command
        return SimRunning(float(seconds), int(code))


@dataclass
class World:
    """The parts, and the faults between them."""

    loop: SimLoop = field(default_factory=SimLoop)
    seed: int = 0

    def __post_init__(self) -> None:
        base = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.folder = Path(tempfile.mkdtemp(prefix="swarm-", dir=base))
        self.random = random.Random(self.seed)
        self.chain = Chain(self.loop)
        self.seller_key, self.buyer_key = PrivateKey(b"\x31" * 32), PrivateKey(b"\x32" * 32)
        self.third_key = PrivateKey(b"\x33" * 32)
        self.starts: Counter[str] = Counter()
        self.unpaid_starts: list[str] = []
        self.rpc_mode = "up"
        self.rpc_faults: dict[str, list[str]] = {}
        """What happens to the next calls of a method; then ``rpc_mode`` holds."""
        self.line_faults: list[str] = []
        self.seller: Process | None = None
        self.agent: SellerAgent | None = None
        self.app: Any = None
        self.buyer_process: Process | None = None
        self.buyer: Buyer | None = None
        for key in (self.seller_key, self.third_key, self.buyer_key):
            self.chain.fund(key.address, wei=GAS_WEI)
        self._patches = contextlib.ExitStack()
        self._patch()

    def _patch(self) -> None:
        enter = self._patches.enter_context
        enter(patch("sqlite3.connect", connect_in_process(sqlite3.connect)))
        enter(patch.object(Nodes, "_post", _rpc_post(self)))
        enter(patch.object(Peer, "request", _peer_request(self)))
        enter(patch.object(computeswarm.seller.agent, "MarketConnector", NoMarket))
        enter(patch.object(computeswarm.seller.build, "detect", _detect))
        enter(patch.object(computeswarm.seller.build, "choose_executor", self._executor))
        enter(patch("computeswarm.seller.machine.SAMPLE_SECONDS", 60.0))
        enter(patch.dict(params._FROM_HEAD, {"safe": FINAL_DEPTH // 2, "finalized": FINAL_DEPTH}))
        clock = SimpleNamespace(
            monotonic=self.loop.time,
            time=self.loop.wall,
            localtime=time.localtime,
            strftime=time.strftime,
            perf_counter=time.perf_counter,
        )
        for name, module in list(sys.modules.items()):
            told = name.startswith("computeswarm.") and ".pyevm" not in name
            if told and getattr(module, "time", None) is time:
                enter(patch.object(module, "time", clock))

    async def _executor(self, wanted: str, home: Path, *_: Any) -> Any:
        return SimExecutor(self, home / "process"), ()

    def close(self) -> None:
        """Everything dies."""
        for process in (self.seller, self.buyer_process):
            if process is not None and process.alive:
                process.kill()
                process.tidy()
        self._patches.close()
        self.loop.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # Processes

    @property
    def up(self) -> bool:
        """Whether the seller serves."""
        return self.seller is not None and self.seller.alive and self.app is not None

    def start_seller(self) -> bool:
        """On the folder of the last one; False where he died as he started."""
        assert self.seller is None or not self.seller.alive
        self.seller = process = Process(self.loop, "seller")
        self.agent = self.app = None
        settings = Settings(
            market="http://127.0.0.1:9",
            rpc="http://chain.sim",
            node_name="sim",
            price="3.60",
            slice_seconds=10,
            max_job_seconds=3600,
            endpoint=ENDPOINT,
        )
        paths = Paths.find({"COMPUTESWARM_HOME": str(self.folder / "seller")})

        async def start() -> bool:
            parts = await computeswarm.seller.build.build_seller(
                settings, paths, self.seller_key, clock=process, tune=self.tune()
            )
            app = build_seller_app(parts.agent, "0" * 64)
            app.freeze()
            self.agent = parts.agent
            await parts.agent.start(ENDPOINT)
            self.app = app
            return True

        return bool(process.run(start()))

    def tune(self) -> dict[str, Any]:
        """What a simulated seller is configured with."""
        return {"term_seconds": 1.0}

    def kill_seller(self) -> None:
        """``kill -9``."""
        assert self.seller is not None
        if self.seller.alive:
            self.seller.kill()
        self.seller.tidy()

    def stop_seller(self) -> None:
        """SIGTERM."""
        if self.up:
            assert self.agent is not None and self.seller is not None
            self.seller.run(self.agent.stop())
            if self.seller.alive:
                self.seller.kill()
            self.seller.tidy()

    def start_buyer(self, **policy: str) -> None:
        """On the folder of the last one."""
        assert self.buyer_process is None or not self.buyer_process.alive
        self.buyer_process = process = Process(self.loop, "buyer")
        home = self.folder / "buyer"
        settings = Settings(market="http://127.0.0.1:9", rpc="http://chain.sim", **policy)
        paths = Paths(config=home, state=home, cache=home / "cache")

        async def start() -> Buyer:
            buyer = Buyer(settings, paths, self.buyer_key, clock=process, present_seconds=20.0)
            return await buyer.__aenter__()

        self.buyer = process.run(start())

    def kill_buyer(self) -> None:
        """``kill -9``."""
        assert self.buyer_process is not None
        if self.buyer_process.alive:
            self.buyer_process.kill()
        self.buyer_process.tidy()
        self.buyer = None

    def pass_time(self, seconds: float) -> None:
        """Let everybody work."""
        self.loop.run_until_complete(asyncio.sleep(seconds))
        for process in (self.seller, self.buyer_process):
            if process is not None and not process.alive:
                process.tidy()

    # What is between them

    async def latency(self) -> None:
        """On the way."""
        await asyncio.sleep(self.random.choice((0.001, 0.005, 0.02, 0.3)))

    async def rpc(self, body: bytes) -> bytes:
        """The chain's answer to a process, or none."""
        process = PROCESS.get()
        if process is not None:
            process.io()
        await self.latency()
        mode = self._fate(body)
        if mode == "down":
            raise RpcUnavailable("down")
        if mode in _ANSWERS:
            return _ANSWERS[mode](json.loads(body))
        reply = json.dumps(self.chain.server.answer(body)).encode()
        if process is not None:
            process.io()
        await self.latency()
        if mode == "deaf":  # accepted, and the answer lost
            raise RpcUnavailable("timed out")
        return reply

    def _fate(self, body: bytes) -> str:
        asked = json.loads(body)
        method = asked.get("method") if isinstance(asked, dict) else "batch"
        if waiting := self.rpc_faults.get(method):
            return waiting.pop(0)
        if self.rpc_mode == "flaky":
            return self.random.choice(("up", "up", "down", "deaf"))
        return self.rpc_mode

    async def http(self, method: str, path: str, headers: Any, body: bytes) -> Answer | None:
        """The seller's answer; None where the line, or he, broke."""
        fault = self.line_faults.pop(0) if self.line_faults else "ok"
        await self.latency()
        if not self.up or fault == "lost request":
            return None
        posts = [
            self._serve(method, path, headers, body) for _ in range(3 if fault == "doubled" else 1)
        ]
        answers = await asyncio.gather(*posts)
        await self.latency()
        return None if fault == "lost reply" else answers[-1]

    async def _serve(self, method: str, path: str, headers: Any, body: bytes) -> Answer | None:
        assert self.seller is not None
        task = self.loop.create_task(
            _handle(self.app, method, path, headers, body), context=self.seller.context
        )
        await asyncio.wait({task})
        return None if task.cancelled() else task.result()

    # What they do

    def node(self) -> ComputeNode:
        """The seller as a market lists him."""
        assert self.agent is not None
        now = int(self.loop.wall())
        record = self.agent.offers.record()
        node_id = self.agent.node_id
        return ComputeNode(
            node_id=node_id,
            status=NodeStatus.IDLE,
            record=record,
            registered_at=now,
            last_seen=now,
        )

    def on_start(self, job_id: str) -> None:
        """A job starts: its first slice has to be on the chain at this very moment (I1)."""
        (row,) = self.rows(
            "seller/seller/jobs.db", "SELECT authorization FROM jobs WHERE job_id = ?", job_id
        )
        if row[0].partition(":")[2].lower() not in self.chain.used():
            self.unpaid_starts.append(job_id)

    def rows(self, path: str, query: str, *values: object) -> list[Any]:
        """What a file of theirs says, read from outside."""
        file = self.folder / path
        if not file.exists():
            return []
        db = sqlite3.connect(file, factory=sqlite3.Connection)
        try:
            db.row_factory = sqlite3.Row
            return db.execute(query, values).fetchall()
        finally:
            db.close()


def _refuse(asked: Any) -> bytes:
    error = {"code": -32000, "message": "insufficient funds for gas * price + value"}
    return json.dumps({"jsonrpc": "2.0", "id": asked["id"], "error": error}).encode()


def _swallow(asked: Any) -> bytes:
    """As if it had been taken; or, for a receipt, not mined."""
    sent = asked["method"] == "eth_sendRawTransaction"
    result = "0x" + "11" * 32 if sent else None
    return json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}).encode()


_ANSWERS = {"refuse": _refuse, "swallow": _swallow}


class NoMarket:
    """The market is away."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def start(self) -> None: ...
    def refresh(self, **_: Any) -> None: ...
    def report(self, *_: Any) -> None: ...
    async def close(self, **_: Any) -> None: ...


async def _detect(_: Path) -> Inventory:
    return Inventory(HARDWARE, None)


def _rpc_post(world: World) -> Any:
    async def post(_: Nodes, __: int, body: bytes, ___: float) -> bytes:
        return await world.rpc(body)

    return post


def _peer_request(world: World) -> Any:
    async def request(
        self: Peer,
        method: str,
        path: str,
        *,
        body: Any = None,
        headers: Any = None,
        params: Any = None,
        seconds: float | None = 30.0,
        accept: tuple[int, ...] = (),
        **_: Any,
    ) -> Answer:
        unavailable = self._unavailable("no answer")
        if self.url != ENDPOINT:
            raise unavailable
        process = PROCESS.get()
        assert process is not None
        process.io()
        try:
            async with asyncio.timeout(seconds):
                answer = await world.http(method, path, headers or {}, body or b"")
        except TimeoutError:
            raise unavailable from None
        process.io()
        if answer is None:
            raise unavailable
        if answer.status >= 400 and answer.status not in accept:
            raise self.problem(answer)
        return answer

    return request


async def _handle(app: Any, method: str, path: str, headers: Any, body: bytes) -> Answer:
    protocol = Mock(_reading_paused=False)
    payload = aiohttp.StreamReader(protocol, 2**16, loop=asyncio.get_running_loop())
    payload.feed_data(body)
    payload.feed_eof()
    given = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
    writer = Mock(output_size=0)
    request = make_mocked_request(
        method, path, headers=given, payload=payload, app=app, writer=writer
    )
    response = await app._handle(request)
    names = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status, names, bytes(response.body or b""))


@contextlib.contextmanager
def world(seed: int = 0) -> Iterator[World]:
    """A world of its own."""
    made = World(seed=seed)
    try:
        yield made
    finally:
        made.close()
