"""Settling with the seller's own key: bounded in what it may cost, and together where many wait.

Payments that come in while another is being sent wait for it, and then go in one transaction
through Multicall3, each of them free to fail by itself. A payment that comes alone never waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field

from computeswarm.chain.abi import read_uint, selector, uint_word
from computeswarm.chain.batch import BatchClient
from computeswarm.chain.errors import RpcError
from computeswarm.chain.multicall import MULTICALL3, Call, aggregate3_calldata
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.tx import SignedTx
from computeswarm.chain.usdc import authorization_calldata
from computeswarm.core.clock import Clock
from computeswarm.core.errors import ChainUnavailable, Unavailable
from computeswarm.core.x402 import Reason
from computeswarm.payments.claims import Claim, ClaimState, ClaimStore
from computeswarm.payments.policy import GasPolicy
from computeswarm.payments.present import Presented, refused, signed_by_payer
from computeswarm.payments.shared import Shared
from computeswarm.payments.terms import Terms
from computeswarm.payments.verify import SETTLEMENT_GAS, Verifier

_log = logging.getLogger(__name__)

MAX_BATCH = 50
"""Payments in one transaction: 5 million gas, a fraction of any block."""
_BATCH_GAS = 60_000
_BATCH_GAS_EACH = 100_000
_USUAL_GAS = 90_000
_USUAL_BYTES = 500
_FEE_ORACLE = "0x420000000000000000000000000000000000000F"  # the same on every OP-Stack rollup
_L1_FEE = selector("getL1FeeUpperBound(uint256)")
_DATA_FEE_SECONDS = 60.0
_MAX_REVERTS = 3
_REVERTS_SECONDS = 3_600


@dataclass(eq=False)
class _Waiting:
    claim: Claim
    plain: bool
    sent: asyncio.Future[str] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class SelfFacilitator:
    """Submits payments with the seller's key. See ``Facilitator`` for what each method promises."""

    external = False

    def __init__(
        self,
        store: ClaimStore,
        rpc: RpcClient,
        sender: TxSender,
        verifier: Verifier,
        clock: Clock,
        gas: GasPolicy | None,
    ) -> None:
        self._store = store
        self._rpc = rpc
        self._many = BatchClient(rpc)
        self._sender = sender
        self._verifier = verifier
        self._token = verifier.usdc.address
        self._clock = clock
        self._gas = gas
        self._turn = asyncio.Lock()
        self._waiting: list[_Waiting] = []
        self._resent: Shared[str] = Shared()
        self._multicall: bool | None = None
        self._data_fee_wei = 0
        self._data_fee_until = 0.0

    async def start(self) -> None:
        """Nothing to see to."""

    async def close(self) -> None:
        """Send nothing more."""
        await self._resent.close()

    async def verify(self, claim: Claim, payment: Presented, terms: Terms) -> None:
        """By a simulation on the chain, then by what it may cost us."""
        await self._verifier.verify(
            claim.authorization, claim.signature, own_key=signed_by_payer(payment, terms)
        )
        since = self._clock.now() - _REVERTS_SECONDS
        if self._store.reverts_of(claim.payer, since) >= _MAX_REVERTS:
            raise refused(
                Reason.SETTLEMENT_FAILED,
                f"{_MAX_REVERTS} payments of this wallet failed on the chain within an hour;"
                " pay from another wallet, or later.",
            )
        if self._gas is not None:
            wei = _USUAL_GAS * await self._sender.gas_price() + await self._data_fee()
            if self._gas.too_dear(wei, claim.amount):
                self._store.fail(claim, Reason.UNEXPECTED_VERIFY)
                raise Unavailable(
                    "Settling this payment would cost the seller more in network fees than he"
                    " gives for it; pay for longer slices, or try again when fees are lower."
                )

    async def settle(self, claim: Claim, payment: Presented, terms: Terms) -> str:
        """Send it now, or with the others that wait for the one being sent."""
        mine = _Waiting(claim, signed_by_payer(payment, terms))
        self._waiting.append(mine)
        async with self._turn:
            while not mine.sent.done():
                await self._send_waiting()
        return await mine.sent

    async def again(self, claim: Claim) -> None:
        """The same bytes, once for all whom they bring; anew where we never had any."""
        if claim.signed_tx is None:
            await self.anew(claim)
        else:
            signed = claim.signed_tx
            await self._resent.get(signed.hash, lambda: self._rpc.send_raw(signed.raw))

    async def anew(self, claim: Claim) -> None:
        """A transaction for this payment alone."""
        signed = await self._sender.prepare(self._token, _calldata(claim), gas=SETTLEMENT_GAS)
        keep = self._store.broadcast if claim.state is ClaimState.BROADCAST else self._store.resend
        try:
            keep(claim, signed)
        except BaseException:
            await self._sender.release(signed)
            raise
        await self._sender.broadcast(signed)

    async def _data_fee(self) -> int:
        """Wei that a rollup such as Base adds for what the transaction takes on Ethereum."""
        if time.monotonic() >= self._data_fee_until:
            asked = _L1_FEE + uint_word(_USUAL_BYTES)
            try:
                self._data_fee_wei = read_uint(await self._rpc.eth_call(_FEE_ORACLE, asked))
            except (RpcError, ValueError):
                self._data_fee_wei = 0  # a chain without that contract adds nothing
            self._data_fee_until = time.monotonic() + _DATA_FEE_SECONDS
        return self._data_fee_wei

    async def _send_waiting(self) -> None:
        """Send the first that wait; every one of them learns what became of it."""
        taken, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
        try:
            for group in await self._groups(taken):
                try:
                    tx = await self._send([one.claim for one in group])
                except Exception as error:
                    _end(group, error)
                else:
                    for one in group:
                        one.sent.set_result(tx)
        except BaseException as error:
            _end(taken, error)
            raise

    async def _groups(self, taken: list[_Waiting]) -> list[list[_Waiting]]:
        """Those that may go together, and each of the others alone.

        Wallets with code run it at our expense, and could leave the others of a batch no gas.
        """
        plain = [one for one in taken if one.plain] if len(taken) > 1 else []
        if len(plain) > 1:
            payers = list(dict.fromkeys(one.claim.payer for one in plain))
            try:
                asked = [MULTICALL3] if self._multicall is None else []
                codes = await self._many.call(
                    "eth_getCode", [[account, "latest"] for account in (*payers, *asked)]
                )
            except (RpcError, ChainUnavailable):
                codes = ["0x"] * len(payers) + ["0x"]  # no batch now
                plain = []
            if asked and plain:
                self._multicall = codes.pop() not in ("0x", None)
            bare = {payer for payer, code in zip(payers, codes, strict=False) if code == "0x"}
            plain = [one for one in plain if one.claim.payer in bare]
        if len(plain) < 2 or not self._multicall:
            return [[one] for one in taken]
        return [plain, *([one] for one in taken if one not in plain)]

    async def _send(self, claims: list[Claim]) -> str:
        """Sign, write down, broadcast: one transaction for all of these."""
        try:
            signed = await self._prepare(claims)
        except RpcError as error:
            raise self._refused(claims, error) from None
        try:
            self._store.broadcast_all(claims, signed)
        except BaseException:
            await self._sender.release(signed)
            raise
        try:
            await self._sender.broadcast(signed)
        except RpcError as error:
            kept = [self._store.get(claim.id) for claim in claims]
            raise self._refused(kept, error) from None
        except ChainUnavailable as error:
            _log.warning("broadcast without an answer: %s", error.detail)
        return signed.hash

    async def _prepare(self, claims: list[Claim]) -> SignedTx:
        if len(claims) == 1:
            return await self._sender.prepare(self._token, _calldata(claims[0]), gas=SETTLEMENT_GAS)
        data = aggregate3_calldata([Call(self._token, _calldata(claim)) for claim in claims])
        gas = _BATCH_GAS + _BATCH_GAS_EACH * len(claims)
        return await self._sender.prepare(MULTICALL3, data, gas=gas)

    def _refused(self, claims: list[Claim], error: RpcError) -> Unavailable:
        for claim in claims:
            self._store.fail(claim, Reason.SETTLEMENT_FAILED)
        _log.warning("the chain refused a settlement: %s", error.message)
        return Unavailable(
            "The seller can't settle payments now; nothing was taken, try again later."
        )


def _end(waiting: list[_Waiting], error: BaseException) -> None:
    for one in waiting:
        if not one.sent.done():
            one.sent.set_exception(error)
            one.sent.exception()  # whoever waits gets it; nobody may be left who does


def _calldata(claim: Claim) -> bytes:
    return authorization_calldata(claim.authorization, claim.signature)
