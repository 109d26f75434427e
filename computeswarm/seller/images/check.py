"""Whether an image works: a small job in the real sandbox imports what the image promises."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from pathlib import Path
from typing import Any

from computeswarm.core.errors import ComputeSwarmError
from computeswarm.core.text import clean_line
from computeswarm.seller.executors.base import Executor, Launch, Limits, Problem
from computeswarm.seller.executors.docker import DockerExecutor
from computeswarm.seller.images.containers import EngineImages
from computeswarm.seller.images.image import Image
from computeswarm.seller.images.store import ImageStore

_SECONDS = 180.0
"""PyTorch takes its time on a slow disk."""
_MOST_BYTES = 65_536
_STANDARD = ("_ctypes", "_ssl", "_sqlite3", "_lzma", "_bz2", "zlib", "_hashlib", "zoneinfo")
"""Modules of the standard library that need shared libraries or data."""
_HELLO = """
import importlib, json, re, sys
names, packages = json.loads(sys.argv[1])
broken = {}
def attempt(name, told=None):
    try:
        importlib.import_module(name)
    except BaseException as error:
        broken[told or name] = f"{type(error).__name__}: {error}"
for name in names:
    attempt(name)
if packages:
    from importlib.metadata import distribution, packages_distributions
    plain = lambda text: re.sub("[-_.]+", "-", text).lower()
    modules = {}
    for module, owners in packages_distributions().items():
        for owner in owners:
            modules.setdefault(plain(owner), set()).add(module)
    for package in packages:
        try:
            distribution(package)
        except Exception:
            broken[package] = "it isn't installed"
            continue
        for module in sorted(modules.get(plain(package), ())):
            if module.isidentifier() and not module.startswith("_"):
                attempt(module, package)
print(json.dumps({"version": sys.version.split()[0], "broken": broken}))
"""


async def check_in(executor: Executor, home: Path, name: str) -> list[Problem]:
    """Why an image of the seller can't be used in that sandbox; empty means it can.

    Nothing is pulled. A container is no matter of a sandbox that has none.

    Args:
        executor: one that works.
        home: the seller's state directory.
    """
    containers = None
    if isinstance(executor, DockerExecutor):
        containers = EngineImages(home / "images", executor.engine)
    store = ImageStore(home, containers=containers)
    if problems := store.check(name):
        return problems
    image = store.get(name)
    if image.reference and containers is None:
        return []  # nobody is offered it there
    try:
        if containers is not None and image.reference and not await containers.has(image):
            what = f"{name} hasn't been pulled yet."
            return [Problem(what, f"Run `computeswarm images pull {name}`, or let a job do it.")]
        with store.using(name):
            return await try_out(executor, await store.ensure(name))
    except ComputeSwarmError as error:
        return [Problem(f"{name} can't be had:", error.detail)]


async def try_out(executor: Executor, image: Image) -> list[Problem]:
    """Run a job in the image, and say precisely what doesn't work; empty means all does.

    Args:
        image: one that ``ImageStore.ensure`` gave for that executor.
    """
    wanted = [] if image.reference else [n for n in _STANDARD if importlib.util.find_spec(n)]
    packages = [_bare(package) for package in image.packages]
    try:
        async with asyncio.timeout(_SECONDS):
            said, told, status = await _run(executor, image, json.dumps([wanted, packages]))
    except TimeoutError:
        return [Problem(f"{image.name} said nothing for {_SECONDS:g} s.", "Is the machine busy?")]
    except ComputeSwarmError as error:
        return [Problem(f"{image.name} doesn't start:", error.detail)]
    return _judge(image, said, told, status)


async def _run(executor: Executor, image: Image, wanted: str) -> tuple[bytes, bytes, int]:
    limits, job_id = Limits(), f"check-{image.name.replace('.', '-').replace('_', '-')}"
    space = await executor.prepare(job_id, limits, image=image)
    try:
        command = ("python", "-c", _HELLO, wanted)
        running = await executor.start(Launch(job_id, command, {}, space.path, image, limits))
        kept = {"stdout": b"", "stderr": b""}
        try:
            async for stream, chunk in running.output():
                kept[stream] = (kept[stream] + chunk)[-_MOST_BYTES:]
            status = (await running.wait()).status
        finally:
            await running.kill()
    finally:
        await space.close()
    return kept["stdout"], kept["stderr"], status


def _judge(image: Image, said: bytes, told: bytes, status: int) -> list[Problem]:
    try:
        answer: dict[str, Any] = json.loads(said.splitlines()[-1])
        broken = dict(answer["broken"])
    except (IndexError, KeyError, TypeError, ValueError):
        last = (told.decode(errors="replace").strip().splitlines() or ["no reason is given"])[-1]
        what = f"Python ends with status {status} in {image.name}:"
        return [Problem(what, clean_line(last, limit=300))]
    fix = "Choose another image." if image.reference else f"Build {image.name} again."
    return [
        Problem(f"{clean_line(name, limit=60)} can't be used ({clean_line(str(why))}).", fix)
        for name, why in broken.items()
    ]


def _bare(requirement: str) -> str:
    """The name in ``name[extra]>=1``."""
    for mark in "[=<>!~":
        requirement = requirement.partition(mark)[0]
    return requirement
