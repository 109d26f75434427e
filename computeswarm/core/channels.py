"""Payment channels of x402's ``batch-settlement`` scheme: their identity, and what is signed.

Types, names and addresses are those of the scheme's EVM specification (x402, specs/schemes/
batch-settlement). Digests are built by hand like those of ``eip712``; the tests hold them against
``eth_account``, the ``x402`` package and the contract itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final

from computeswarm.core.chains import ChainInfo
from computeswarm.core.crypto import is_address, keccak256, same_address, to_checksum
from computeswarm.core.eip712 import (
    EIP712_DOMAIN,
    TRANSFER_WITH_AUTHORIZATION,
    Field,
    digest,
    struct_hash,
    token_domain,
    type_hash,
)

SCHEME: Final = "batch-settlement"
# The same on every chain (CREATE2), and on the devnet.
BATCH_SETTLEMENT = "0x4020074e9dF2ce1deE5A9C1b5c3f541D02a10003"
DEPOSIT_COLLECTOR = "0x4020806089470a89826cB9fB1f4059150b550004"

MIN_WITHDRAW_DELAY = 900
MAX_WITHDRAW_DELAY = 2_592_000
MAX_UINT128 = 2**128 - 1
ZERO_ADDRESS = "0x" + 40 * "0"

_BYTES32 = re.compile(r"0x[0-9a-fA-F]{64}\Z")
_CACHED = 1024  # channels; each is parsed and hashed once, however many vouchers it sees


@dataclass(frozen=True, slots=True)
class ChannelConfig:
    """What a channel is, for ever: changing any of it names another channel.

    Addresses have their EIP-55 spelling, ``salt`` is lower-case 0x hex of 32 bytes,
    ``withdraw_delay`` in seconds.
    """

    payer: str
    payer_authorizer: str
    receiver: str
    receiver_authorizer: str
    token: str
    withdraw_delay: int
    salt: str

    @property
    def voucher_signer(self) -> str:
        """Whose signature a voucher needs: the payer authorizer's (always a plain key's), or the
        payer's own where there is none (a plain key's, or ERC-1271)."""
        return self.payer if self.payer_authorizer == ZERO_ADDRESS else self.payer_authorizer

    def wire(self) -> dict[str, Any]:
        """``channelConfig`` as it stands in a payment payload."""
        return {
            "payer": self.payer,
            "payerAuthorizer": self.payer_authorizer,
            "receiver": self.receiver,
            "receiverAuthorizer": self.receiver_authorizer,
            "token": self.token,
            "withdrawDelay": self.withdraw_delay,
            "salt": self.salt,
        }

    @classmethod
    def parse(cls, value: object) -> ChannelConfig:
        """Read a ``channelConfig`` from a stranger.

        Only its form is checked here: six well-formed fields and a delay within the contract's
        bounds. Whether its parties are the right ones is the caller's question.

        Raises:
            ValueError: not one; the message names the field and repeats nothing of it.
        """
        fields = value if isinstance(value, Mapping) else {}
        texts = [fields.get(name) for name in (*_ADDRESSES, "salt")]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("channelConfig is not an object with all its addresses and its salt")
        delay = fields.get("withdrawDelay")
        if type(delay) is not int or not MIN_WITHDRAW_DELAY <= delay <= MAX_WITHDRAW_DELAY:
            raise ValueError("channelConfig.withdrawDelay is not within 15 minutes and 30 days")
        return _parsed(*texts, delay)


_ADDRESSES = ("payer", "payerAuthorizer", "receiver", "receiverAuthorizer", "token")


@lru_cache(maxsize=_CACHED)
def _parsed(
    payer: str,
    payer_authorizer: str,
    receiver: str,
    receiver_authorizer: str,
    token: str,
    salt: str,
    delay: int,
) -> ChannelConfig:
    texts = (payer, payer_authorizer, receiver, receiver_authorizer, token)
    for name, text in zip(_ADDRESSES, texts, strict=True):
        if not is_address(text):
            raise ValueError(f"channelConfig.{name} is not an address")
    if not _BYTES32.match(salt):
        raise ValueError("channelConfig.salt is not 32 bytes in hex")
    return ChannelConfig(
        payer=to_checksum(payer),
        payer_authorizer=to_checksum(payer_authorizer),
        receiver=to_checksum(receiver),
        receiver_authorizer=to_checksum(receiver_authorizer),
        token=to_checksum(token),
        withdraw_delay=delay,
        salt=salt.lower(),
    )


_CONFIG: tuple[Field, ...] = (
    ("payer", "address"),
    ("payerAuthorizer", "address"),
    ("receiver", "address"),
    ("receiverAuthorizer", "address"),
    ("token", "address"),
    ("withdrawDelay", "uint40"),
    ("salt", "bytes32"),
)
_VOUCHER: tuple[Field, ...] = (("channelId", "bytes32"), ("maxClaimableAmount", "uint128"))
_REFUND: tuple[Field, ...] = (
    ("channelId", "bytes32"),
    ("nonce", "uint256"),
    ("amount", "uint128"),
)
_CLAIM_ENTRY: tuple[Field, ...] = (*_VOUCHER, ("totalClaimed", "uint128"))
_CLAIM_BATCH_HASH = keccak256(
    b"ClaimBatch(ClaimEntry[] claims)"
    b"ClaimEntry(bytes32 channelId,uint128 maxClaimableAmount,uint128 totalClaimed)"
)
_VOUCHER_HASH = type_hash("Voucher", _VOUCHER)


@cache
def channel_domain(chain_id: int) -> bytes:
    """The domain separator of the settlement contract on a chain."""
    values = ("x402 Batch Settlement", "1", chain_id, BATCH_SETTLEMENT)
    return struct_hash("EIP712Domain", EIP712_DOMAIN, values)


@lru_cache(maxsize=_CACHED)
def _channel_id(config: ChannelConfig, chain_id: int) -> str:
    values = (
        config.payer,
        config.payer_authorizer,
        config.receiver,
        config.receiver_authorizer,
        config.token,
        config.withdraw_delay,
        config.salt,
    )
    struct = struct_hash("ChannelConfig", _CONFIG, values)
    return "0x" + digest(channel_domain(chain_id), struct).hex()


def channel_id(config: ChannelConfig, chain: ChainInfo) -> str:
    """A channel's name on one chain: lower-case 0x hex of 32 bytes."""
    return _channel_id(config, chain.chain_id)


def voucher_digest(channel: str, max_claimable: int, chain: ChainInfo) -> bytes:
    """What the payer signs: that ``max_claimable`` atoms in all may be claimed from a channel.

    ``channel`` is the channel's id. Raises OverflowError above 128 bits.
    """
    words = bytes.fromhex(channel[2:]) + bytes(16) + max_claimable.to_bytes(16)
    return digest(channel_domain(chain.chain_id), keccak256(_VOUCHER_HASH + words))


def refund_digest(channel: str, nonce: int, amount: int, chain: ChainInfo) -> bytes:
    """What the receiver authorizer signs to give ``amount`` atoms back, once (``nonce``)."""
    struct = struct_hash("Refund", _REFUND, (channel, nonce, amount))
    return digest(channel_domain(chain.chain_id), struct)


def claim_batch_digest(entries: Iterable[tuple[str, int, int]], chain: ChainInfo) -> bytes:
    """What the receiver authorizer signs to claim from many channels at once.

    Args:
        entries: (channel id, the voucher's max claimable, total claimed after this) each; atoms.
    """
    hashes = b"".join(struct_hash("ClaimEntry", _CLAIM_ENTRY, entry) for entry in entries)
    struct = keccak256(_CLAIM_BATCH_HASH + keccak256(hashes))
    return digest(channel_domain(chain.chain_id), struct)


def deposit_nonce(channel: str, salt: int) -> str:
    """The EIP-3009 nonce of a deposit: it ties the money to the channel. 0x hex."""
    return "0x" + keccak256(bytes.fromhex(channel[2:]) + salt.to_bytes(32)).hex()


def receive_authorization_digest(
    chain: ChainInfo,
    *,
    from_: str,
    to: str,
    value: int,
    valid_after: int,
    valid_before: int,
    nonce: str,
) -> bytes:
    """EIP-3009 ``ReceiveWithAuthorization`` of the chain's USDC: only ``to`` may submit it."""
    values = (from_, to, value, valid_after, valid_before, nonce)
    struct = struct_hash("ReceiveWithAuthorization", TRANSFER_WITH_AUTHORIZATION, values)
    return digest(token_domain(chain.chain_id, chain.usdc), struct)


def deposit_digest(
    config: ChannelConfig,
    chain: ChainInfo,
    *,
    amount: int,
    valid_after: int,
    valid_before: int,
    salt: int,
) -> bytes:
    """What the payer signs to put ``amount`` atoms into a channel; times in Unix seconds.

    Raises:
        ValueError: the channel is not in the chain's USDC.
    """
    if not same_address(config.token, chain.usdc.address):
        raise ValueError("the channel is not in the chain's USDC")
    return receive_authorization_digest(
        chain,
        from_=config.payer,
        to=DEPOSIT_COLLECTOR,
        value=amount,
        valid_after=valid_after,
        valid_before=valid_before,
        nonce=deposit_nonce(channel_id(config, chain), salt),
    )
