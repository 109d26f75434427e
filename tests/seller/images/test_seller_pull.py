"""A buyer's job in an image that the seller has to pull first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
from image_registry import Registry, digest, layer
from seller_rig import Rig, output_of, spec

from computeswarm.core.errors import ComputeSwarmError
from computeswarm.core.events import OutputEvent, StateEvent
from computeswarm.core.quotes import Quote
from computeswarm.core.states import JobState
from computeswarm.seller.images import ImageStore

OpenRig = Callable[..., AbstractAsyncContextManager[Rig]]
FILLER = b"filler" * 700_000


async def quoted(r: Rig, job: dict[str, object]) -> Quote:
    return Quote.model_validate((await r.quote(job)).document)


async def to_pull(r: Rig, listed: str) -> list[str]:
    record = (await r.call("GET", listed)).json["record"]["document"]
    return list(record["images_to_pull"])


async def test_a_pull_is_told_to_the_buyer_costs_nothing_and_can_be_cancelled(
    rig: OpenRig,
    docker_engine: str,
    registry: Registry,
    python_root: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{docker_engine}")
    opening = rig(executor="docker")
    try:
        r = await opening.__aenter__()
    except ComputeSwarmError as error:
        pytest.skip(error.detail)
    try:
        store = ImageStore(r.paths.seller)
        store.add("theirs", registry.put(python_root))
        filler = layer({"filler": FILLER})
        store.add("slow", registry.put(filler))
        store.add("gone", f"{registry.host}/theirs@sha256:{'0' * 64}")
        record = r.agent.offers.record()
        assert record.document["images_to_pull"] == ["gone", "slow", "theirs"]

        job = spec("import sys; print('in', sys.version_info[0])", image="theirs")
        assert (await quoted(r, job)).pulls_image
        registry.pace = 0.03  # some seconds, which are a multiple of what the job takes
        bought = await r.buy(job)
        events = [event async for event in bought.follow()]
        view = await bought.view()
        assert view.state is JobState.SUCCEEDED, view
        assert output_of(events) == b"in 3\n"
        told = [e.reason for e in events if isinstance(e, StateEvent) and "ulling" in e.reason]
        assert any(" MiB" in text for text in told), told
        first = next(n for n, e in enumerate(events) if isinstance(e, OutputEvent))
        assert all("ulling" not in getattr(e, "reason", "") for e in events[first:])
        pulled_ms = len(python_root) / 2**20 * registry.pace * 1000
        assert view.metered_ms < pulled_ms
        assert not (await quoted(r, job)).pulls_image
        listed = f"{r.market_url}/api/v1/nodes/{r.agent.node_id}"
        async with asyncio.timeout(60):  # the market hears of both by itself
            while await to_pull(r, listed) != ["gone", "slow"]:  # noqa: ASYNC110
                await asyncio.sleep(0.1)

        failed = await (await r.buy(spec(image="gone"))).ended()
        assert (failed.state, failed.cost) == (JobState.FAILED, 0)
        assert "can't be" in failed.reason and "\x1b" not in failed.reason

        registry.go.clear()
        waiting = await r.buy(spec(image="slow"))
        async with asyncio.timeout(60):
            while digest(filler) not in registry.served:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        reply = await waiting.call("POST", "/cancel")
        assert reply.json["state"] == "cancelled"
        async with asyncio.timeout(60):
            await registry.left.wait()
        assert (await waiting.view()).cost == 0
    finally:
        await opening.__aexit__(None, None, None)
