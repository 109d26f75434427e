"""An engine, a registry, and the machine's Python as a layer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from docker_engine import ask
from image_registry import Registry, python_layer, serving

from computeswarm.seller.executors.docker.engine import Engine
from computeswarm.seller.images import ImageStore
from computeswarm.seller.images.containers import EngineImages


@pytest.fixture
async def engine(docker_engine: str) -> AsyncIterator[Engine]:
    made = Engine(docker_engine)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
def store(engine: Engine, tmp_path: Path) -> ImageStore:
    home = tmp_path / "seller"
    return ImageStore(home, containers=EngineImages(home / "images", engine))


@pytest.fixture(scope="session")
def python_root() -> bytes:
    return python_layer()


@pytest.fixture
async def registry(docker_engine: str) -> AsyncIterator[Registry]:
    """One whose images are gone from the engine afterwards."""
    async with serving() as made:
        yield made
        for name in made.manifests:
            url = f"/images/{made.host}/theirs@{name}"
            await asyncio.to_thread(ask, docker_engine, "DELETE", url)
