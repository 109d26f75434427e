"""A purchase on a network whose money is real, at a seller of the test: no chain is near."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from buying_world import FakeJob, World, on_terminal, world

from computeswarm.core.chains import BASE
from computeswarm.core.crypto import recover_address
from computeswarm.core.eip712 import transfer_authorization_digest
from computeswarm.core.states import JobState
from computeswarm.payments.journal import PaymentJournal


@pytest_asyncio.fixture
async def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr("buyer_fakes.CHAIN", BASE)
    async with world(tmp_path, chain=BASE) as made:
        made.env["COMPUTESWARM_NETWORK"] = "base"
        made.seller.runs = ends
        yield made


def ends(job: FakeJob) -> None:
    job.state(JobState.RUNNING)
    job.say(b"done\n")
    job.end(JobState.SUCCEEDED, 0)


async def test_not_allowed_nothing_is_even_asked(there: World) -> None:
    ended = await there.cli("run", "job.py", "--yes")
    assert ended.code == 126
    assert "--real-money" in ended.err
    assert not there.seller.presented


async def test_allowed_it_is_asked_in_red_and_signed_for_that_network(there: World) -> None:
    asked = await on_terminal(there, b"n\n", "run", "job.py", "--real-money")
    shown = asked.out.decode()
    for words in (
        "REAL MONEY: the network is Base. Here USDC is spent and earned.",
        "Base (REAL MONEY)",
        "Pay REAL MONEY and start?",
    ):
        assert f"\x1b[1;31m{words}\x1b[0m" in shown
    assert not there.seller.presented

    paid = await on_terminal(there, b"y\n", "run", "job.py", "--real-money")
    assert paid.code == 0
    (job_id,) = there.seller.jobs
    journal = PaymentJournal(there.home / "buyer" / "payments.db")
    (payment,) = journal.of_job(job_id)
    journal.close()
    exact = payment.payload["payload"]
    given = exact["authorization"]
    digest = transfer_authorization_digest(
        BASE,
        from_=given["from"],
        to=given["to"],
        value=int(given["value"]),
        valid_after=int(given["validAfter"]),
        valid_before=int(given["validBefore"]),
        nonce=given["nonce"],
    )
    assert recover_address(digest, bytes.fromhex(exact["signature"][2:])) == there.key.address
    assert payment.chain_id == BASE.chain_id


async def test_programs_are_told(there: World) -> None:
    import json

    ended = await there.cli("run", "job.py", "--yes", "--real-money", "--json")
    assert ended.code == 0
    documents = [json.loads(line) for line in ended.out.decode().splitlines()]
    told = [d for d in documents if d["type"] in ("offer", "receipt")]
    assert len(told) == 2
    assert all(d["network"] == "base" and d["real_money"] is True for d in told)
    assert "\x1b" not in ended.err
