"""A bare client's job that a voucher pays, and a seller who dies when it is written down."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from channel_hands import Hands, Ticking, accepts
from seller_rig import Reply, Rig, open_rig, output_of, spec

from computeswarm.chain.devnet import Devnet

# the same address again after a restart: what a payment is bound to
OPTIONS: dict[str, Any] = {"endpoint": "http://seller.test:8402"}


def bought(rig: Rig, reply: Reply, hands: Hands) -> Ticking:
    assert reply.status == 202, reply.body
    return Ticking(rig, reply.json["job"]["job_id"], reply.json["access_key"], None, hands)


@pytest.mark.parametrize("kept", [True, False])
async def test_what_a_voucher_paid_for_is_done_or_given_back_after_a_crash(
    devnet: Devnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """Killed when the voucher was on disk, and nobody had heard of it.

    ``kept``: the job's own record is there, too.
    """
    first, second = {"spec": spec("print(1)")}, {"spec": spec("print(22)")}
    dead = tmp_path / "dead"
    async with open_rig(devnet, tmp_path, **OPTIONS) as r:
        hands = Hands(r, r.buyer, accepts(await r.call("POST", "/execute", json=first)))
        paid = await r.call("POST", "/execute", json=first, headers=hands.deposit(10_000, 50_000))
        view = await bought(r, paid, hands).ended()
        headers = hands.voucher(view.cost + 10_000)

        async def dies(_: object) -> None:
            shutil.copytree(tmp_path / "seller-home", dead / "seller-home")
            raise RuntimeError("killed here")

        monkeypatch.setattr(r.agent.channels, "_on_charged", dies)
        assert (await r.call("POST", "/execute", json=second, headers=headers)).status == 500
    async with open_rig(devnet, dead if kept else tmp_path, **OPTIONS) as r:
        hands.rig = r
        again = await r.call("POST", "/execute", json=second, headers=headers)
        if kept:
            job = bought(r, again, hands)
            assert output_of([event async for event in job.follow()]) == b"22\n"
        else:
            assert again.status == 409
            (charged,) = r.agent.channels._store.db.execute("SELECT charged FROM channels")
            assert tuple(charged) == (view.cost,)
