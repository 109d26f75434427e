"""In every sandbox of this machine a paused job stands still, costs nothing, and goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
from seller_rig import Rig, output_of, spec

from computeswarm.core.errors import ExecutorError
from computeswarm.core.states import JobState

OpenRig = Callable[..., AbstractAsyncContextManager[Rig]]
COUNTS = "import time\nfor i in range(150):\n  print(i, flush=True)\n  time.sleep(0.02)"


@pytest.mark.parametrize("executor", ["docker", "bubblewrap", "process"])
async def test_a_paused_job_stands_still_in_every_sandbox(
    rig: OpenRig,
    executor: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if executor == "docker":
        monkeypatch.setenv("DOCKER_HOST", f"unix://{request.getfixturevalue('docker_engine')}")
    opening = rig(executor=executor)
    try:
        r = await opening.__aenter__()
    except ExecutorError as error:
        pytest.skip(error.detail)
    try:
        bought = await r.buy(spec(COUNTS))
        await bought.first_output()
        run, log = r.agent.run_of(bought.job_id), r.agent.desk.log(bought.job_id)
        assert run is not None and await run.freeze() and run.frozen
        await asyncio.sleep(0.3)  # what was in the pipe comes out
        still, cost = log.last_seq, (await bought.view()).cost
        await asyncio.sleep(1.0)
        view = await bought.view()
        assert (log.last_seq, view.cost, view.paused) == (still, cost, True)
        assert not await run.freeze()  # once is enough
        await run.thaw()
        events = [event async for event in bought.follow()]
        view = await bought.view()
        assert view.state is JobState.SUCCEEDED and not view.paused
        assert output_of(events).split() == [str(i).encode() for i in range(150)]
        second = await r.buy(spec(COUNTS))
        await second.first_output()
        run = r.agent.run_of(second.job_id)
        assert run is not None and await run.freeze()
        assert (await second.call("POST", "/cancel")).json["state"] == "cancelled"
    finally:
        await opening.__aexit__(None, None, None)
