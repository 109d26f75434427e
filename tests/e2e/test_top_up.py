"""Our buyer at our seller with an empty wallet: refused, topped up, and the same is taken."""

from __future__ import annotations

from pathlib import Path

import pytest
from seller_rig import open_rig

from computeswarm.buyer.client import Buyer
from computeswarm.buyer.journal import Stage
from computeswarm.buyer.spec import plan_job
from computeswarm.chain.devnet import Devnet
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import InsufficientFunds
from computeswarm.core.settings import Paths, Settings


async def test_topped_up_within_the_window_the_same_payment_buys_the_job(
    devnet: Devnet, tmp_path: Path
) -> None:
    (tmp_path / "job.py").write_text("print('hello')\n")
    plan = plan_job(tmp_path / "job.py", max_seconds=20)
    key = PrivateKey.generate()
    paths = Paths.find({"COMPUTESWARM_HOME": str(tmp_path / "buyer-home")})
    async with open_rig(devnet, tmp_path, trusted=[key.address]) as rig:
        # without a chain of his own the buyer hears of his empty wallet from the seller only
        settings = Settings(market=rig.market_url)
        async with Buyer(settings, paths, key) as buyer:
            (node,) = await buyer.candidates(max_seconds=20)
            offer = await buyer.quote(node, plan)
            with pytest.raises(InsufficientFunds, match="could still take it"):
                await buyer.start(offer, budget=1_000_000)
            (refused,) = buyer._payments.of_job(offer.job_id)
            await devnet.fund(key.address, usdc_atoms=offer.first_amount)

            record = await buyer.start(offer, budget=1_000_000)
            assert record.stage is Stage.PAID
            (taken,) = buyer._payments.of_job(offer.job_id)
            assert taken.nonce == refused.nonce
            assert await rig.usdc.balance_of(key.address) == 0
            assert await rig.usdc.authorization_state(key.address, taken.nonce)
