"""Keys that everybody knows: for a local chain whose money is worth nothing, and nothing else."""

from __future__ import annotations

from computeswarm.core.crypto import PrivateKey, keccak256

# Development keys of the mnemonic "test test … junk", as in every Ethereum toolbox.
_WELL_KNOWN = (
    "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
    "5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
    "7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6",
    "47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a",
    "8b3a350cf5c34c9194ca85829a2df0ec3153be0318b5e2d3348e872092edffba",
)


def dev_keys() -> list[PrivateKey]:
    """The six throwaway accounts, in their usual order."""
    return [PrivateKey.from_hex(secret) for secret in _WELL_KNOWN]


def faucet_key() -> PrivateKey:
    """The owner of TestUSDC, whose address is written into its source."""
    return PrivateKey(keccak256(b"computeswarm devnet faucet"))
