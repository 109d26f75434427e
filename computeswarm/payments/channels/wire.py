"""The payloads of channel payments as they travel, and the snapshots that answers carry.

Numbers are decimal strings, hashes and signatures 0x hex. Everything here comes from a stranger;
only its form is checked.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from computeswarm.core.x402 import Bytes32, DecimalString, RequirementsV2, ResourceInfo

VoucherSignature = Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{130}$")]
"""A plain key's. Contract wallets name one as ``payerAuthorizer``."""
LongSignature = Annotated[str, Field(pattern=r"^0x([0-9a-fA-F]{2}){1,4096}$")]
HexNumber = Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{1,64}$")]


class _Wire(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore"
    )


class Voucher(_Wire):
    """A cumulative voucher: all that may be claimed from the channel up to now, in atoms."""

    channel_id: Bytes32
    max_claimable_amount: DecimalString
    signature: VoucherSignature


class Erc3009Deposit(_Wire):
    """What of an EIP-3009 ``ReceiveWithAuthorization`` does not follow from the channel."""

    valid_after: DecimalString
    valid_before: DecimalString
    salt: HexNumber
    signature: LongSignature


class DepositAuthorization(_Wire):
    erc3009_authorization: Erc3009Deposit | None = None


class Deposit(_Wire):
    amount: DecimalString
    authorization: DepositAuthorization


class ChannelPayload(_Wire):
    """``payload`` of a payment with the scheme ``batch-settlement``."""

    type: Literal["deposit", "voucher", "refund"]
    channel_config: dict[str, Any]
    voucher: Voucher
    deposit: Deposit | None = None
    amount: str | None = Field(default=None, max_length=80)


class ChannelPayment(_Wire):
    """The whole header; only version 2 knows channels."""

    x402_version: Literal[2]
    payload: ChannelPayload
    accepted: RequirementsV2
    resource: ResourceInfo | None = None


class ChannelSnapshot(_Wire):
    """``channelState``: how the server sees a channel; sums in atoms."""

    channel_id: Bytes32
    balance: DecimalString
    total_claimed: DecimalString
    withdraw_requested_at: int = Field(ge=0, lt=2**53)
    refund_nonce: DecimalString
    charged_cumulative_amount: DecimalString | None = None


class VoucherSnapshot(_Wire):
    """``voucherState``: the last voucher that the server holds, as the proof of its sums."""

    signed_max_claimable: DecimalString
    signature: VoucherSignature
