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


async def test_the_owner_answers_jobs_and_holds_gpus_from_the_command_line(
    devnet: Devnet, tmp_path: Path
) -> None:
    async with open_rig(devnet, tmp_path, accept="ask") as r:
        home = r.paths.state
        wanted, unwanted = await r.buy(spec(ENDLESS)), await r.buy(spec())
        code, shown, _ = await seller(home, "status")
        assert code == 0 and "asks (1m " in shown and "seller accept JOB" in shown
        code, out, _ = await seller(home, "accept", wanted.job_id[:12])
        assert code == 0 and f"{wanted.job_id} is let in" in out
        await wanted.first_output()
        code, out, _ = await seller(home, "reject", unwanted.job_id, "--reason", "lunch", "--json")
        jobs = {job["job_id"]: job for job in json.loads(out)["jobs"]}
        assert code == 0 and jobs[unwanted.job_id]["state"] == "seller_lost"
        assert "turned the job away: lunch;" in (await unwanted.view()).reason
        code, _, err = await seller(home, "accept", wanted.job_id)
        assert code == 125 and "running already; evict ends it" in err
        code, out, _ = await seller(home, "hold", "0")
        assert code == 0 and "The machine is yours" in out and r.agent.holds.machine
        code, shown, _ = await seller(home, "status")
        assert "Held     the machine" in shown and "keeps the machine for himself" in shown
        code, _, err = await seller(home, "hold", "7")
        assert code == 125 and "no GPU 7 here" in err
        assert (await seller(home, "release", "0"))[0] == 0 and not r.agent.holds.machine
        assert (await wanted.view()).state is JobState.RUNNING
        await wanted.call("POST", "/cancel")
        await r.refunded(wanted)
        await r.refunded(unwanted)


async def test_a_price_that_must_be_a_slip_is_asked_for_again(r: Rig) -> None:
    home = r.paths.state
    code, out, err = await seller(home, "price", "1e9")
    assert (code, out) == (125, "") and "more than 10 times your price now (3.60)" in err
    assert "--yes" in err and r.agent.offers.price_per_hour == PRICE
    code, out, _ = await seller(home, "price", "36")  # ten times is dear, and no slip
    assert code == 0 and r.agent.offers.price_per_hour == 10 * PRICE
    code, out, _ = await seller(home, "price", "400", "--yes")
    assert code == 0 and r.agent.offers.price_per_hour == 400_000_000


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["status"], "No seller runs on this machine"),
        (["price"], "takes a price"),
        (["status", "x"], "takes nothing more"),
        (["accept"], "takes the start of a job's id"),
        (["hold"], "takes the number of a GPU"),
        (["pause", "--then-stop"], "goes with `seller drain`"),
        (["dance"], "choose from"),
    ],
)
async def test_what_can_not_be_done_is_said_in_a_sentence(
    tmp_path: Path, words: list[str], says: str
) -> None:
    code, out, err = await seller(tmp_path, *words)
    assert (code, out) == (125, "") and says in err and "Traceback" not in err
