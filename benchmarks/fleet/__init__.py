"""A fleet of made-up sellers and buyers on a market: ``python -m benchmarks.fleet``."""
