"""A price to think about: what comparable sellers ask, and what the current costs. Nobody but the
owner ever applies it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import httpx

from computeswarm.core.errors import ComputeSwarmError, MarketUnavailable
from computeswarm.core.money import ATOMS_PER_USDC, format_usdc
from computeswarm.core.nodes import Atoms
from computeswarm.core.signing import Document, parse_json
from computeswarm.core.stats import MarketStats
from computeswarm.core.text import clean_line

_log = logging.getLogger(__name__)

CPU_MODEL = "cpu"
"""Under which a market counts machines without a GPU."""
_EVERY_SECONDS = 600.0
_RETRY_SECONDS = 60.0
_TIMEOUT_SECONDS = 5.0
_REPLY_BYTES = 4 * 1024 * 1024
_ENOUGH_SELLERS = 3
_WIDEST = 20
"""Where the middle half of the prices lies further apart, it says nothing."""
_DEAREST = 1_000 * ATOMS_PER_USDC
_BUSY, _QUIET = 0.8, 0.2


class PriceAdvice(Document):
    """Atoms per GPU and hour (of the whole machine on a cpu node); 0 where there is none.

    ``low``, ``middle`` and ``high`` are what a quarter, half and three quarters of the sellers ask
    at most. ``break_even`` is what the current of a busy GPU costs.
    """

    model: str
    sellers: int = 0
    low: Atoms = 0
    middle: Atoms = 0
    high: Atoms = 0
    break_even: Atoms = 0
    suggested: Atoms = 0
    why: str = ""
    """In one sentence, also where nothing can be suggested."""

    def sentence(self, price: int) -> str:
        """For the owner, whose price is ``price``."""
        parts = []
        if self.sellers:
            parts.append(
                f"{self.sellers} sellers of {self.model} ask {_usdc(self.low)} to"
                f" {_usdc(self.high)} USDC an hour, half of them at most {_usdc(self.middle)};"
                f" you ask {_usdc(price)}."
            )
        if self.break_even:
            parts.append(f"The current of an hour costs {_usdc(self.break_even)}.")
        if self.suggested:
            parts.append(f"Suggested: {_usdc(self.suggested)} ({self.why}).")
        elif self.why:
            parts.append(f"No price is suggested: {self.why}.")
        return " ".join(parts)


def advise(
    stats: MarketStats | None, model: str, *, break_even: int, sold: float | None
) -> PriceAdvice:
    """Look at what a market says with distrust, and suggest a price where it makes sense.

    Args:
        stats: None where the market is silent.
        model: the GPU's, or ``cpu``.
        break_even: atoms an hour, 0 where it is not known.
        sold: the share of the offered time that was sold lately; None where none was offered.
    """
    model = clean_line(model, limit=60)
    row = next((gpu for gpu in stats.gpus if gpu.model == model), None) if stats else None
    asked = row.asked if row else None
    if stats is None:
        return PriceAdvice(model=model, break_even=break_even, why="the market does not answer")
    if asked is None or asked.sellers < _ENOUGH_SELLERS:
        found = asked.sellers if asked else 0
        why = f"too few sellers of {model} to compare with ({found})"
        return PriceAdvice(model=model, break_even=break_even, why=why)
    known = {"model": model, "break_even": break_even, "sellers": asked.sellers}
    if not 0 < asked.p25 <= asked.p50 <= asked.p75 <= min(_DEAREST, _WIDEST * asked.p25):
        return PriceAdvice(**known, why="the prices at the market are too far apart")
    known |= {"low": asked.p25, "middle": asked.p50, "high": asked.p75}
    suggested, why = asked.p50, "what half of them ask at most"
    if sold is not None and sold >= _BUSY:
        suggested, why = asked.p75, f"{sold:.0%} of your hours are sold, so you may ask more"
    elif sold is not None and sold < _QUIET:
        suggested, why = asked.p25, f"only {sold:.0%} of your hours are sold"
    if suggested < break_even:
        suggested, why = break_even, "below it the current costs more than it brings"
    return PriceAdvice(**known, suggested=suggested, why=why)


async def fetch_stats(url: str, *, timeout: float = _TIMEOUT_SECONDS) -> MarketStats:
    """A market's statistics.

    Raises:
        MarketUnavailable, BadRequest: no usable answer.
    """
    try:
        async with (
            asyncio.timeout(timeout),
            httpx.AsyncClient(trust_env=False, timeout=timeout) as http,
            http.stream(
                "GET", f"{url.rstrip('/')}/api/v1/stats", headers={"Accept-Encoding": "identity"}
            ) as reply,
        ):
            body = b""
            async for chunk in reply.aiter_raw():  # unpacked, a few bytes may be very many
                body += chunk
                if len(body) > _REPLY_BYTES:
                    raise MarketUnavailable("The market's figures are too long to be read.")
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError):
        raise MarketUnavailable("The market's figures can't be had just now.") from None
    if reply.status_code != httpx.codes.OK:
        raise MarketUnavailable("The market's figures can't be had just now.")
    return parse_json(MarketStats, body)


class PriceAdvisor:
    """Asks the market every ten minutes.

    Args:
        told: called when the first advice with a price is there.
    """

    def __init__(
        self,
        url: str,
        make: Callable[[MarketStats | None], PriceAdvice],
        told: Callable[[PriceAdvice], None],
    ) -> None:
        self._url = url
        self._make = make
        self._told = told
        self._stats: MarketStats | None = None
        self._said = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to ask."""
        self._task = asyncio.create_task(self._ask(), name="price-advice")

    async def close(self) -> None:
        """Stop asking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def advice(self) -> PriceAdvice:
        """By what is known now."""
        return self._make(self._stats)

    async def _ask(self) -> None:
        while True:
            try:
                self._stats = await fetch_stats(self._url)
            except ComputeSwarmError as error:
                _log.info("no advice on the price: %s", error.detail)
            if self._stats is not None and not self._said:
                self._said = True
                self._told(self.advice)
            await asyncio.sleep(_RETRY_SECONDS if self._stats is None else _EVERY_SECONDS)


def _usdc(atoms: int) -> str:
    return format_usdc(atoms, places=4) if atoms % 10_000 else format_usdc(atoms, places=2)
