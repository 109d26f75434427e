from __future__ import annotations

from market_fixtures import CHAIN_ID, MarketClient, Reply, Seller, submission

from computeswarm.core.crypto import PrivateKey
from computeswarm.core.jobs import SUBMISSION_KIND, JobSubmission, MarketJob
from computeswarm.core.signing import Signed

BUYER = PrivateKey(bytes(31) + b"\x05")


async def submit(client: MarketClient, signed: Signed) -> Reply:
    return await client.call("POST", "/api/v1/jobs/submit", data=signed.model_dump_json())


async def test_a_job_from_submission_to_its_end(client: MarketClient, seller: Seller) -> None:
    signed = submission(seller.node_id, BUYER)
    reply = await submit(client, signed)
    assert reply.status == 201
    job = MarketJob.model_validate_json(reply.body)
    assert (job.state, job.seller) == ("created", seller.key.address)
    assert (await seller.patch(job.job_id, "running", paid=6_000)).status == 200
    done = {"exit_code": 0, "metered_ms": 30_000, "paid": 6_000, "refunded": 3_000}
    assert (await seller.patch(job.job_id, "succeeded", **done)).status == 200
    assert (await seller.patch(job.job_id, "succeeded", **done)).status == 200
    shown = (await client.get(f"/api/v1/jobs/{job.job_id}")).json
    assert {name: shown[name] for name in done} == done
    node = (await client.get(f"/api/v1/nodes/{seller.node_id}")).json
    assert (node["jobs_succeeded"], node["jobs_failed"]) == (1, 0)
    stats = (await client.get("/api/v1/stats")).json
    assert stats["jobs"] == {"succeeded": 1}
    assert (stats["mean_job_ms"], stats["paid"]) == (30_000, 3_000)


async def test_a_repeated_submission_is_one_job_and_a_changed_one_a_conflict(
    client: MarketClient, seller: Seller
) -> None:
    signed = submission(seller.node_id, BUYER)
    first = await submit(client, signed)
    again = await submit(client, signed)
    assert (first.status, again.status) == (201, 200)
    assert first.body == again.body
    job_id = first.json["job_id"]
    changed = submission(seller.node_id, BUYER, job_id=job_id, max_seconds=5)
    assert (await submit(client, changed)).status == 409
    stranger = submission(seller.node_id, PrivateKey.generate(), job_id=job_id)
    assert (await submit(client, stranger)).status == 409


async def test_a_submission_needs_its_buyers_signature_and_a_node(
    client: MarketClient, seller: Seller
) -> None:
    good = submission(seller.node_id, BUYER)
    document = JobSubmission.model_validate(good.document)
    forged = Signed.make(PrivateKey.generate(), SUBMISSION_KIND, CHAIN_ID, document)
    assert (await submit(client, forged)).status == 401
    nowhere = await submit(client, submission("nd-" + "0" * 12, BUYER))
    assert (nowhere.status, nowhere.json["code"]) == (404, "node_not_found")


async def test_only_the_jobs_own_seller_updates_it(client: MarketClient, seller: Seller) -> None:
    job_id = (await submit(client, submission(seller.node_id, BUYER))).json["job_id"]
    other = Seller(client, name="other")
    assert (await other.register()).status == 201
    assert (await other.patch(job_id, "failed")).status == 401
    body = b'{"state":"failed"}'
    path = f"/api/v1/jobs/{job_id}"
    assert (await client.call("PATCH", path, data=body)).status == 401
    # a node header that names the job must not make the market wait for itself
    assert (await seller.call("PATCH", path, body, node=job_id)).status == 401
    assert (await client.get(path)).json["state"] == "created"


async def test_states_follow_the_table(client: MarketClient, seller: Seller) -> None:
    job_id = (await submit(client, submission(seller.node_id, BUYER))).json["job_id"]
    assert (await seller.patch(job_id, "running")).status == 200
    back = await seller.patch(job_id, "queued")
    assert (back.status, back.json["code"]) == (409, "invalid_transition")
    assert (await seller.patch(job_id, "cancelled")).status == 200
    assert (await seller.patch(job_id, "succeeded")).status == 409


async def test_only_the_nodes_own_failures_count_against_it(
    client: MarketClient, seller: Seller
) -> None:
    for end in ({"state": "failed", "exit_code": 3}, {"state": "failed"}, {"state": "cancelled"}):
        job_id = (await submit(client, submission(seller.node_id, BUYER))).json["job_id"]
        assert (await seller.patch(job_id, "running")).status == 200
        assert (await seller.patch(job_id, **end)).status == 200  # type: ignore[arg-type]
    node = (await client.get(f"/api/v1/nodes/{seller.node_id}")).json
    assert (node["jobs_succeeded"], node["jobs_failed"]) == (0, 1)


async def test_unknown_jobs_are_not_found(client: MarketClient, seller: Seller) -> None:
    for job_id in ("job-" + "0" * 20, "job-x", "%00"):
        reply = await client.get(f"/api/v1/jobs/{job_id}")
        assert (reply.status, reply.json["code"]) == (404, "job_not_found")
    assert (await seller.patch("job-" + "0" * 20, "running")).status == 404
