"""Money both ways: the buyer's wallet, guard and journal; the seller's terms and settlement."""
