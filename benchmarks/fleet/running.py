"""A whole fleet over sockets, against a market that runs somewhere."""

from __future__ import annotations

import asyncio

from benchmarks.fleet.agent import Agent, Settings
from benchmarks.fleet.buyers import Buyer
from benchmarks.fleet.line import Line
from benchmarks.fleet.model import Fleet
from benchmarks.fleet.report import Report


async def run_fleet(
    url: str,
    fleet: Fleet,
    *,
    seconds: float,
    buyers: int = 4,
    pause: float = 2.0,
    arrive_seconds: float = 10.0,
    settings: Settings | None = None,
) -> Report:
    """Let a fleet live on a market for a while.

    Args:
        buyers: how many search, each every ``pause`` seconds on average.
        arrive_seconds: machines register spread over so long, as after an outage.
    """
    settings, report = settings or Settings(), Report()
    async with Line(url, report) as line:
        up: dict[str, Agent] = {}
        agents = [Agent(fleet, machine, line, settings, up) for machine in fleet.machines()]

        async def arrive(agent: Agent, after: float) -> None:
            await asyncio.sleep(after)
            await agent.live()

        step = min(arrive_seconds, seconds / 2) / max(1, len(agents))
        lives = [arrive(agent, place * step) for place, agent in enumerate(agents)]
        lives += [
            Buyer(fleet, number, line, settings, up, pause=pause).live() for number in range(buyers)
        ]
        tasks = [asyncio.create_task(life) for life in lives]
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            if not task.cancelled():
                task.result()  # a fault of the simulator itself
        report.events["up at the end"] = len(up)
    return report
