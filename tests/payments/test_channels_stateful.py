"""Any order of ticks, losses, restarts and amnesia, on a real chain: the sums always hold."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, ClassVar

from chain_fixtures import running_devnet
from channels_rig import DEPOSIT, TICK, Till, WalletBuyer
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from payments_shop import until

from computeswarm.chain.devnet import Devnet
from computeswarm.chain.rpc import RpcClient
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import ComputeSwarmError, PaymentRequired, PolicyRefused
from computeswarm.payments.channels.payouts import PayoutPolicy

POLICY = PayoutPolicy(exposure=4 * TICK, dust=0, watch_seconds=30.0)
MAX_TICKS = DEPOSIT // TICK


class Channel(RuleBasedStateMachine):
    """One job on one channel. ``served`` counts the ticks that the seller's job has had."""

    devnet: ClassVar[Devnet]
    runner: ClassVar[asyncio.Runner]
    numbers = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name)
        self.key = PrivateKey.generate()
        self.served: set[str] = set()
        self.index = 0
        self.record = 0
        self.forgot = False
        self.done = False
        self.rpc = RpcClient(self.devnet.url)
        self.run(self._begin())

    def run(self, steps: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(steps)

    async def _begin(self) -> None:
        await self.devnet.fund(self.key.address, usdc_atoms=DEPOSIT)
        await self._open_till()
        self.buyer = WalletBuyer.at(self.key, self.path / "payments.db", self.till)
        await self.buyer.present(self.buyer.open(), self.buyer.purpose(0))

    async def _open_till(self) -> None:
        async def serve(charge: Any) -> None:
            self.served.add(charge.subject)

        path = self.path / f"channels-{self.record}.db"
        self.till = await Till.open(
            self.devnet, self.rpc, path, policy=POLICY, on_charged=serve, settle_seconds=5.0
        )

    @precondition(lambda self: not self.done)
    @rule(answered=st.booleans())
    def tick(self, answered: bool) -> None:
        self.run(self._tick(answered))

    async def _tick(self, answered: bool) -> None:
        channel = self.buyer.payer.journal.of_job("job-1")
        assert channel is not None
        index = channel.slice + 1 if channel.answered else channel.slice
        purpose = self.buyer.purpose(index)
        try:
            signed = self.buyer.payer.standing(purpose) or self.buyer.payer.voucher(purpose)
        except PolicyRefused:
            assert channel.charged + TICK > channel.deposited
            return
        try:
            await self.buyer.present(signed, purpose, answered=answered)
        except PaymentRequired as error:
            if "corrective" not in error.extra:
                return  # the rest was given back
            state = await self.till.contract.state(channel.channel_id)
            with contextlib.suppress(PolicyRefused):
                again = self.buyer.payer.correct(purpose, self.buyer.challenge(error), state)
                await self.buyer.present(again, purpose, answered=answered)

    @rule()
    def seller_restarts(self) -> None:
        self.run(self.till.channels.close(claim_seconds=0))
        self.run(self._open_till())
        self.buyer.till = self.till

    @precondition(lambda self: not self.done and not self.forgot)
    @rule()
    def seller_forgets_everything(self) -> None:
        self.forgot = True
        self.record += 1
        self.seller_restarts()

    @rule()
    def buyer_restarts(self) -> None:
        self.buyer.close()
        self.buyer = WalletBuyer.at(self.key, self.path / "payments.db", self.till)

    @rule()
    def seller_claims(self) -> None:
        self.run(self.till.channels._payouts._round(exposure=0))

    @precondition(lambda self: not self.done)
    @rule(used=st.integers(0, 10 * TICK))
    def job_ends(self, used: int) -> None:
        self.done = True
        self.till.channels.finish("job-1", used)

    @invariant()
    def nobody_has_more_than_his_own(self) -> None:
        self.run(self._check())

    async def _check(self) -> None:
        channel = self.buyer.payer.journal.of_job("job-1")
        assert channel is not None
        while True:  # money may move between two questions
            before = await self.till.contract.state(channel.channel_id)
            wallet = await self.till.usdc.balance_of(self.key.address)
            state = await self.till.contract.state(channel.channel_id)
            if state == before:
                break
        assert wallet + state.balance == DEPOSIT
        assert state.total_claimed <= channel.vouched <= channel.agreed <= channel.deposited
        assert channel.charged <= channel.vouched
        account = self.till.channels.account("job-1")
        if account is not None:
            assert account.charged <= channel.vouched
            assert account.claimed <= account.signed

    def teardown(self) -> None:
        try:
            self.run(self._end())
        finally:
            self.run(self.rpc.close())
            self.folder.cleanup()

    def _state(self) -> str:
        account = self.till.channels.account("job-1")
        return "" if account is None else account.state

    async def _end(self) -> None:
        """In the end all of the deposit is with somebody."""
        account = self.till.channels.account("job-1")
        if account is not None:
            self.till.channels.finish("job-1", 3 * TICK)
            await until(lambda: self._state() == "closed")
            wallet = await self.till.usdc.balance_of(self.key.address)
            state = await self.till.contract.state(account.channel_id)
            assert state.balance == state.total_claimed == DEPOSIT - wallet
        with contextlib.suppress(ComputeSwarmError):
            await self.till.channels.close(claim_seconds=0)
        self.buyer.close()


def test_no_order_of_events_breaks_the_sums() -> None:
    with running_devnet("py-evm") as devnet, asyncio.Runner() as runner:
        Channel.devnet, Channel.runner = devnet, runner
        run_state_machine_as_test(
            Channel,
            settings=settings(
                max_examples=12,
                phases=[Phase.generate],
                stateful_step_count=14,
                deadline=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
            ),
        )
        runner.run(devnet.disconnect())
