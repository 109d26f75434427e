"""Images by digest, from a real registry into a real engine."""

from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path

import pytest
from docker_engine import ask
from image_registry import Registry, digest, layer

from computeswarm.core.errors import ComputeSwarmError, ConfigError
from computeswarm.seller.executors.docker.engine import Engine
from computeswarm.seller.images import ImageError, ImageStore
from computeswarm.seller.images.containers import EngineImages
from computeswarm.seller.images.pull import Layers, pull, reason

FILLER = b"filler" * 700_000
"""A few MiB: more than one piece."""


async def test_an_image_is_pulled_once_for_all_who_wait_and_told_to_each(
    store: ImageStore, registry: Registry, python_root: bytes, docker_engine: str
) -> None:
    reference = registry.put(python_root)
    store.add("theirs", reference)
    await store.look()
    assert store.to_pull() == ["theirs"]
    registry.pace = 0.04
    first: list[str] = []
    second: list[str] = []
    began = time.monotonic()
    images = await asyncio.gather(
        store.ensure("theirs", first.append), store.ensure("theirs", second.append)
    )
    took = time.monotonic() - began
    assert images[0] == images[1]
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", images[0].container)
    assert registry.served.count(digest(python_root)) == 1
    counted = [line for line in first if re.search(r"\d of (at least )?\d.* MiB", line)]
    assert counted and first[0].startswith("Pulling the image 127.0.0.1")
    assert len(first) <= took + 2
    assert second and second[-1] == first[-1]
    assert store.to_pull() == []
    asked = len(registry.served)
    again = await store.ensure("theirs", first.append)  # it is there
    assert (again, len(registry.served)) == (images[0], asked)
    # a container of it is a job, even one that is yet to start
    body = {"Image": images[0].container, "Cmd": ["python3"]}
    _, made = ask(docker_engine, "POST", "/containers/create", body)
    with pytest.raises(ImageError, match="A container uses the image theirs"):
        await store.remove("theirs")
    assert (await store.ensure("theirs")).container == images[0].container
    ask(docker_engine, "DELETE", f"/containers/{json.loads(made)['Id']}")
    await store.remove("theirs")
    store.add("theirs", reference)
    await store.look()
    assert store.to_pull() == ["theirs"]  # the engine has let go of it


async def test_one_who_leaves_leaves_the_others_their_pull_and_the_last_ends_it(
    store: ImageStore, registry: Registry
) -> None:
    filler = layer({"filler": FILLER})
    store.add("theirs", registry.put(filler))
    registry.go.clear()
    waiting = [asyncio.create_task(store.ensure("theirs")) for _ in range(2)]
    async with asyncio.timeout(30):
        while digest(filler) not in registry.served:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    waiting[0].cancel()
    await asyncio.gather(waiting[0], return_exceptions=True)
    assert not registry.left.is_set() and not waiting[1].done()
    waiting[1].cancel()
    await asyncio.gather(waiting[1], return_exceptions=True)
    async with asyncio.timeout(30):
        await registry.left.wait()
    registry.go.set()
    with pytest.raises(ImageError, match="no Python 3"):  # it came, and holds none
        await store.ensure("theirs")


async def test_a_pull_that_fails_says_so_in_one_clean_sentence(
    store: ImageStore, registry: Registry
) -> None:
    store.add("nowhere", f"{registry.host}/theirs@sha256:{'0' * 64}")
    for _ in range(2):  # what failed is tried anew
        with pytest.raises(ComputeSwarmError, match=r"can't be .*\.$") as told:
            await store.ensure("nowhere")
        assert "\x1b" not in told.value.detail and "\n" not in told.value.detail
    assert reason("write /x/y: no space left on device") == (
        "The seller's disk is full: there is no room for the image."
    )


async def test_a_registry_that_falls_silent_is_given_up(engine: Engine, registry: Registry) -> None:
    reference = registry.put(layer({"filler": FILLER}))
    registry.go.clear()
    with pytest.raises(ImageError, match="nothing came for 2 s"):
        await pull(engine, reference, lambda _: None, stall=2)


async def test_blobs_that_do_not_fit_their_digest_are_refused(
    store: ImageStore, registry: Registry
) -> None:
    right = layer({"evil": b"a" * 100})
    reference = registry.put(right)
    registry.blobs[digest(right)] = right.replace(b"a" * 100, b"b" * 100)
    store.add("theirs", reference)
    with pytest.raises(ComputeSwarmError, match="verification failed"):
        async with asyncio.timeout(60):
            await store.ensure("theirs")


def test_only_a_digest_names_an_image(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    good = f"docker.io/library/python@sha256:{'0' * 64}"
    for bad in ("python", "python:3.12", f"python:3.12@sha256:{'0' * 63}", f"-x@sha256:{'0' * 64}"):
        with pytest.raises(ConfigError, match="digest"):
            store.add("mine", bad)
    for bad in ("../mine", "Mine", "", "python-ml"):
        with pytest.raises(ConfigError):
            store.add(bad, good)
    store.add("mine", good)
    # jobs run without containers here, so nobody is offered it
    assert [i.name for i in store.list()] == ["python", "mine"]
    assert [i.name for i in store.offered()] == ["python"]


async def test_without_containers_a_container_is_no_image(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    store.add("mine", f"python@sha256:{'0' * 64}")
    with pytest.raises(ImageError, match="runs jobs without"):
        await store.ensure("mine")
    await store.remove("mine")
    assert [i.name for i in store.list()] == ["python"]


async def test_an_engine_that_is_gone_is_said(tmp_path: Path) -> None:
    engine = Engine(str(tmp_path / "nothing"))
    store = ImageStore(tmp_path, containers=EngineImages(tmp_path / "images", engine))
    try:
        with pytest.raises(ComputeSwarmError, match=r"engine doesn't answer\.$"):
            await store.ensure("python")
        await store.look()  # tells nothing, and breaks nothing
    finally:
        await engine.close()


def test_layers_are_summed() -> None:
    layers = Layers()
    for name in ("a", "b"):
        layers.count({"id": name, "status": "Pulling fs layer"})
    assert not layers.known
    mib = 2**20
    part = {"current": mib, "total": 4 * mib}
    layers.count({"id": "a", "status": "Downloading", "progressDetail": part})
    assert layers.text() == "Pulling the image: 1.0 of at least 4.0 MiB."
    part = {"current": 3 * mib, "total": 6 * mib}
    layers.count({"id": "b", "status": "Downloading", "progressDetail": part})
    assert layers.text() == "Pulling the image: 4.0 of 10.0 MiB."
    layers.count({"id": "a", "status": "Download complete", "progressDetail": {}})
    layers.count({"id": "b", "status": "Pull complete"})
    layers.count({"id": "a", "status": "Extracting", "progressDetail": {"current": 1}})
    assert layers.text() == "Unpacking the image of 10.0 MiB."
