"""A network for jobs: where the seller allows it and the buyer asks, and then only outwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from internet import HERE, INSIDE, INTERNET
from seller_rig import Rig, output_of, spec

from computeswarm.buyer.client import Buyer
from computeswarm.chain.devnet import Devnet
from computeswarm.core.errors import ExecutorError
from computeswarm.core.nodes import Isolation
from computeswarm.core.settings import Paths, Settings
from computeswarm.core.states import JobState
from computeswarm.seller.executors import network

OpenRig = Callable[..., AbstractAsyncContextManager[Rig]]
LOOK = f"""
import json, socket
found = {{}}
for host, port in (('{INTERNET}', 8000), ('{INTERNET}', 25), ('{INSIDE}', 8000), ('{HERE}', 28123),
                   ('127.0.0.1', 28123), ('10.0.2.2', 28123), ('169.254.169.254', 80)):
    try:
        with socket.create_connection((host, port), 4) as s:
            found[f'{{host}}:{{port}}'] = s.recv(99).decode()
    except OSError as error:
        found[f'{{host}}:{{port}}'] = ''
print(json.dumps(found))
import os
print(os.path.exists('/etc/resolv.conf') and open('/etc/resolv.conf').readline())
"""


@pytest.mark.parametrize("executor", ["bubblewrap", "docker"])
async def test_a_job_that_asks_reaches_the_internet_only(
    executor: str,
    rig: OpenRig,
    internet: None,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    devnet: Devnet,
) -> None:
    if executor == "docker":
        monkeypatch.setenv("DOCKER_HOST", f"unix://{request.getfixturevalue('docker_engine')}")
    opening = rig(executor=executor, allow_network=True)
    try:
        r = await opening.__aenter__()
    except ExecutorError as error:
        pytest.skip(error.detail)
    try:
        assert r.agent.offers.record().document["network"] is True
        for wanted in (True, False):
            bought = await r.buy(spec(LOOK, network=wanted, max_seconds=60))
            events = [event async for event in bought.follow()]
            assert (await bought.view()).state is JobState.SUCCEEDED, output_of(events, "stderr")
            said, server, *_ = output_of(events).decode().split("\n")
            reached = {place: text for place, text in json.loads(said).items() if text}
            answer = {f"{INTERNET}:8000": f"hello from {HERE}"}
            assert reached == (answer if wanted else {})
            if wanted:
                assert server == "nameserver 10.0.2.3"
        # buyers find it by that
        paths = Paths.find({"COMPUTESWARM_HOME": str(tmp_path / "buyer")})
        async with Buyer(Settings(market=r.market_url), paths) as buyer:
            assert len(await buyer.candidates("network", network=True)) == 1
    finally:
        await opening.__aexit__(None, None, None)


async def test_it_is_off_by_default(rig: OpenRig, tmp_path: Path) -> None:
    async with rig() as r:
        assert r.agent.offers.record().document["network"] is False
        reply = await r.call("POST", "/quotes", json={"spec": spec(network=True)})
        assert reply.status == 422 and "no network here" in reply.text()
        paths = Paths.find({"COMPUTESWARM_HOME": str(tmp_path / "buyer")})
        async with Buyer(Settings(market=r.market_url), paths) as buyer:
            assert len(await buyer.candidates()) == 1
            assert await buyer.candidates(network=True) == []


async def test_it_is_not_offered_where_it_can_not_be_kept_from_the_sellers_own_networks(
    rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network.shutil, "which", lambda tool: None)
    assert network.offer_problems(Isolation.NONE) == []
    for isolation in (Isolation.NAMESPACE, Isolation.CONTAINER):
        assert "slirp4netns" in str(network.offer_problems(isolation)[0])
    assert "gVisor" in str(network.offer_problems(Isolation.GVISOR)[0])
    monkeypatch.undo()
    problems = "computeswarm.seller.build.offer_problems"
    monkeypatch.setattr(problems, lambda _: network.offer_problems(Isolation.GVISOR))
    async with rig(allow_network=True) as r:
        assert r.agent.offers.record().document["network"] is False
        assert any("Jobs get no network" in note for note in r.agent.notes)
