"""From nothing to a job's first line in every sandbox of this machine, against its bare command:
the same Python, started by hand with no walls worth the name, alternately in the same run.

    python -m benchmarks.spawn [ROUNDS]
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

from computeswarm.seller.executors.base import Executor, Launch, Limits
from computeswarm.seller.executors.choose import look_at_each
from computeswarm.seller.executors.docker import DockerExecutor
from computeswarm.seller.images import Image, ImageStore, host_python
from computeswarm.seller.images.containers import EngineImages

GOALS = {"docker": 1.3, "bubblewrap": 1.5}
LINE = "print('first line', flush=True)"
LIMITS = Limits()
PAUSE_SECONDS = 0.3
"""Between a job's end, when the next sandbox is made ahead, and the next job."""

Bare = Callable[[], Awaitable[float]]


async def spawn(executor: Executor, image: Image, index: int, *, warm: bool = False) -> float:
    """Seconds of a whole job up to its first line; the sandbox is made ahead where ``warm``."""
    name = f"bench-{index}"
    if warm:
        await executor.expect(image, LIMITS)
        await asyncio.sleep(PAUSE_SECONDS)
    began = time.perf_counter()
    workspace = await executor.prepare(name, LIMITS, image=image)
    try:
        command = ("python", "-c", LINE)
        running = await executor.start(Launch(name, command, {}, workspace.path, image, LIMITS))
        async with aclosing(running.output()) as output:  # type: ignore[type-var]
            async for _ in output:
                took = time.perf_counter() - began
                break
        await running.kill()
    finally:
        await workspace.close()
    return took


async def command(*argv: str) -> float:
    """Seconds from a program's start to its first line."""
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    await process.stdout.readline()
    took = time.perf_counter() - began
    await process.wait()
    return took


async def container(executor: DockerExecutor, image: Image) -> float:
    """Seconds of create, attach, start and a line over the engine's interface."""
    body: dict[str, Any] = {
        "Image": image.container,
        "Cmd": [str(image.python), "-c", LINE],
        "AttachStdout": True,
        "NetworkDisabled": True,
        "HostConfig": {"NetworkMode": "none"},
    }
    began = time.perf_counter()
    made = await executor.engine.client.containers.create(body)
    try:
        line = made.attach(stdout=True)
        async with line:
            await made.start()
            await line.read_out()
            took = time.perf_counter() - began
    finally:
        await made.delete(force=True, v=True)
    return took


async def bare_command(executor: Executor, home: Path) -> tuple[Image, Bare]:
    """The image for an executor, and its own way of running that without us."""
    if isinstance(executor, DockerExecutor):
        images = ImageStore(home, containers=EngineImages(home / "images", executor.engine))
        image = await images.ensure("python")
        return image, lambda: container(executor, image)
    python = (str(host_python().python), "-c", LINE)
    if executor.name != "bubblewrap":
        return host_python(), lambda: command(*python)
    bwrap = shutil.which("bwrap") or "bwrap"
    walls = ("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--unshare-all")
    return host_python(), lambda: command(bwrap, *walls, "--die-with-parent", *python)


async def measure(executor: Executor, home: Path, rounds: int) -> None:
    image, bare = await bare_command(executor, home)
    ways: dict[str, Bare] = {"bare": bare}
    index = 0

    async def cold() -> float:
        return await spawn(executor, image, index)

    async def warm() -> float:
        return await spawn(executor, image, index, warm=True)

    ways["spawn"] = cold
    if isinstance(executor, DockerExecutor):
        ways["made ahead"] = warm
    times: dict[str, list[float]] = {way: [] for way in ways}
    for index in range(-2, rounds):  # two rounds to warm up
        for way, run in ways.items():
            took = await run()
            if index >= 0:
                times[way].append(took)
    medians = {way: statistics.median(values) for way, values in times.items()}
    goal = f" (goal {GOALS[executor.name]:g})" if executor.name in GOALS else ""
    for way, seconds in medians.items():
        ratio = "" if way == "bare" else f"   {seconds / medians['bare']:5.2f} x{goal}"
        print(f"{executor.name:<11} {way:<10} {seconds * 1000:7.1f} ms{ratio}")


async def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with tempfile.TemporaryDirectory(prefix="computeswarm-bench-") as folder:
        looked = await look_at_each(Path(folder))
        try:
            for executor, problems in looked:
                if problems:
                    print(f"{executor.name:<11} can't be used: {' '.join(map(str, problems))}")
                else:
                    await measure(executor, Path(folder), rounds)
        finally:
            for executor, _ in looked:
                await executor.close()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
