"""How many lines a second the log pane takes, and how long it ever holds the event loop.

    python -m benchmarks.log_view [LINES_PER_SECOND] [SECONDS]

Feeds batches at 10 Hz, as a job's stream does, to the log of a running app (no terminal), and
measures the longest gap between two turns of the loop. Then feeds as fast as it can.
"""

from __future__ import annotations

import asyncio
import sys
import time

from textual.app import App, ComposeResult

from computeswarm.core.text import StreamDecoder
from computeswarm.tui.logbuffer import LogBuffer
from computeswarm.tui.views import LogLine
from computeswarm.tui.widgets.log_view import LogView


class Bench(App[None]):
    def compose(self) -> ComposeResult:
        yield LogView()


def batch(count: int) -> list[LogLine]:
    """Raw output, decoded and cleaned as it is on its way from a seller."""
    raw = b"".join(
        b"step %07d  loss 0.1234  accuracy 0.9876  img/s 1024\n" % n for n in range(count)
    )
    return [LogLine(text) for text in StreamDecoder().feed(raw)]


async def watch_loop(gaps: list[float]) -> None:
    """The time that each turn of one millisecond really took."""
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        gaps.append(time.perf_counter() - began - 0.001)


async def measure(rate: int, seconds: float) -> tuple[float, float, float]:
    """Longest and 95th percentile gap in seconds at ``rate``, and lines a second flat out."""
    app = Bench()
    async with app.run_test(size=(120, 40)) as pilot:
        view, buffer, gaps = app.query_one(LogView), LogBuffer(), list[float]()
        view.show(buffer)
        watcher = asyncio.create_task(watch_loop(gaps))
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            turn = time.perf_counter()
            buffer.extend(batch(rate // 10))
            view.grew()
            await asyncio.sleep(max(0.0, 0.1 - (time.perf_counter() - turn)))
        watcher.cancel()
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < 2:
            buffer.extend(batch(1_000))
            view.grew()
            count += 1_000
            await pilot.pause()
        flat_out = count / (time.perf_counter() - began)
    gaps.sort()
    return gaps[-1], gaps[int(len(gaps) * 0.95)], flat_out


def main() -> int:
    rate = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 5.0
    longest, usual, flat_out = asyncio.run(measure(rate, seconds))
    print(
        f"at {rate:,} lines/s        longest gap {longest * 1000:.0f} ms, p95 {usual * 1000:.1f} ms"
    )
    print(f"flat out               {flat_out:,.0f} lines/s, with cleaning and drawing")
    return 0


if __name__ == "__main__":
    sys.exit(main())
