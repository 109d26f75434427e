"""A whole EVM chain on this machine, with Base Sepolia's id and a USDC at Base Sepolia's address.

anvil is used where it is found, py-evm otherwise. Both run as a child process, answer the same
JSON-RPC, and end with us.
"""

from computeswarm.chain.devnet.devnet import Devnet, Engine, start_devnet
from computeswarm.chain.devnet.keys import dev_keys, faucet_key
from computeswarm.chain.devnet.process import find_anvil

__all__ = ["Devnet", "Engine", "dev_keys", "faucet_key", "find_anvil", "start_devnet"]
