"""Lines a second from a job to a client that follows it, against the same script writing into a
pipe that is read here; and what a client that stops reading costs the seller in memory.

    python -m benchmarks.log_flow [LINES]
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

from benchmarks.world import World, idle_node, world
from computeswarm.buyer.client import Buyer
from computeswarm.buyer.spec import plan_job
from computeswarm.core.events import OutputEvent
from computeswarm.core.money import parse_usdc

BUDGET = parse_usdc("1")
ROUNDS = 3
MIB = 2**20
SCRIPT = """
import sys
line = "x" * 59 + "\\n"
for _ in range({lines} // 100):
    sys.stdout.write(line * 100)
"""
FLOOD_LINES = 700_000
"""42 MB of output, which the seller keeps whole."""
STALL_SECONDS = 8.0


async def piped(script: Path) -> float:
    """Seconds until the script's last line has been read from a pipe."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(script)), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    began = 0.0
    while chunk := await process.stdout.read(2**16):
        began = began or time.perf_counter()
        del chunk
    await process.wait()
    return time.perf_counter() - began


async def bought(buyer: Buyer, script: Path) -> str:
    """The id of a job that runs the script."""
    node = await idle_node(buyer)
    offer = await buyer.quote(node, await asyncio.to_thread(plan_job, script))
    return (await buyer.start(offer, budget=BUDGET)).job_id


async def followed(buyer: Buyer, script: Path, lines: int) -> float:
    """Seconds from the first line to the last at a client that follows the job."""
    job_id, began, ended, seen = await bought(buyer, script), 0.0, 0.0, 0
    async with aclosing(buyer.follow(job_id)) as events:
        async for event in events:
            if isinstance(event, OutputEvent):
                began = began or time.perf_counter()
                seen += event.data.count("\n")
                ended = time.perf_counter()
    assert seen == lines, f"{seen} of {lines} lines came"
    return ended - began


async def stalled(made: World, script: Path) -> tuple[float, float]:
    """MiB of the seller's process before a job floods a client that doesn't read, and its most."""
    before = most = resident(made.pid)
    job_id = await bought(made.buyer, script)
    async with aclosing(made.buyer.follow(job_id)) as events:
        await anext(events)
        deadline = time.perf_counter() + STALL_SECONDS
        while time.perf_counter() < deadline:
            most = max(most, resident(made.pid))
            await asyncio.sleep(0.05)
        async for _ in events:  # and then it reads all of it after all
            most = max(most, resident(made.pid))
    return before, most


def resident(pid: int) -> float:
    """MiB of a process's memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


async def measure(lines: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        script, flood = Path(name, "lines.py"), Path(name, "flood.py")
        script.write_text(SCRIPT.format(lines=lines))
        flood.write_text(SCRIPT.format(lines=FLOOD_LINES))
        async with world() as made:
            times: dict[str, list[float]] = {"pipe": [], "job": []}
            for index in range(-1, ROUNDS):  # one round to warm up
                pair = {
                    "pipe": await piped(script),
                    "job": await followed(made.buyer, script, lines),
                }
                for key, seconds in pair.items() if index >= 0 else ():
                    times[key].append(seconds)
            rates = {key: lines / statistics.median(v) for key, v in times.items()}
            print(f"into a local pipe           {rates['pipe']:11,.0f} lines/s")
            print(f"from a job to its follower  {rates['job']:11,.0f} lines/s")
            print(f"ratio {rates['job'] / rates['pipe']:.3f} x")
            before, most = await stalled(made, flood)
            sent = FLOOD_LINES * 60 / MIB
            print(f"a follower who stops reading {sent:.0f} MiB: the seller grows by", end=" ")
            print(f"{most - before:.0f} MiB (from {before:.0f})")


if __name__ == "__main__":
    asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000))
