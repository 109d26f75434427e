"""The stream of changes: what happened in the last moment, once encoded, to all who listen."""

from computeswarm.market.live.feed import LiveFeed
from computeswarm.market.live.nodes import TableNodes
from computeswarm.market.live.subscription import Subscription

__all__ = ["LiveFeed", "Subscription", "TableNodes"]
