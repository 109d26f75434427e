"""The owner's routes over jobs and GPUs: who gets in, and what a wrong request is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from seller_rig import Reply, Rig, open_rig, spec

from computeswarm.chain.devnet import Devnet

JOB = "job-" + "0" * 20
ROUTES = (f"/owner/jobs/{JOB}/accept", f"/owner/jobs/{JOB}/reject", "/owner/gpus/0/hold")


async def ask(r: Rig, path: str, body: Any = None) -> Reply:
    """As the owner."""
    token = json.loads((r.paths.seller / "owner.json").read_bytes())["token"]
    return await r.call("POST", path, json=body, headers={"Authorization": f"Bearer {token}"})


async def test_answers_and_holds_take_the_owners_token_on_this_machine(
    devnet: Devnet, tmp_path: Path
) -> None:
    async with open_rig(devnet, tmp_path) as r:
        for path in ROUTES:
            for headers in ({}, {"Authorization": "Bearer x"}):
                assert (await r.call("POST", path, headers=headers)).status == 401
        token = json.loads((r.paths.seller / "owner.json").read_bytes())["token"]
        proxied = {"Authorization": f"Bearer {token}", "X-Forwarded-For": "1.2.3.4"}
        assert (await r.call("POST", ROUTES[2], headers=proxied)).status == 403
        assert not r.agent.holds.machine
        paths = (await r.call("GET", "/openapi.json")).json["paths"]
        assert {"/owner/jobs/{id}/accept", "/owner/gpus/{index}/hold"} <= set(paths)


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        (ROUTES[0], None, 404, "no such job"),
        (ROUTES[1], {"reason": "x"}, 404, "no such job"),
        (ROUTES[1], {"reason": "x" * 501}, 400, "reason"),
        ("/owner/gpus/0/hold", {}, 400, "held"),
        ("/owner/gpus/0/hold", {"held": "perhaps"}, 400, "held"),
        ("/owner/gpus/x/hold", {"held": True}, 400, "by its number"),
        ("/owner/gpus/-1/hold", {"held": True}, 400, "by its number"),
        ("/owner/gpus/9999/hold", {"held": True}, 400, "by its number"),
        ("/owner/gpus/3/hold", {"held": True}, 404, "There is no GPU 3 here"),
    ],
)
async def test_a_wrong_wish_is_told_what_is_wrong(
    devnet: Devnet, tmp_path: Path, path: str, body: Any, status: int, says: str
) -> None:
    async with open_rig(devnet, tmp_path) as r:
        reply = await ask(r, path, body)
        assert reply.status == status and says in reply.text()
        assert reply.headers["Content-Type"].startswith("application/problem+json")
        assert not r.agent.holds.machine


async def test_each_answer_is_the_status_as_it_is_then(devnet: Devnet, tmp_path: Path) -> None:
    async with open_rig(devnet, tmp_path, accept="ask") as r:
        held = await ask(r, "/owner/gpus/0/hold", {"held": True})
        assert held.status == 200 and held.json["host"]["held"] and held.json["mood"] == "held"
        assert not (await ask(r, "/owner/gpus/0/hold", {"held": False})).json["host"]["held"]
        bought = await r.buy(spec())
        gone = await ask(r, f"/owner/jobs/{bought.job_id}/reject")  # a reason is no duty
        assert gone.json["jobs"][0]["state"] == "seller_lost"
        late = await ask(r, f"/owner/jobs/{bought.job_id}/accept")
        assert late.status == 409 and "ended already" in late.text()
        await r.refunded(bought)
