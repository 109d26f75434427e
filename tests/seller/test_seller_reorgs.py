"""A payment that the chain takes back for good is no longer paid for, whatever ran meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from seller_rig import Rig, spec

from computeswarm.core.states import JobState

OpenRig = Callable[..., AbstractAsyncContextManager[Rig]]


async def test_a_job_whose_payment_is_lost_runs_out_of_funds(rig: OpenRig) -> None:
    async with rig() as r:
        bought = await r.buy(spec("import time; print('on', flush=True); time.sleep(60)"))
        await bought.first_output()
        assert (await bought.pay(1)).status == 200
        claims = {claim.subject: claim for claim in r.agent.settlements.claims(bought.job_id)}

        async def lose(subject: str) -> None:
            store = r.agent.settlements._store
            lost = store.revert(claims[subject], 1.0)
            await r.agent._on_lost(lost)
            await r.agent._on_lost(lost)

        await lose(f"{bought.job_id}#1")
        view = await bought.view()
        assert (view.state, len(view.payments)) == (JobState.RUNNING, 1)
        assert r.agent.desk.meters[bought.job_id].paid_slices == 1
        assert (await bought.pay(1)).status == 200, "it may be paid anew"
        await lose(bought.job_id)
        view = await bought.ended()
        assert view.state is JobState.OUT_OF_FUNDS
        assert view.cost <= claims[f"{bought.job_id}#1"].amount
        assert any("took back" in event.text for event in r.agent.notices.recent())


async def test_a_job_that_waits_is_dropped_when_its_payment_is_lost(rig: OpenRig) -> None:
    async with rig(slots=1) as r:
        first = await r.buy(spec("import time; print('on', flush=True); time.sleep(60)"))
        await first.first_output()
        second = await r.buy(spec())
        (claim,) = r.agent.settlements.claims(second.job_id)
        await r.agent._on_lost(r.agent.settlements._store.revert(claim, 1.0))
        view = await second.view()
        assert (view.state, view.cost) == (JobState.FAILED, 0)
        assert r.agent.settlements.refunds(second.job_id) == []
