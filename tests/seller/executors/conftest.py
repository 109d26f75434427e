"""Each executor that works on this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sandbox_bench import AnyExecutor, Bench

from computeswarm.seller.executors.bubblewrap import BubblewrapExecutor
from computeswarm.seller.executors.docker import DockerExecutor
from computeswarm.seller.executors.process import ProcessExecutor
from computeswarm.seller.images import host_python
from computeswarm.seller.images.containers import EngineImages


@pytest.fixture(scope="session")
def noted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where it is noted which image is this machine's Python, so that it is packed once."""
    return tmp_path_factory.mktemp("images")


def _made(request: pytest.FixtureRequest, home: Path) -> AnyExecutor:
    if request.param == "docker":
        return DockerExecutor(home, socket=request.getfixturevalue("docker_engine"))
    return BubblewrapExecutor(home) if request.param == "bubblewrap" else ProcessExecutor(home)


async def _bench(executor: AnyExecutor, home: Path, noted: Path) -> AsyncIterator[Bench]:
    problems = await executor.check()
    if problems:
        pytest.skip(f"{executor.name}: {' '.join(map(str, problems))}")
    bench = Bench(executor, home)
    if isinstance(executor, DockerExecutor):
        images = EngineImages(noted, executor.engine)
        bench.image = await images.ensure(host_python(), lambda _: None)
    try:
        yield bench
    finally:
        await bench.close()


@pytest.fixture(params=["bubblewrap", "docker", "process"])
async def bench(
    request: pytest.FixtureRequest, tmp_path: Path, noted: Path
) -> AsyncIterator[Bench]:
    """Every executor: what holds with walls and without."""
    home = tmp_path / "seller"
    async for made in _bench(_made(request, home), home, noted):
        yield made


@pytest.fixture(params=["bubblewrap", "docker"])
async def walled(
    request: pytest.FixtureRequest, tmp_path: Path, noted: Path
) -> AsyncIterator[Bench]:
    """Every executor that takes strangers' jobs."""
    home = tmp_path / "seller"
    async for made in _bench(_made(request, home), home, noted):
        yield made
