"""A fake seller and a buyer with a fresh wallet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from buyer_fakes import FakeSeller, make_buyer, serving

from computeswarm.buyer.client import Buyer
from computeswarm.buyer.spec import JobPlan, plan_job
from computeswarm.core.crypto import PrivateKey


@pytest.fixture
def key() -> PrivateKey:
    return PrivateKey.generate()


@pytest_asyncio.fixture
async def seller() -> AsyncIterator[FakeSeller]:
    async with serving(FakeSeller()) as fake:
        yield fake


@pytest_asyncio.fixture
async def buyer(tmp_path: Path, key: PrivateKey) -> AsyncIterator[Buyer]:
    async with make_buyer(tmp_path / "b", key, lost_seconds=2, present_seconds=20) as made:
        yield made


@pytest.fixture
def plan(tmp_path: Path) -> JobPlan:
    script = tmp_path / "job.py"
    script.write_text("print('hello')\n")
    return plan_job(script)
