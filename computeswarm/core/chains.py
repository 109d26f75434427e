"""The chains and the USDC contracts we know. Nothing else is ever paid or accepted.

Addresses and EIP-712 domains are Circle's; note that the domain *name* differs between the two.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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
    """One EVM chain and its USDC.

    ``name`` is what the setting ``network`` calls it, ``slug`` what x402's version 1 does, and
    ``title`` is for people.
    """

    chain_id: int
    name: str
    slug: str
    title: str
    usdc: Token
    real_money: bool

    @property
    def caip2(self) -> str:
        """The network's name in x402 v2 (CAIP-2)."""
        return f"eip155:{self.chain_id}"

    def document(self) -> dict[str, str | bool]:
        """What a program is told of where money moves."""
        return {"network": self.name, "real_money": self.real_money}

    @property
    def label(self) -> str:
        """The title, and what its money is worth."""
        return f"{self.title} ({'REAL MONEY' if self.real_money else 'test money'})"


BASE = ChainInfo(
    8453,
    "base",
    "base",
    "Base",
    Token("0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "USD Coin", "2"),
    real_money=True,
)
BASE_SEPOLIA = ChainInfo(
    84532,
    "base-sepolia",
    "base-sepolia",
    "Base Sepolia",
    Token("0x036CbD53842c5426634e7929541eC2318f3dCF7e", "USDC", "2"),
    real_money=False,
)
DEVNET = replace(BASE_SEPOLIA, name="devnet", title="local devnet")
"""To every x402 program it is Base Sepolia, so that those work with it unmodified."""

NETWORKS = {chain.name: chain for chain in (BASE_SEPOLIA, BASE, DEVNET)}
CHAINS = {chain.chain_id: chain for chain in (BASE, BASE_SEPOLIA)}


def chain_by_id(chain_id: int) -> ChainInfo:
    """The public chain with that id.

    Raises:
        ConfigError: a chain whose USDC we don't know.
    """
    try:
        return CHAINS[chain_id]
    except KeyError:
        raise _unknown(str(chain_id)) from None


def chain_title(chain_id: int) -> str:
    """How people call a chain, whoever's it is."""
    known = CHAINS.get(chain_id)
    return f"chain {chain_id}" if known is None else known.title


def chain_by_name(name: str) -> ChainInfo:
    """The chain that a person means: by its name, or by its id in figures.

    Raises:
        ConfigError: none of ours; the sentence names them.
    """
    key = name.strip().lower()
    if key.isascii() and key.isdigit():
        return chain_by_id(int(key[:20]))
    try:
        return NETWORKS[key]
    except KeyError:
        raise _unknown(name) from None


def _unknown(name: str) -> ConfigError:
    *most, last = NETWORKS
    return ConfigError(
        f"There is no network {name[:40]!r} here; set network to {', '.join(most)} or {last}."
    )
