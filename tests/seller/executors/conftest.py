"""Each executor that works on this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sandbox_bench import AnyExecutor, Bench

from computeswarm.seller.executors.bubblewrap import BubblewrapExecutor
from computeswarm.seller.executors.process import ProcessExecutor


async def _bench(kind: type[AnyExecutor], home: Path) -> AsyncIterator[Bench]:
    executor = kind(home)
    problems = await executor.check()
    if problems:
        pytest.skip(f"{executor.name}: {' '.join(map(str, problems))}")
    bench = Bench(executor, home)
    try:
        yield bench
    finally:
        await bench.close()


@pytest.fixture(params=[BubblewrapExecutor, ProcessExecutor], ids=["bubblewrap", "process"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """Every executor: what holds with walls and without."""
    async for made in _bench(request.param, tmp_path / "seller"):
        yield made


@pytest.fixture(params=[BubblewrapExecutor], ids=["bubblewrap"])
async def walled(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """Every executor that takes strangers' jobs."""
    async for made in _bench(request.param, tmp_path / "seller"):
        yield made
