"""What a seller says of a channel's sums, and how far the buyer believes it: to his own signature.

The rules are the scheme's (Client Verification Rules, Recovery After State Loss).
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from computeswarm.chain.batch_settlement import ChannelState as OnChain
from computeswarm.core.chains import ChainInfo
from computeswarm.core.channels import MAX_UINT128, SCHEME, voucher_digest
from computeswarm.core.crypto import recover_address, same_address
from computeswarm.core.errors import PolicyRefused
from computeswarm.core.text import clean_line
from computeswarm.core.x402 import SettleResponse
from computeswarm.payments.challenge import Challenge
from computeswarm.payments.channels.journal import BuyerChannel
from computeswarm.payments.channels.reasons import ChannelReason
from computeswarm.payments.channels.terms import CORRECTIVE
from computeswarm.payments.channels.wire import ChannelSnapshot, VoucherSnapshot

_MAX_DIGITS = 39  # of 128 bits


def next_charged(channel: BuyerChannel, response: SettleResponse | None) -> int:
    """What was charged in all after an answer, where it fits what we know; else as before."""
    extra = response.extra if response is not None and response.extra else {}
    told = extra.get("chargedAmount", "0")
    if not _is_number(told):
        return channel.charged
    charged = int(told)
    after = channel.charged + charged
    snapshot = extra.get("channelState")
    total = snapshot.get("chargedCumulativeAmount") if isinstance(snapshot, dict) else None
    fits = charged <= channel.amount and (total is None or total == str(after))
    return after if fits and after <= channel.voucher else channel.charged


def _is_number(text: object) -> bool:
    return isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS


def proven_base(
    channel: BuyerChannel, challenge: Challenge, state: OnChain, chain: ChainInfo
) -> int:
    """The sum that the next voucher continues: what he can prove, by our signature or by the chain.

    Raises:
        PolicyRefused: he proves nothing.
    """
    snapshot, proof = _read(challenge)
    if snapshot is None or snapshot.channel_id.lower() != channel.channel_id:
        raise distrusted("the seller does not say how the channel stands")
    if proof is None:  # he lost his record: what he claimed on chain is all there is
        return min(state.total_claimed, channel.vouched)
    charged = int(snapshot.charged_cumulative_amount or 0)
    signed = int(proof.signed_max_claimable)
    if not state.total_claimed <= charged <= signed <= channel.vouched:
        raise distrusted("the seller counts what was never signed for")
    _check_ours(channel.channel_id, proof, channel.config.payer, chain)
    return charged


def proven_loss(
    channel: str, owner: str, challenge: Challenge, state: OnChain, chain: ChainInfo
) -> tuple[int, int]:
    """(charged, vouched) of a channel whose record we lost.

    Raises:
        PolicyRefused: he shows a voucher that is not ours, or sums that can't be.
    """
    snapshot, proof = _read(challenge)
    if snapshot is None or proof is None:
        return state.total_claimed, state.total_claimed
    charged = int(snapshot.charged_cumulative_amount or 0)
    signed = int(proof.signed_max_claimable)
    if not state.total_claimed <= charged <= signed <= state.balance:
        raise distrusted("the seller counts what can't be")
    _check_ours(channel, proof, owner, chain)
    return charged, signed


def _check_ours(channel: str, proof: VoucherSnapshot, owner: str, chain: ChainInfo) -> None:
    signed = min(int(proof.signed_max_claimable), MAX_UINT128)
    digest = voucher_digest(channel, signed, chain)
    found = recover_address(digest, bytes.fromhex(proof.signature[2:]))
    if found is None or not same_address(found, owner):
        raise distrusted("the voucher that the seller shows is not ours")


def _read(challenge: Challenge) -> tuple[ChannelSnapshot | None, VoucherSnapshot | None]:
    """``channelState`` and ``voucherState`` of a corrective 402, where they can be read."""
    if challenge.error != ChannelReason.CUMULATIVE_MISMATCH:
        return None, None
    for option in challenge.options:
        if option.scheme == SCHEME:
            try:
                snapshot = ChannelSnapshot.model_validate(option.extra.get("channelState"))
                proof = option.extra.get("voucherState")
                return snapshot, None if proof is None else VoucherSnapshot.model_validate(proof)
            except ValidationError:
                return None, None
    return None, None


def uncorrected(accepted: dict[str, Any]) -> dict[str, Any]:
    """An ``accepts`` entry without what only a corrective 402 has."""
    extra = accepted.get("extra")
    if not isinstance(extra, dict):
        return accepted
    kept = {name: value for name, value in extra.items() if name not in CORRECTIVE}
    return {**accepted, "extra": kept}


def distrusted(why: str) -> PolicyRefused:
    """The refusal of what a seller says of a channel."""
    return PolicyRefused(
        f"Nothing was signed: {clean_line(why)}; choose another seller.", rule="channel"
    )
