"""Payment channels: the ``batch-settlement`` scheme of x402, for the seller and for the buyer.

The buyer deposits once and signs a voucher a tick; the seller claims what was used and gives the
rest back. Source of the rules: the scheme's EVM specification (x402, ``specs/schemes``).
"""
