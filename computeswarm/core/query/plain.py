"""The original protocol's plain parameters, as further words of a query."""

from __future__ import annotations

import re
from collections.abc import Mapping

from computeswarm.core.errors import BadRequest
from computeswarm.core.query.language import parse
from computeswarm.core.text import squeeze

_NUMBER = re.compile(r"\$?[0-9]{1,12}(\.[0-9]{1,6})?\Z", re.ASCII)
_LEAST = (("min_vram_gb", "vram>="), ("max_price", "price<="))
PLAIN = {
    "gpu_type": "part of the GPU's name",
    "min_vram_gb": "least GiB of one GPU",
    "max_price": "most USDC per GPU and hour",
    "available": "true shows idle nodes only",
}
"""The parameters and what they mean."""


def plain_words(given: Mapping[str, str]) -> str:
    """The query ``q`` with the plain parameters as words behind it.

    Raises:
        InvalidQuery: ``q`` can't be read.
        BadRequest: a plain parameter can't.
    """
    query = given.get("q", "")
    parse(query)  # alone, so that what it leaves open takes in nothing of ours
    words = [query] if query else []
    if gpu := squeeze(given.get("gpu_type", "")):
        words.append(f"gpu:{gpu}")
    for name, comparison in _LEAST:
        if name in given:
            if not _NUMBER.match(given[name]):
                raise BadRequest(f"{name} is a number such as 24.")
            words.append(comparison + given[name].removeprefix("$"))
    if given.get("available", "").lower() in ("1", "true", "yes"):
        words.append("available")
    return " ".join(words)
