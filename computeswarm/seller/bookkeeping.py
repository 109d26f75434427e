"""The running seller's side of earnings: it counts time and current, and sums up for its owner."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from computeswarm.core.errors import ComputeSwarmError
from computeswarm.core.logs import get_logger
from computeswarm.core.money import parse_usdc
from computeswarm.core.settings import Settings
from computeswarm.core.stats import MarketStats
from computeswarm.seller.earnings import reports
from computeswarm.seller.earnings_rows import By, EarningsReport, Prices
from computeswarm.seller.owner import Earnings
from computeswarm.seller.pricing import CPU_MODEL, PriceAdvice, PriceAdvisor, advise
from computeswarm.seller.usage import CPU, Ever, Reading, Unit, UsageLog

if TYPE_CHECKING:
    from computeswarm.seller.agent import SellerAgent

SUMMARY_DAYS = 30
_log = get_logger("seller")
_LATELY_DAYS = 7
_ENOUGH_HOURS = 6 * 3600
"""Seconds on offer after which it says something how many of them were sold."""
_ENOUGH_SOLD = 600
"""Seconds of work after which its current is known."""
_MOSTLY = 900
"""Permille of the time that the current was measured."""
_STALE_SECONDS = 10.0
_FRESH_SECONDS = 2.0
_LOAD = 50
"""A summary is kept for at least so many times as long as it took: 2 % of one core at most."""


def prices_of(settings: Settings) -> Prices:
    """What current and gas cost, by the settings. Test networks' ether is worth nothing.

    Raises:
        BadRequest: a setting is no amount.
    """
    ether = parse_usdc(settings.eth_price) if settings.chain.real_money else 0
    return Prices(parse_usdc(settings.electricity_price), ether)


class Bookkeeper:
    """Owns ``usage.db``; ``tick`` it just before a job takes its place, or leaves it."""

    def __init__(self, agent: SellerAgent) -> None:
        self._agent = agent
        config = agent.config
        gpus = config.hardware.gpus
        units = [Unit(gpu.uuid or f"gpu-{n}", n, gpu.model) for n, gpu in enumerate(gpus)]
        units.append(Unit(CPU, len(gpus), config.hardware.cpu_model or CPU))
        self._usage = UsageLog(config.folder / "usage.db", units, self._read, agent.clock)
        self._summary = Earnings()
        self._fresh_until = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._closed = False
        self.advisor = PriceAdvisor(config.market, self.advice, self._tell)

    def start(self) -> None:
        """Begin to count, and to ask what others ask."""
        self._usage.start()
        self.summary()
        self.advisor.start()

    async def close(self) -> None:
        """Write the rest."""
        self._closed = True
        await self.advisor.close()
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)
        await self._usage.close()

    def _tell(self, advice: PriceAdvice) -> None:
        self._agent.notices.tell(advice.sentence(self._agent.offers.price_per_hour))

    def tick(self) -> None:
        """Count up to now."""
        self._usage.tick()

    @property
    def ever(self) -> tuple[Ever, ...]:
        """What each unit did since the first start."""
        return tuple(self._usage.ever.values())

    @property
    def prices(self) -> Prices:
        """As set now."""
        return prices_of(self._agent.settings or Settings())

    async def report(self, days: int, by: By) -> EarningsReport:
        """The last ``days`` of the owner's days, today's included.

        Raises:
            ConfigError: not so many days, or a file can't be read.
        """
        self._write()
        return (await asyncio.to_thread(self._reports, days, (by,)))[0]

    def summary(self) -> Earnings:
        """For the owner's screen, some seconds old; reading long books keeps nothing else up."""
        old = self._agent.clock.monotonic() >= self._fresh_until
        idle = self._reading is None or self._reading.done()
        if old and idle and not self._closed:
            self._reading = asyncio.create_task(self._sum_up(), name="earnings")
        vouched = self._agent.channels.unclaimed()
        return self._summary.model_copy(update={"vouched": vouched})

    async def _sum_up(self) -> None:
        began = time.perf_counter()
        try:
            self._write()
            by_day, by_gpu = await asyncio.to_thread(self._reports, SUMMARY_DAYS, ("day", "gpu"))
        except ComputeSwarmError as error:
            _log.error("earnings_unreadable", problem=error.detail)
        else:
            self._summary = Earnings(
                days=by_day.rows,
                gpus=by_gpu.rows,
                total=by_day.total,
                electricity_price=by_day.electricity_price,
            )
        fresh = max(_FRESH_SECONDS, _LOAD * (time.perf_counter() - began))
        self._fresh_until = self._agent.clock.monotonic() + fresh

    def advice(self, stats: MarketStats | None) -> PriceAdvice:
        """A price to think about, by what the market says."""
        gpus = self._agent.config.hardware.gpus
        model = gpus[0].model if gpus else CPU_MODEL
        days = self.summary().days[-_LATELY_DAYS:]
        offered = sum(day.offered_seconds for day in days)
        sold = sum(day.sold_seconds for day in days) / offered if offered > _ENOUGH_HOURS else None
        return advise(stats, model, break_even=self._break_even(), sold=sold)

    def _break_even(self) -> int:
        """Atoms that the current of a busy GPU's hour costs: as measured while jobs ran, or else as
        much as its power limit lets it take; 0 where neither is known."""
        rows = [row for row in self.summary().gpus if (row.measured_permille or 0) > _MOSTLY]
        sold = sum(row.sold_seconds for row in rows)
        if sold >= _ENOUGH_SOLD:
            spent = sum((row.electricity or 0) - (row.idle_electricity or 0) for row in rows)
            return spent * 3600 // sold
        gpus = range(len(self._agent.config.hardware.gpus))
        limits = [self._agent.machine.reading(index).power_limit_mw for index in gpus]
        known = [limit for limit in limits if limit is not None]
        return max(known, default=0) * self.prices.electricity // 1_000_000

    def _write(self) -> None:
        if not self._closed:  # its owner may ask while the seller leaves
            self._usage.tick()
            self._usage.write()

    def _reports(self, days: int, ways: Sequence[By]) -> list[EarningsReport]:
        config = self._agent.config
        return reports(
            config.folder,
            config.chain.chain_id,
            config.chain.name,
            days=days,
            ways=ways,
            now=self._agent.clock.now(),
            prices=self.prices,
        )

    def _read(self) -> Sequence[Reading]:
        agent = self._agent
        taking = agent.acceptance.mood() == "taking"
        unwell, owners = agent.unwell_gpus(), agent.owner_use.gpus
        found = []
        for index in range(len(agent.config.hardware.gpus)):
            holder = agent.slots.holder(index)
            found.append(
                Reading(
                    (holder,) if holder else (),
                    offered=taking and index not in unwell,
                    owners=index in owners,
                    watts=self._watts(index),
                )
            )
        places = 0 if found else agent.slots.count
        found.append(Reading(agent.slots.without_gpu(), offered=taking, places=places))
        return found

    def _watts(self, index: int) -> float | None:
        """What a GPU draws, as far as a fresh reading tells: a driver that hangs tells nothing."""
        samples = self._agent.machine.samples(index)
        if not samples or samples[-1].power_mw is None:
            return None
        old = self._agent.clock.now() - samples[-1].at / 1000
        return samples[-1].power_mw / 1000 if old < _STALE_SECONDS else None
