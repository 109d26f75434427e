"""The market's domain: who sells what, who is there, which jobs were made. Knows no HTTP."""

from computeswarm.market.market import Market, open_market

__all__ = ["Market", "open_market"]
