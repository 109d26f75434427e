"""One EVM chain: JSON-RPC client, USDC, transactions and nonces, and an embedded devnet."""
