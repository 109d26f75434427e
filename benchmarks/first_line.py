"""From the paid click to the job's first line, against what can't be saved: the executor's own
spawn and the chain's own raw-transaction-to-receipt, measured alternately in the same run.

    python -m benchmarks.first_line [ROUNDS]
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

from computeswarm.buyer.client import Buyer
from computeswarm.buyer.spec import plan_job
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.usdc import transfer_calldata
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.events import OutputEvent
from computeswarm.core.money import parse_usdc
from computeswarm.core.settings import Paths, Settings
from computeswarm.payments.wallet import load_wallet, resolve_password
from computeswarm.seller.executors.base import Executor, Launch, Limits
from computeswarm.seller.executors.bubblewrap import BubblewrapExecutor
from computeswarm.seller.executors.process import ProcessExecutor
from computeswarm.seller.images import ImageStore

GOAL = 1.5
BUDGET = parse_usdc("1")
SCRIPT = "print('first line', flush=True)\n"


async def spawn(executor: Executor, images: ImageStore, index: int) -> float:
    """Seconds from nothing to the first line, with the executor alone."""
    name, limits = f"bench-{index}", Limits()
    began = time.perf_counter()
    workspace = await executor.prepare(name, limits)
    try:
        (workspace.path / "hello.py").write_text(SCRIPT)
        running = await executor.start(
            Launch(name, ("python", "hello.py"), {}, workspace.path, images.get("python"), limits)
        )
        async with aclosing(running.output()) as output:  # type: ignore[type-var]
            async for _ in output:
                took = time.perf_counter() - began
                break
        await running.kill()
    finally:
        await workspace.close()
    return took


async def settle(sender: TxSender, usdc: str) -> float:
    """Seconds from a signed transaction to its receipt."""
    signed = await sender.prepare(usdc, transfer_calldata(sender.address, 1))
    began = time.perf_counter()
    await sender.broadcast(signed)
    await sender.wait_receipt(signed.hash)
    return time.perf_counter() - began


async def buy(buyer: Buyer, script: Path) -> float:
    """Seconds from "pay" to the first line at the buyer."""
    node = (await buyer.candidates())[0]
    offer = await buyer.quote(node, await asyncio.to_thread(plan_job, script))
    began, took = time.perf_counter(), 0.0
    job = await buyer.start(offer, budget=BUDGET)
    async with aclosing(buyer.follow(job.job_id)) as events:
        async for event in events:
            if isinstance(event, OutputEvent) and not took:
                took = time.perf_counter() - began
    return took


async def measure(home: Path, rpc_url: str, key: PrivateKey, rounds: int) -> None:
    paths = Paths.find({"COMPUTESWARM_HOME": str(home)})
    settings = Settings.load(environ={"COMPUTESWARM_HOME": str(home)}, paths=paths)
    usdc = settings.chain.usdc.address
    times: dict[str, list[float]] = {"spawn": [], "settle": [], "buy": []}
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "hello.py")
        script.write_text(SCRIPT)
        images = ImageStore(Path(folder))
        executor: Executor = BubblewrapExecutor(Path(folder))
        if await executor.check():
            executor = ProcessExecutor(Path(folder))
        async with Buyer(settings, paths, key) as buyer, RpcClient(rpc_url) as rpc:
            sender = TxSender(rpc, key, settings.chain_id)
            for index in range(-2, rounds):  # two rounds to warm up
                row = {
                    "spawn": await spawn(executor, images, index),
                    "settle": await settle(sender, usdc),
                    "buy": await buy(buyer, script),
                }
                for name, seconds in row.items() if index >= 0 else ():
                    times[name].append(seconds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    floor = medians["spawn"] + medians["settle"]
    print(f"{executor.name} spawn to first line  {medians['spawn'] * 1000:6.1f} ms")
    print(f"raw transaction to receipt       {medians['settle'] * 1000:6.1f} ms")
    print(f"pay to the buyer's first line    {medians['buy'] * 1000:6.1f} ms")
    print(f"ratio {medians['buy'] / floor:.2f} x (goal {GOAL:g})")


async def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    environ = {k: v for k, v in os.environ.items() if not k.startswith("COMPUTESWARM_")}
    demo = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "computeswarm", "demo", "--headless",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, env=environ,
    )  # fmt: skip
    try:
        assert demo.stdout is not None
        ready = json.loads(await asyncio.wait_for(demo.stdout.readline(), 120))
        home = Path(ready["home"])
        paths = Paths.find({"COMPUTESWARM_HOME": str(home)})
        settings = Settings.load(environ={"COMPUTESWARM_HOME": str(home)}, paths=paths)
        password = resolve_password(settings, environ={})
        key = await asyncio.to_thread(load_wallet, paths.wallet, password)
        await measure(home, ready["rpc"], key, rounds)
    finally:
        demo.send_signal(signal.SIGTERM)
        await demo.wait()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
