"""The market's OpenAPI document against the market itself: schemathesis, over a real socket."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import checks

from computeswarm.core.crypto import PrivateKey
from computeswarm.market import open_market
from computeswarm.server.market_app import build_market_app
from computeswarm.server.serving import Server

BUYER = PrivateKey(bytes(31) + b"\x05")
ENDLESS = "/api/v1/changes"
"""Answers for as long as somebody listens."""


class _Errors(logging.Handler):
    """What a market that meets rubbish must never log."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A market on a loop of its own, since schemathesis waits for answers where it stands."""
    path: Path = tmp_path_factory.mktemp("schema") / "market.db"
    ready: list[str] = []
    started, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        market = open_market(path, limits={})
        async with Server(build_market_app(market)) as server:
            ready.append(await server.start("127.0.0.1", 0))
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    errors = _Errors()
    logging.getLogger().addHandler(errors)
    thread.start()
    assert started.wait(30)
    yield ready[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(30)
    loop.close()
    logging.getLogger().removeHandler(errors)
    assert [record.getMessage() for record in errors.records] == []


@pytest.fixture(scope="module")
def document(url: str) -> Any:
    return schemathesis.openapi.from_url(f"{url}/openapi.json")


described = schemathesis.pytest.from_fixture("document").exclude(path=ENDLESS)


@described.parametrize()
@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
def test_whatever_is_sent_the_answer_is_as_described(case: Any) -> None:
    """Every answer, to good data and to bad, has a status, a type and a form that are described."""
    # nobody can sign by chance: what is well formed is refused all the same
    case.call_and_validate(
        session=_session, excluded_checks=[checks.positive_data_acceptance], timeout=20
    )


_session = requests.Session()
