"""Holds what the books say of payment channels against the contract that keeps their money."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from computeswarm.chain.batch import BatchClient
from computeswarm.chain.batch_settlement import (
    BatchSettlement,
    ChannelState,
    deposit_proof,
    refund_proof,
    withdrawal_proof,
)
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.transfers import transfers_between
from computeswarm.chain.usdc import Usdc
from computeswarm.payments.ledger.entries import Entry, Kind, Role, Standing
from computeswarm.payments.ledger.evidence import Evidence
from computeswarm.payments.ledger.findings import Code, Difference, named, usdc

_BACK = (Kind.CHANNEL_REFUND, Kind.WITHDRAWAL)


async def check_channels(
    rpc: RpcClient, usdc: Usdc, entries: Sequence[Entry], found: Evidence
) -> list[Difference]:
    """The differences between the books' channels and the contract's, as of the evidence's block.

    A channel with a step under way is left for later: nobody can tell how far it has come.

    Raises:
        RpcUnavailable: the chain doesn't say.
    """
    by_channel: dict[tuple[Role, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.channel:
            by_channel[entry.role, entry.channel].append(entry)
    if not by_channel:
        return []
    contract = BatchSettlement(rpc, usdc.chain)
    names = list(dict.fromkeys(channel for _, channel in by_channel))
    answers = await contract.states(names, block=hex(found.last))
    states = dict(zip(names, answers, strict=True))
    differences = []
    for (role, channel), steps in by_channel.items():
        differences += _steps(role, steps, found)
        if not any(_under_way(step, found) for step in steps):
            state = states[channel]
            withdrawn = 0
            if role is Role.SELLER and state.balance < _in_it(steps):
                withdrawn = await _withdrawn(rpc, usdc, channel, steps[0].peer, found)
            differences += _sums(role, channel, steps, state, withdrawn)
    return differences


def _under_way(step: Entry, found: Evidence) -> bool:
    receipt = found.receipts.get(step.transaction)
    later = receipt is not None and receipt.block_number > found.last
    return step.state.at_risk or later


def _steps(role: Role, steps: Sequence[Entry], found: Evidence) -> list[Difference]:
    """What moved no money of the seller's wallet is proven by the contract's own events."""
    differences = []
    for step in steps:
        if role is not Role.SELLER or step.state is not Standing.DONE or step.direction:
            continue
        receipt = found.receipts.get(step.transaction)
        if receipt is None:
            text = f"Transaction {step.transaction} of {named(step)} is in no block."
            differences.append(_difference("no_receipt", text, step))
            continue
        if step.kind is Kind.DEPOSIT:
            proven = deposit_proof(receipt, step.channel, step.amount)
        elif step.kind is Kind.CHANNEL_REFUND:
            proven = refund_proof(receipt, step.channel) == step.amount
        else:
            proven = receipt.succeeded  # claims are held against the contract's sum
        if not proven:
            text = f"Transaction {step.transaction} does not show {named(step)}."
            differences.append(_difference("not_paid", text, step))
    return differences


async def _withdrawn(rpc: RpcClient, usdc: Usdc, channel: str, payer: str, found: Evidence) -> int:
    """What its payer took back by himself, which is his right and no business of the books."""
    home = await transfers_between(
        rpc, usdc, BatchSettlement.address, payer, found.first, found.last
    )
    receipts = await BatchClient(rpc).receipts({one.transaction for one in home})
    return sum(
        withdrawal_proof(receipt, channel) or 0
        for receipt in receipts.values()
        if receipt is not None
    )


def _in_it(steps: Sequence[Entry]) -> int:
    done = [step for step in steps if step.state.moved]
    deposited = sum(step.amount for step in done if step.kind is Kind.DEPOSIT)
    return deposited - sum(step.amount for step in done if step.kind in _BACK)


def _sums(
    role: Role, channel: str, steps: Sequence[Entry], state: ChannelState, withdrawn: int
) -> list[Difference]:
    done = [step for step in steps if step.state.moved]
    claimed = sum(step.amount for step in done if step.kind is Kind.CLAIM)
    pairs = [("in it", _in_it(steps) - withdrawn, state.balance)]
    if role is Role.SELLER:
        pairs.append(("claimed", claimed, state.total_claimed))
    return [
        Difference(
            "channel",
            f"Channel {channel}: the {role}'s books have {usdc(booked)} {what}, the contract has"
            f" {usdc(actual)}.",
            amount=actual - booked,
            rows=tuple(f"{step.role} {step.row}" for step in steps),
        )
        for what, booked, actual in pairs
        if booked != actual
    ]


def _difference(code: Code, text: str, step: Entry) -> Difference:
    return Difference(
        code,
        text,
        step.transaction,
        (f"{step.role} {step.row}",),
        step.amount,
    )
