"""An image is anybody's program, also while it is only asked for its Python."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from docker_engine import ask

from computeswarm.seller.executors.docker import DockerExecutor
from computeswarm.seller.executors.docker.engine import Engine
from computeswarm.seller.images import ImageError, host_python
from computeswarm.seller.images import containers as module
from computeswarm.seller.images.containers import EngineImages


@pytest.fixture
async def hostile(docker_engine: str, engine: Engine, tmp_path: Path) -> AsyncIterator[str]:
    """This machine's Python in an image that declares a volume anybody may write to."""
    own = await EngineImages(tmp_path / "own", engine).ensure(host_python(), lambda _: None)
    _, made = ask(
        docker_engine, "POST", "/containers/create", {"Image": own.container, "Cmd": ["true"]}
    )
    base = json.loads(made)["Id"]
    change = f"VOLUME /tmp\nENV PATH={own.python.parent}:/usr/bin:/bin"
    query = urlencode({"container": base, "changes": change})
    _, committed = ask(docker_engine, "POST", f"/commit?{query}", {})
    image = str(json.loads(committed)["Id"])
    ask(docker_engine, "DELETE", f"/containers/{base}?force=1")
    yield image
    ask(docker_engine, "DELETE", f"/images/{image}?force=1")


async def test_an_image_that_is_asked_fills_no_disk(
    hostile: str, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = EngineImages(tmp_path / "images", engine)
    assert (await images._python_inside(hostile)).name.startswith("python")
    fill = (
        "f = open('/tmp/x', 'wb')\n"
        "for _ in range(300): f.write(bytes(2**20))\n"
        "import sys; print(sys.executable)"
    )
    monkeypatch.setattr(module, "_ASK", ("python3", "-c", fill))
    with pytest.raises(ImageError):
        await images._python_inside(hostile)


async def test_an_image_that_is_asked_does_not_outlive_the_seller(
    hostile: str,
    docker_engine: str,
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after a kill: what is still asked when the seller starts anew is removed."""
    images = EngineImages(tmp_path / "images", engine)
    monkeypatch.setattr(module, "_ASK", ("python3", "-c", "import time; time.sleep(600)"))
    asking = asyncio.create_task(images._python_inside(hostile))
    executor = DockerExecutor(tmp_path, socket=docker_engine)
    try:
        async with asyncio.timeout(30):
            while not await executor._ours():  # noqa: ASYNC110 - the engine sets no event
                await asyncio.sleep(0.05)
            await executor.reap()
            with pytest.raises(ImageError):
                await asking
        assert await executor._ours() == []
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await executor.close()
