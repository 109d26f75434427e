"""The chains and the USDC contracts we know. Nothing else is ever paid or accepted.

Addresses and EIP-712 domains are Circle's; note that the domain *name* differs between the two.
"""

from __future__ import annotations

from dataclasses import dataclass

from computeswarm.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Token:
    """An ERC-20 with EIP-3009, and the EIP-712 domain its signatures are made for."""

    address: str
    name: str
    version: str
    symbol: str = "USDC"
    decimals: int = 6


@dataclass(frozen=True, slots=True)
class ChainInfo:
    """One EVM chain: its id, x402's v1 name, and its USDC."""

    chain_id: int
    slug: str
    title: str
    usdc: Token
    real_money: bool

    @property
    def caip2(self) -> str:
        """The network's name in x402 v2 (CAIP-2)."""
        return f"eip155:{self.chain_id}"


BASE = ChainInfo(
    8453,
    "base",
    "Base",
    Token("0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "USD Coin", "2"),
    real_money=True,
)
BASE_SEPOLIA = ChainInfo(
    84532,
    "base-sepolia",
    "Base Sepolia",
    Token("0x036CbD53842c5426634e7929541eC2318f3dCF7e", "USDC", "2"),
    real_money=False,
)
CHAINS = {chain.chain_id: chain for chain in (BASE, BASE_SEPOLIA)}


def chain_by_id(chain_id: int) -> ChainInfo:
    """The chain with that id.

    Raises:
        ConfigError: a chain whose USDC we don't know.
    """
    try:
        return CHAINS[chain_id]
    except KeyError:
        known = ", ".join(f"{c.chain_id} ({c.title})" for c in CHAINS.values())
        raise ConfigError(f"Chain {chain_id} is not known; use one of {known}.") from None
