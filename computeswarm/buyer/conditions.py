"""What a quote says beside its price: the wait before the start, and what the seller may do."""

from __future__ import annotations

import time

from computeswarm.core.durations import format_duration
from computeswarm.core.money import format_usdc
from computeswarm.core.quotes import Quote


def conditions(quote: Quote) -> list[tuple[str, str]]:
    """A word and a short sentence for each; nothing for a job that starts at once and runs."""
    found = []
    if quote.waiting or quote.starts_in_seconds != 0:
        latest = (
            "nobody can say when it starts"
            if quote.starts_in_seconds is None
            else f"starts in {format_duration(quote.starts_in_seconds)} at most"
        )
        found.append(("Queue", f"{quote.waiting} before it; {latest}; waiting is free"))
    if quote.ask_seconds:
        limit = format_duration(quote.ask_seconds)
        found.append(("Owner", f"decides by hand, within {limit}; a no or silence pays all back"))
    if quote.pulls_image:
        found.append(("Image", "the node fetches it first; that is free, and you see how it goes"))
    if quote.minimum_charge:
        found.append(("Minimum", f"{format_usdc(quote.minimum_charge)} USDC once it was started"))
    if quote.evicted_at is not None:
        ends = time.strftime("%H:%M", time.localtime(quote.evicted_at))
        found.append(("Hours", f"what runs at {ends} is ended and paid back whole"))
    if quote.pause_seconds:
        limit = format_duration(quote.pause_seconds)
        found.append(("Pauses", f"free, if the owner needs the GPU; over {limit} all comes back"))
    return found
