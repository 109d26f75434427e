"""``seller status|pause|…`` against a seller that runs, from another process's point of view."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from seller_rig import PRICE, Rig, open_rig, spec

from computeswarm.chain.devnet import Devnet
from computeswarm.core.states import JobState

ENDLESS = "import time\nprint('up', flush=True)\nwhile True: time.sleep(0.05)"


@pytest_asyncio.fixture
async def r(devnet: Devnet, tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_rig(devnet, tmp_path) as made:
        await asyncio.sleep(0)  # whoever obeys waits for the first one
        made.agent.stop_requested = asyncio.Event()  # or the wish would end the tests
        yield made


async def seller(home: Path, *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``computeswarm seller …``."""
    argv = [sys.executable, "-c", "from computeswarm.cli.main import entry; entry()", "seller"]
    process = await asyncio.create_subprocess_exec(
        *(*argv, *words),
        env={"COMPUTESWARM_HOME": str(home), "PATH": "/usr/bin:/bin"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode(), err.decode()


async def test_the_owner_rules_a_running_seller_from_the_command_line(r: Rig) -> None:
    home = r.paths.state
    running, waiting = await r.buy(spec(ENDLESS, name="train")), await r.buy(spec())
    await running.first_output()
    code, shown, _ = await seller(home, "status")
    assert code == 0 and "1 of 1 running, 1 waiting" in shown and "takes jobs" in shown
    assert running.job_id[:12] in shown and "<1m" in shown  # the other starts in so much at most
    code, out, _ = await seller(home, "pause", "--reason", "dinner", "--json")
    status = json.loads(out)
    assert code == 0 and status["mood"] == "paused" and "dinner" in status["mood_reason"]
    assert status["jobs"][1]["queue_position"] == 1
    assert (await seller(home, "resume"))[0] == 0 and r.agent.status().accepting
    code, out, _ = await seller(home, "price", "7.20")
    assert code == 0 and "7.20 USDC" in out and r.agent.offers.price_per_hour == 2 * PRICE
    code, out, _ = await seller(home, "evict", running.job_id[:10])
    assert code == 0 and running.job_id in out
    assert (await running.view()).state is JobState.SELLER_LOST
    assert (await waiting.ended()).state is JobState.SUCCEEDED
    code, _, err = await seller(home, "evict", running.job_id)
    assert code == 125 and "ended already" in err
    assert (await seller(home, "drain", "--then-stop"))[0] == 0
    assert r.agent.stop_requested.is_set()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["status"], "No seller runs on this machine"),
        (["price"], "takes a price"),
        (["status", "x"], "takes nothing more"),
        (["pause", "--then-stop"], "goes with `seller drain`"),
        (["dance"], "choose from"),
    ],
)
async def test_what_can_not_be_done_is_said_in_a_sentence(
    tmp_path: Path, words: list[str], says: str
) -> None:
    code, out, err = await seller(tmp_path, *words)
    assert (code, out) == (125, "") and says in err and "Traceback" not in err
