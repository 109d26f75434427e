"""The same life in the sandbox that strangers' jobs get, and how one is chosen."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import pytest
from seller_rig import Rig, input_file, output_of, spec

from computeswarm.chain.devnet import Devnet
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import ComputeSwarmError, ConfigError, ExecutorError
from computeswarm.core.settings import Paths, Settings
from computeswarm.core.states import JobState
from computeswarm.seller.build import build_seller
from computeswarm.seller.executors.base import Problem
from computeswarm.seller.executors.bubblewrap import BubblewrapExecutor
from computeswarm.seller.executors.choose import choose_executor
from computeswarm.seller.executors.docker import DockerExecutor

OpenRig = Callable[..., AbstractAsyncContextManager[Rig]]


async def test_a_strangers_job_runs_behind_walls(
    rig: OpenRig, devnet: Devnet, tmp_path: Path
) -> None:
    if problems := await BubblewrapExecutor(tmp_path / "probe").check():
        pytest.skip(str(problems[0]))
    secret = tmp_path / "secret"
    secret.write_text("x")
    code = (
        "import os,socket\n"
        f"print(os.path.exists({str(secret)!r}), os.path.exists('/root/.ssh'))\n"
        "print(open('in.txt').read())\n"
        "try:\n socket.create_connection(('127.0.0.1',1))\n"
        "except OSError as e: print(e.errno != 0)\n"
        "open('outputs/out','w').write('done')"
    )
    # the buyer is not among the trusted wallets: behind walls, everybody is served
    async with rig(executor="auto", trusted=[devnet.keys[5].address]) as r:
        bought = await r.buy(spec(code, inputs=[input_file("in.txt", b"input")]))
        (digest,) = (await bought.view()).missing_inputs
        assert (await bought.call("PUT", f"/inputs/{digest}", data=b"input")).status == 204
        events = [event async for event in bought.follow()]
        view = await r.refunded(bought)
        assert output_of(events) == b"False False\ninput\nTrue\n", output_of(events, "stderr")
        assert view.state is JobState.SUCCEEDED
        assert (await bought.call("GET", "/outputs/out")).body == b"done"
        assert r.agent.status().isolation == "namespace"


async def test_without_a_sandbox_only_named_wallets_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(_: object) -> list[Problem]:
        return [Problem("It isn't installed.", "Run `apt-get install it`.")]

    monkeypatch.setattr(BubblewrapExecutor, "check", nothing)
    monkeypatch.setattr(DockerExecutor, "check", nothing)
    with pytest.raises(ExecutorError, match="apt-get install it"):
        await choose_executor("auto", tmp_path, [])
    with pytest.raises(ExecutorError, match=r"bubblewrap can't .*apt-get install it"):
        await choose_executor("bubblewrap", tmp_path, ["0x1"])
    with pytest.raises(ExecutorError, match=r"docker can't .*apt-get install it"):
        await choose_executor("docker", tmp_path, ["0x1"])
    with pytest.raises(ExecutorError, match="trust"):
        await choose_executor("process", tmp_path, [])
    with pytest.raises(ConfigError, match="docker, bubblewrap, sandbox-exec or process"):
        await choose_executor("podman", tmp_path, [])
    executor, notes = await choose_executor("auto", tmp_path, ["0x1"])
    assert executor.name == "process" and "trusted" in notes[0]


async def test_it_is_said_why_a_stronger_sandbox_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(_: object) -> list[Problem]:
        return [Problem("It isn't installed.", "Run `apt-get install it`.")]

    async def fine(_: object) -> list[Problem]:
        return []

    monkeypatch.setattr(DockerExecutor, "check", nothing)
    monkeypatch.setattr(BubblewrapExecutor, "check", fine)
    executor, notes = await choose_executor("auto", tmp_path, [])
    assert executor.name == "bubblewrap" and "apt-get install it" in notes[0]
    assert (await choose_executor("bubblewrap", tmp_path, []))[1] == ()  # as the seller wishes


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("price", "0"),
        ("price", "x"),
        ("slice_seconds", 0),
        ("tick_seconds", 0),
        ("tick_seconds", 61),
        ("max_job_seconds", 10**9),
        ("facilitator", "nowhere"),
        ("confirm_safe_above", "x"),
        ("confirm_finalized_above", "1.00"),
        ("max_gas_share", "1.5"),
        ("eth_price", "-1"),
        ("endpoint", "nowhere"),
        ("rpc", ""),
        ("network", "1"),
    ],
)
async def test_settings_that_can_not_work_are_named(
    tmp_path: Path, name: str, value: object
) -> None:
    settings = replace(Settings(rpc="http://127.0.0.1:9", executor="process"), **{name: value})
    paths = Paths.find({"COMPUTESWARM_HOME": str(tmp_path)})
    with pytest.raises(ComputeSwarmError) as caught:
        await build_seller(settings, paths, PrivateKey.generate(), trusted=["0x1"])
    assert caught.value.status == 400
