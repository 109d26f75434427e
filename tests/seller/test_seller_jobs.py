"""Jobs from payment to end over real HTTP, on a real chain, listed at a real market."""

from __future__ import annotations

from seller_rig import output_of, spec, stored

from computeswarm.core.jobs import SUBMISSION_KIND, JobSubmission
from computeswarm.core.signing import Signed
from computeswarm.core.states import JobState


async def test_a_job_costs_what_it_ran_and_the_rest_comes_back(rig) -> None:
    async with rig() as r:
        before = await r.balance()
        code = "import os,time;print('hello');open('outputs/a.txt','w').write('x');time.sleep(0.3)"
        bought = await r.buy(spec(code))
        events = [event async for event in bought.follow()]
        view = await r.refunded(bought)

        assert output_of(events) == b"hello\n"
        assert [e.seq for e in stored(events)] == list(range(1, view.last_seq + 1))
        assert (view.state, view.exit_code, view.slices_paid) == (JobState.SUCCEEDED, 0, 1)
        assert 300 <= view.metered_ms < 10_000
        assert view.cost == view.metered_ms and view.paid == 10_000  # a ms costs an atom
        assert view.refund.amount == view.paid - view.cost
        assert before - await r.balance() == view.cost
        assert view.next_payment_due_ms is None
        listed = (await bought.call("GET", "/outputs")).json["files"]
        assert [file["path"] for file in listed] == ["a.txt"]
        assert (await bought.call("GET", "/outputs/a.txt")).body == b"x"


async def test_the_market_hears_how_the_job_ended(rig) -> None:
    async with rig() as r:
        job = spec()
        quote = (await r.quote(job)).document
        submission = JobSubmission(
            job_id="job-" + "ab" * 10,
            node_id=r.agent.node_id,
            buyer=r.buyer.address,
            spec_hash=quote["spec_hash"],
            price_per_hour=quote["price_per_hour"],
            max_seconds=60,
            issued_at=quote["issued_at"],
        )
        signed = Signed.make(r.buyer, SUBMISSION_KIND, 84532, submission)
        url = f"{r.market_url}/api/v1/jobs"
        told = await r.call("POST", f"{url}/submit", data=signed.model_dump_json())
        assert told.status == 201, told.body
        bought = await r.buy(job, job_id=submission.job_id)
        view = await bought.ended()
        await r.agent.market.settled()
        kept = (await r.call("GET", f"{url}/{bought.job_id}")).json
        assert kept["state"] == "succeeded"
        assert (kept["paid"], kept["refunded"]) == (view.paid, view.refund.amount)
        assert kept["metered_ms"] == view.metered_ms
