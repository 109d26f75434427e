"""What a card does inside every sandbox of this machine against outside, alternately in the same
run: a matrix product, a copy on the card and one to it. Torch runs in children only.

    python -m benchmarks.gpu [ROUNDS]
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from computeswarm.core.nodes import GPUInfo
from computeswarm.seller.executors.base import Executor, Launch, Limits
from computeswarm.seller.executors.choose import look_at_each
from computeswarm.seller.executors.docker import DockerExecutor
from computeswarm.seller.gpus import detect
from computeswarm.seller.images import Image, ImageStore, host_python
from computeswarm.seller.images.containers import EngineImages

GOAL = 0.99
LIMITS = Limits(memory_bytes=16 * 2**30, wall_seconds=300)
SECONDS = 300.0
UNITS = {"product": "TFLOP/s", "copy": "GB/s", "to the card": "GB/s"}
WORK = """
import json, statistics, torch
SIDE, SIZE = 8192, 2**30
a, b = (torch.randn(SIDE, SIDE, device="cuda", dtype=torch.float16) for _ in "ab")
card, other = (torch.empty(SIZE, dtype=torch.uint8, device="cuda") for _ in "ab")
host = torch.empty(SIZE, dtype=torch.uint8).pin_memory()
def rate(work, amount):
    times = []
    for number in range(25):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in "ab")
        began.record(); work(); ended.record(); torch.cuda.synchronize()
        if number >= 5:
            times.append(began.elapsed_time(ended) / 1000)
    return amount / statistics.median(times)
print(json.dumps({
    "product": rate(lambda: a @ b, 2 * SIDE**3 / 1e12),
    "copy": rate(lambda: other.copy_(card), 2 * SIZE / 1e9),
    "to the card": rate(lambda: card.copy_(host, non_blocking=True), SIZE / 1e9),
}))
"""

Rates = dict[str, float]


class NotDone(Exception):
    """A child gave no rates, and what it said."""


def rates(status: int | None, out: bytes, err: bytes) -> Rates:
    """What a child printed. Raises NotDone."""
    if status != 0:
        raise NotDone(err.decode(errors="replace").strip().rpartition("\n")[2] or f"exit {status}")
    return {name: float(value) for name, value in json.loads(out).items()}


async def outside(site: Path, gpu: GPUInfo) -> Rates:
    """The same interpreter and torch without any wall. Raises NotDone."""
    process = await asyncio.create_subprocess_exec(
        *(str(host_python().python), "-c", WORK),
        env=os.environ | {"PYTHONPATH": str(site), "CUDA_VISIBLE_DEVICES": gpu.uuid},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), SECONDS)
    return rates(process.returncode, out, err)


async def inside(executor: Executor, image: Image, gpu: GPUInfo, index: int) -> Rates:
    """As a buyer's job. Raises NotDone."""
    name, gpus = f"bench-{index}", (gpu,)
    workspace = await executor.prepare(name, LIMITS, image=image, gpus=gpus)
    said: dict[str, bytes] = {"stdout": b"", "stderr": b""}
    try:
        command = ("python", "-c", WORK)
        running = await executor.start(
            Launch(name, command, {}, workspace.path, image, LIMITS, gpus=gpus)
        )
        async for stream, data in running.output():
            said[stream] += data
        ended = await running.wait()
    finally:
        await workspace.close()
    return rates(ended.status, said["stdout"], said["stderr"])


async def base_image(executor: Executor, home: Path) -> Image:
    """The plain Python of an executor."""
    if not isinstance(executor, DockerExecutor):
        return host_python()
    return await ImageStore(home, containers=EngineImages(home / "images", executor.engine)).ensure(
        "python"
    )


async def measure(executor: Executor, home: Path, site: Path, gpu: GPUInfo, rounds: int) -> None:
    """Print the rates and their ratios. Raises NotDone."""
    image = dataclasses.replace(await base_image(executor, home), site=site)
    found: dict[str, list[Rates]] = {"outside": [], "inside": []}
    for index in range(rounds):
        ways: dict[str, Callable[[], Awaitable[Rates]]] = {
            "outside": lambda: outside(site, gpu),
            "inside": lambda index=index: inside(executor, image, gpu, index),  # type: ignore[misc]
        }
        for way, run in ways.items():
            found[way].append(await run())
    for name, unit in UNITS.items():
        bare, walled = (
            statistics.median(rate[name] for rate in found[way]) for way in ("outside", "inside")
        )
        print(
            f"{executor.name:<11} {name:<12} {walled:8.1f} {unit:<8} outside {bare:8.1f}"
            f"   {walled / bare:5.3f} x (goal {GOAL:g})"
        )


async def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    gpus = (await detect()).gpus
    torch = importlib.util.find_spec("torch")
    if not gpus or torch is None or torch.origin is None:
        print(f"skipped: {'torch is not installed (extra `gpu`)' if gpus else 'no GPU here'}")
        return 0
    site, failed = Path(torch.origin).parent.parent, False
    print(f"{gpus[0].model}, {rounds} rounds")
    with tempfile.TemporaryDirectory(prefix="computeswarm-bench-") as folder:
        looked = await look_at_each(Path(folder), gpus[:1])
        try:
            for executor, problems in looked:
                if problems:
                    print(f"{executor.name:<11} can't be used: {' '.join(map(str, problems))}")
                    continue
                try:
                    await measure(executor, Path(folder), site, gpus[0], rounds)
                except NotDone as error:
                    print(f"{executor.name:<11} did not work: {error}")
                    failed = True
        finally:
            for executor, _ in looked:
                await executor.close()
    return int(failed)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
