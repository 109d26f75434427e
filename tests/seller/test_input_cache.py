"""What inputs may take of the seller's disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from computeswarm.core.clock import SystemClock
from computeswarm.core.errors import StorageFull
from computeswarm.seller.inputcache import InputCache

WALLET = "0x" + "1" * 40


def test_a_smaller_announcement_of_a_digest_frees_no_promised_room(tmp_path: Path) -> None:
    cache = InputCache(tmp_path / "inputs", SystemClock(), limit=1000, keep=60)
    first, other = (WALLET, "a" * 64), (WALLET, "b" * 64)
    cache.pin({first: 900})
    cache.pin({first: 1})  # the buyer's second job, which says that it is a byte
    with pytest.raises(StorageFull):
        cache.pin({other: 900})
    cache.unpin([other])
    cache.unpin([first])
    cache.unpin([first])
    cache.pin({other: 900})
