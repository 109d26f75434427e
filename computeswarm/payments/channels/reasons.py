"""The error codes of the scheme that we answer with; they are part of the wire contract."""

from __future__ import annotations

_PREFIX = "invalid_batch_settlement_evm_"


class ChannelReason:
    """What is wrong with a channel payment, in the standard's words."""

    NETWORK_MISMATCH = _PREFIX + "network_mismatch"
    DEPOSIT_PAYLOAD = _PREFIX + "deposit_payload"
    VOUCHER_PAYLOAD = _PREFIX + "voucher_payload"
    REFUND_PAYLOAD = _PREFIX + "refund_payload"
    PAYLOAD_TYPE = _PREFIX + "payload_type"
    ERC3009_REQUIRED = _PREFIX + "erc3009_authorization_required"

    CHANNEL_ID_MISMATCH = _PREFIX + "channel_id_mismatch"
    TOKEN_MISMATCH = _PREFIX + "token_mismatch"
    RECEIVER_MISMATCH = _PREFIX + "receiver_mismatch"
    RECEIVER_AUTHORIZER_MISMATCH = _PREFIX + "receiver_authorizer_mismatch"
    WITHDRAW_DELAY_MISMATCH = _PREFIX + "withdraw_delay_mismatch"
    WITHDRAW_DELAY_OUT_OF_RANGE = _PREFIX + "withdraw_delay_out_of_range"

    VOUCHER_SIGNATURE = _PREFIX + "voucher_signature"
    CUMULATIVE_MISMATCH = _PREFIX + "cumulative_amount_mismatch"
    CUMULATIVE_EXCEEDS_BALANCE = _PREFIX + "cumulative_exceeds_balance"
    CHANNEL_NOT_FOUND = _PREFIX + "channel_not_found"
    CHANNEL_BUSY = _PREFIX + "channel_busy"

    DEPOSIT_BELOW_MINIMUM = _PREFIX + "deposit_below_min_deposit"
    VALID_AFTER = _PREFIX + "payload_authorization_valid_after"
    VALID_BEFORE = _PREFIX + "payload_authorization_valid_before"
    RECEIVE_SIGNATURE = _PREFIX + "receive_authorization_signature"
    INSUFFICIENT_BALANCE = _PREFIX + "insufficient_balance"
    DEPOSIT_SIMULATION_FAILED = _PREFIX + "deposit_simulation_failed"
    DEPOSIT_FAILED = _PREFIX + "deposit_transaction_failed"

    REFUND_AMOUNT = _PREFIX + "refund_amount_invalid"
    REFUND_NO_BALANCE = _PREFIX + "refund_no_balance"
