"""Rent a stranger's GPU from your terminal and pay by the second in USDC."""

__version__ = "0.1.0"
