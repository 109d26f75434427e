"""``run``, ``jobs``, ``logs``, ``cancel``, ``outputs`` and ``nodes`` as a person types them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest_asyncio
from buying_world import FakeJob, World, on_terminal, world

from computeswarm.core.states import JobState

OUTPUTS = {"curve.csv": b"1,2\n", "deep/model.bin": b"\x00\x01"}


@pytest_asyncio.fixture
async def there(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


def speaks(job: FakeJob) -> None:
    job.state(JobState.RUNNING)
    job.say(b"caf\xc3\xa9 \xff\x1b[31m\r\n")
    job.say(b"careful\n", "stderr")
    job.outputs = dict(OUTPUTS)
    job.end(JobState.FAILED, 3)


def only_job(there: World) -> str:
    (job_id,) = there.seller.jobs
    return job_id


async def test_a_run_passes_bytes_through_and_ends_as_the_job_ends(there: World) -> None:
    there.seller.runs = speaks
    ended = await there.cli(
        "run", "job.py", "--yes", "--output", "got", "--env", "K=a=b", "--", "--n", "3"
    )

    assert ended.code == 3
    assert ended.out == b"caf\xc3\xa9 \xff\x1b[31m\r\n"
    assert "careful\n" in ended.err
    assert "The most you can lose: 0.075 USDC" in ended.err
    assert "exit code 3" in ended.err
    assert "Paid     0.06 USDC" in ended.err
    assert {p: (there.folder / "got" / p).read_bytes() for p in OUTPUTS} == OUTPUTS
    spec = there.seller.jobs[only_job(there)].request.spec
    assert spec.command == ("python", "job.py", "--n", "3")
    assert spec.env == {"K": "a=b"}
    assert spec.max_seconds == 600
    async with aiohttp.ClientSession() as session:
        url = f"{there.market}/api/v1/jobs/{only_job(there)}"
        async with session.get(url) as reply:
            assert (await reply.json())["buyer"] == there.key.address


async def test_outputs_that_are_gone_are_not_promised_again(there: World) -> None:
    there.seller.runs = speaks
    there.seller.faults["gone_outputs"] = 1
    ended = await there.cli("run", "job.py", "--yes", "--output", "got")

    assert ended.code == 3
    assert "computeswarm: outputs: " in ended.err
    assert "tries again" not in ended.err


async def test_afterwards_the_job_can_be_looked_at_by_the_start_of_its_id(there: World) -> None:
    there.seller.runs = speaks
    await there.cli("run", "job.py", "--yes")
    prefix = only_job(there)[:8]

    listed = json.loads((await there.cli("jobs", "--json")).out)
    assert [job["state"] for job in listed["jobs"]] == ["failed"]
    key = there.seller.jobs[only_job(there)].request.access_key
    shown = await there.cli("jobs", prefix, "--json")
    assert key.encode() not in shown.out
    assert json.loads(shown.out)["exit_code"] == 3
    assert "exit code 3" in (await there.cli("jobs", prefix)).out.decode()
    logs = await there.cli("logs", prefix)
    assert logs.out == b"caf\xc3\xa9 \xff\x1b[31m\r\n"
    assert (await there.cli("logs", prefix, "-f")).out == logs.out
    fetched = await there.cli("outputs", prefix, "--json")
    assert len(json.loads(fetched.out)["files"]) == 2
    assert (there.folder / only_job(there) / "curve.csv").exists()
    unknown = await there.cli("logs", "job-ffff")
    assert unknown.code == 125
    assert "no job" in unknown.err


async def test_json_is_one_object_a_line_and_nothing_else(there: World) -> None:
    there.seller.runs = speaks
    ended = await there.cli("run", "job.py", "--yes", "--json")
    lines = [json.loads(line) for line in ended.out.decode().splitlines()]

    assert [line["type"] for line in lines] == [
        *("offer", "state", "state", "output", "output", "end", "receipt")
    ]
    assert lines[-1]["paid"] == 60_000
    assert ended.code == 3


async def test_nobody_to_ask_means_no(there: World) -> None:
    ended = await there.cli("run", "job.py")
    assert (ended.code, ended.out) == (126, b"")
    assert "--yes" in ended.err
    assert not there.seller.presented


async def test_a_budget_below_the_first_slice_is_refused(there: World) -> None:
    ended = await there.cli("run", "job.py", "--yes", "--budget", "0.01")
    assert ended.code == 126
    assert "budget" in ended.err
    there.env["COMPUTESWARM_MAX_PAYMENT"] = "0.01"
    refused = await there.cli("run", "job.py", "--yes", "--json")
    assert refused.code == 126
    assert json.loads(refused.out.splitlines()[-1])["error"]["rule"] == "max_payment"
    assert not there.seller.presented


async def test_mistakes_get_a_sentence(there: World) -> None:
    cases = {
        ("run", "nope.py", "--yes"): "does not exist",
        ("run", "job.py", "--yes", "--max-time", "soon"): "is not a time",
        ("run", "job.py", "--yes", "--env", "X"): "NAME=value",
        ("run", "job.py", "--yes", "--gpu", "gpu:h100"): "No idle node",
        ("run", "job.py", "--yes", "--gpu", "vram>=x"): "vram",
        ("run", "job.py", "--yes", "--node", "nd-0000"): "No node starts",
        ("nodes", "vram>=x"): "vram",
    }
    ended = await asyncio.gather(*(there.cli(*args) for args in cases))
    for result, (args, words) in zip(ended, cases.items(), strict=True):
        assert result.code == 125, args
        assert words in result.err, args
    there.env["COMPUTESWARM_PASSWORD"] = "wrong"
    assert "password" in (await there.cli("run", "job.py", "--yes")).err


async def test_without_a_wallet_it_says_how_to_make_one(tmp_path: Path) -> None:
    async with world(tmp_path, wallet=False) as there:
        ended = await there.cli("run", "job.py", "--yes")
        assert ended.code == 125
        assert "computeswarm wallet new" in ended.err
        assert (await there.cli("nodes")).code == 0


async def test_an_empty_wallet_says_what_to_do(there: World) -> None:
    there.seller.faults["refuse"] = 1
    ended = await there.cli("run", "job.py", "--yes")
    assert ended.code == 125
    assert "fund it" in ended.err


async def test_a_spent_budget_is_124(there: World) -> None:
    there.seller.runs = lambda job: job.end(JobState.OUT_OF_FUNDS, None)
    assert (await there.cli("run", "job.py", "--yes")).code == 124


async def started(there: World) -> asyncio.subprocess.Process:
    there.seller.runs = lambda job: (job.state(JobState.RUNNING), job.say(b"working\n"))
    process = await there.start("run", "job.py", "--yes", "--output", "got")
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert await process.stdout.readline() == b"working\n"
    return process


async def test_the_first_interrupt_cancels_cleanly_and_fetches(there: World) -> None:
    process = await started(there)
    there.seller.jobs[only_job(there)].outputs = dict(OUTPUTS)
    await there.interrupt(process)
    async with asyncio.timeout(60):
        _, err = await process.communicate()

    assert process.returncode == 130
    assert there.seller.jobs[only_job(there)].view.state is JobState.CANCELLED
    assert (there.folder / "got/curve.csv").exists()
    assert b"State    cancelled" in err


async def test_the_second_interrupt_leaves_at_once_and_says_how_to_go_on(there: World) -> None:
    process = await started(there)
    there.seller.faults["ignore_cancel"] = 10
    await there.interrupt(process)
    assert process.stderr is not None
    err = b""
    async with asyncio.timeout(60):
        while b"leaves at once" not in err:
            err += await process.stderr.readline()
        await there.interrupt(process)
        err += await process.stderr.read()
        await process.wait()

    assert process.returncode == 130
    assert f"logs {only_job(there)} -f".encode() in err
    there.seller.faults.clear()
    cancelled = await there.cli("cancel", only_job(there)[:10], "--json")
    assert json.loads(cancelled.out)["state"] == "cancelled"


async def test_a_reader_who_leaves_stops_the_job(there: World) -> None:
    process = await started(there)
    assert process.stdout is not None
    process.stdout._transport.close()  # type: ignore[attr-defined]
    there.seller.jobs[only_job(there)].say(b"more\n")
    async with asyncio.timeout(60):
        await process.wait()
    assert process.returncode == 141
    assert there.seller.jobs[only_job(there)].view.state is JobState.CANCELLED


async def test_on_a_terminal_it_asks_and_shows_nothing_harmful(there: World) -> None:
    there.seller.runs = speaks
    no = await on_terminal(there, b"n\n", "run", "job.py")
    assert no.code == 126
    assert b"nothing was paid" in no.out
    assert not there.seller.presented

    yes = await on_terminal(there, b"y\n", "run", "job.py")
    assert yes.code == 3
    assert b"caf\xc3\xa9" in yes.out
    assert b"\x1b[31m" not in yes.out


async def test_nodes_are_listed_with_their_price(there: World) -> None:
    table = (await there.cli("nodes")).out.decode()
    assert "3.60" in table
    assert there.seller.node.node_id in table
    assert "REGION" not in table  # nobody gave one: a column of nothing is left out
    document = json.loads((await there.cli("nodes", "price<4", "--json")).out)
    assert document["nodes"][0]["record"]["wallet"] == there.seller.key.address
    assert document["rejected"] == 0
    assert b"No node matches" in (await there.cli("nodes", "price<1")).out
    there.env["COMPUTESWARM_MARKET"] = "http://127.0.0.1:9"
    down = await there.cli("nodes")
    assert (down.code, "market" in down.err) == (125, True)


async def test_an_offer_buys_a_better_place_and_the_conditions_are_told_before(
    there: World,
) -> None:
    there.seller.runs = speaks
    there.seller.quote_changes = {
        "price_per_hour": 2 * there.seller.price,
        "waiting": 2,
        "starts_in_seconds": 750,
        "minimum_charge": 5_000,
        "evicted_at": 1_800_000_000,
        "pause_seconds": 1800,
        "ask_seconds": 90,
    }
    refused = await there.cli("run", "job.py", "--yes")
    assert refused.code == 126 and "dearer" in refused.err and not there.seller.paid
    ended = await there.cli("run", "job.py", "--yes", "--offer", "7.20")
    assert ended.code == 3
    before, _, _ = ended.err.partition("café")
    assert "Price    7.20 USDC an hour" in before
    assert "Queue    2 before it; starts in 12m 30s at most; waiting is free" in before
    assert "Owner    decides by hand, within 1m 30s; a no or silence pays all back" in before
    assert "Minimum  0.005 USDC once it was started" in before
    assert "is ended and paid back whole" in before
    assert "Pauses   free, if the owner needs the GPU; over 30m 00s all comes back" in before
    (record,) = json.loads((await there.cli("jobs", "--json")).out)["jobs"]
    assert record["price_per_hour"] == 7_200_000
    low = await there.cli("run", "job.py", "--yes", "--offer", "-1")
    assert low.code == 125 and "Traceback" not in low.err
