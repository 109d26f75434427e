"""A seller who is killed while a batch of payments is on its way: a process of its own.

Arguments: the chain's URL, the claims' file, ``stored`` or ``sent``, the payers' secrets.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from payments_shop import Shop, pay, until

from computeswarm.chain.devnet import Devnet, dev_keys
from computeswarm.chain.rpc import RpcClient
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.crypto import PrivateKey
from computeswarm.payments.facilitators.own import SelfFacilitator


async def main(url: str, path: str, stage: str, secrets: list[str]) -> None:
    devnet = SimpleNamespace(url=url, keys=dev_keys(), chain_id=BASE_SEPOLIA.chain_id)
    async with RpcClient(url) as rpc:
        shop = await Shop.open(cast(Devnet, devnet), rpc, Path(path))
        broadcast, facilitator = shop.sender.broadcast, shop.settlements._facilitator
        assert isinstance(facilitator, SelfFacilitator)

        async def killed(signed: Any) -> None:
            if stage == "sent":
                await broadcast(signed)
            os.kill(os.getpid(), signal.SIGKILL)

        shop.sender.broadcast = killed  # type: ignore[method-assign]
        payments = [pay(PrivateKey.from_hex(secret), shop.terms.pay_to) for secret in secrets]
        async with facilitator._turn:  # as if another were being sent just now
            tasks = [
                asyncio.create_task(shop.settle(payment, subject=f"job-{n}"))
                for n, payment in enumerate(payments)
            ]
            await until(lambda: len(facilitator._waiting) == len(payments))
        await asyncio.gather(*tasks)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4], sys.argv[4:]))
