"""aiohttp skins over the domain: the market's and the seller's HTTP interfaces."""
